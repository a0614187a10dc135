// SPDX-License-Identifier: Apache-2.0
#include "model/language_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/check.h"
#include "base/checked_math.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/quant_config.h"
#include "experts/routing_profile.h"
#include "kernels/rope.h"
#include "kvcache/sequence_cache.h"
#include "memory/memory_info.h"
#include "model/cpu_backend.h"
#include "model/model_plan.h"
#ifdef HOTSET_HAS_CUDA
#include "model/gpu_backend.h"
#endif

namespace hotset {
namespace {

RopeTable rope_table(const ModelConfig& c) {
  const RopeParameters& rope = c.rope;
  return make_rope_table({.theta = rope.rope_theta,
                          .rotary_dims = c.rotary_dim(),
                          .yarn = rope.factor > 1,
                          .factor = rope.factor,
                          .original_max_position_embeddings =
                              static_cast<double>(rope.original_max_position_embeddings),
                          .beta_fast = rope.beta_fast,
                          .beta_slow = rope.beta_slow,
                          .truncate = rope.truncate,
                          .attention_factor = rope.attention_factor});
}

// Weights that the kernel gave no huge pages for are read slower: every 4 KiB need a look-up.
void note_small_pages(const ModelWeights& weights, std::vector<std::string>& notes) {
  constexpr int64_t kWorthALine = int64_t{1} << 30;
  int64_t bytes = weights.dense_memory.size();
  for (const HugeBuffer& bank : weights.banks) bytes += bank.size();
  const auto huge = bytes_on_huge_pages();
  if (bytes < kWorthALine || !huge || *huge >= bytes / 4 * 3) return;
  notes.push_back(fmt::format(
      "{} of {} of weights lie on huge pages, the rest on pages of 4 KiB, which a CPU reads slower "
      "(106 instead of 169 GB/s on one machine): look at "
      "/sys/kernel/mm/transparent_hugepage/enabled, where 'madvise' or 'always' should be chosen",
      bytes_text(std::min(*huge, bytes)), bytes_text(bytes)));
}

// A profile seeds the slots of experts that live on the GPU for a time; where there are none it is
// of no use.
void note_idle_profile(ModelPlan& plan) {
  const RoutingProfile* profile = plan.options.expert_profile.get();
  if (profile == nullptr) return;
  const Placement& p = plan.placement;
  const char* why = p.num_slots == p.num_experts ? "all experts fit on the GPU"
                    : p.num_slots == 0           ? "no expert has a slot on the GPU"
                    : profile->num_tokens() == 0 ? "it has counted no tokens"
                                                 : nullptr;
  if (why != nullptr) plan.notes.push_back(fmt::format("--expert-profile has no effect: {}", why));
}

#ifdef HOTSET_HAS_CUDA
void note_seeding(ModelPlan& plan, const ExpertSlots& slots) {
  const RoutingProfile* profile = plan.options.expert_profile.get();
  if (profile == nullptr || slots.all_resident() || slots.num_slots() == 0) return;
  if (profile->num_tokens() == 0) return;
  plan.notes.push_back(
      fmt::format("--expert-profile: the experts that start on the GPU took {:.1f} % of the "
                  "choices of its {} tokens",
                  100 * slots.resident_share(*profile), profile->num_tokens()));
}
#endif

class ModelSequence : public SequenceState {
 public:
  explicit ModelSequence(SequenceCache owned) : cache(std::move(owned)) {}
  SequenceCache cache;
};

Status check_ids(std::span<const int32_t> ids, int64_t vocab_size) {
  if (ids.empty()) return fail("no tokens to append");
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      return fail(fmt::format("token id {} is outside the vocabulary of {}", id, vocab_size));
    }
  }
  return {};
}

}  // namespace

struct LanguageModel::Parts {
  explicit Parts(ModelPlan made) : plan(std::move(made)), rope(rope_table(plan.open.config)) {}

  ModelPlan plan;
  RopeTable rope;
  LoadReport report;
  std::string device_text;
  std::vector<SequencePart> batch;   // of extend_batch(), kept for its memory
  std::unique_ptr<Backend> backend;  // last: it uses all of the above

  void describe_device();
};

Result<std::unique_ptr<Backend>> LanguageModel::create_cpu_backend(
    const Parts& parts, std::unique_ptr<ModelWeights> weights) {
  const ModelOptions& options = parts.plan.options;
  return CpuBackend::create(parts.plan.open.config, parts.rope, *parts.plan.pool,
                            std::move(weights),
                            {.isa = options.isa,
                             .arithmetic = options.arithmetic,
                             .kv_type = options.kv_type,
                             .max_context = options.max_model_len,
                             .prefill_chunk = options.prefill_chunk,
                             .max_num_seqs = options.max_num_seqs,
                             .num_pages = parts.plan.num_pages});
}

#ifdef HOTSET_HAS_CUDA
Result<std::unique_ptr<Backend>> LanguageModel::create_gpu_backend(
    Parts& parts, std::unique_ptr<ModelWeights> weights) {
  ModelPlan& plan = parts.plan;
  HS_ASSIGN_OR_RETURN(
      std::unique_ptr<GpuBackend> backend,
      GpuBackend::create(std::move(plan.runtime), plan.open.config, parts.rope, *plan.pool,
                         std::move(weights), gpu_backend_options(plan.options), plan.gpu_plan()));
  plan.placement = backend->plan().placement;
  plan.notes.insert(plan.notes.end(), backend->notes().begin(), backend->notes().end());
  note_seeding(plan, backend->expert_slots());
  return backend;
}

GpuBackend* LanguageModel::gpu_backend() {
  return dynamic_cast<GpuBackend*>(parts_->backend.get());
}
const GpuBackend* LanguageModel::gpu_backend() const {
  return dynamic_cast<const GpuBackend*>(parts_->backend.get());
}
#else
Result<std::unique_ptr<Backend>> LanguageModel::create_gpu_backend(
    Parts& /*parts*/, std::unique_ptr<ModelWeights> /*weights*/) {
  return fail("this build has no CUDA", ErrorKind::kUnsupported);
}

GpuBackend* LanguageModel::gpu_backend() {
  return nullptr;
}
const GpuBackend* LanguageModel::gpu_backend() const {
  return nullptr;
}
#endif

const std::string& LanguageModel::device_text() const {
  return parts_->device_text;
}
const Placement& LanguageModel::placement() const {
  return parts_->plan.placement;
}
const std::vector<std::string>& LanguageModel::notes() const {
  return parts_->plan.notes;
}

LanguageModel::LanguageModel(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
LanguageModel::~LanguageModel() = default;

Result<std::unique_ptr<LanguageModel>> LanguageModel::load(const std::string& directory,
                                                           const ModelOptions& options,
                                                           const LoadProgressFn& progress) {
  HS_ASSIGN_OR_RETURN(ModelPlan plan, plan_model(directory, options));
  return load(std::move(plan), progress);
}

Result<std::unique_ptr<LanguageModel>> LanguageModel::load(ModelPlan plan,
                                                           const LoadProgressFn& progress) {
  auto parts = std::make_unique<Parts>(std::move(plan));
  OpenModel& open = parts->plan.open;
  const ModelOptions& options = parts->plan.asked;
  const LoadOptions load_options{.num_threads = options.cpu_threads > 0
                                                    ? options.cpu_threads
                                                    : static_cast<int>(cpu::allowed_cpus().size())};
  HS_ASSIGN_OR_RETURN(
      std::unique_ptr<ModelWeights> weights,
      load_weights(open.checkpoint, std::move(open.plan), load_options, progress, &parts->report));
  note_small_pages(*weights, parts->plan.notes);
  const bool on_gpu = parts->plan.runtime != nullptr;
  auto backend = on_gpu ? create_gpu_backend(*parts, std::move(weights))
                        : create_cpu_backend(*parts, std::move(weights));
  if (!backend && on_gpu) return load_on_cpu_instead(std::move(parts), backend.error(), progress);
  HS_ASSIGN_OR_RETURN(parts->backend, std::move(backend));
  if (on_gpu) note_idle_profile(parts->plan);
  parts->describe_device();
  return std::unique_ptr<LanguageModel>(new LanguageModel(std::move(parts)));
}

// Its memory may have been taken since the plan was made, or pinned memory is refused.
Result<std::unique_ptr<LanguageModel>> LanguageModel::load_on_cpu_instead(
    std::unique_ptr<Parts> parts, const Error& why, const LoadProgressFn& progress) {
  const ModelOptions asked = parts->plan.asked;
  const std::string text = fmt::format("{}: {}", parts->plan.gpu_name, why.message);
  if (asked.device != Device::kAuto || why.kind == ErrorKind::kDeviceLost) {
    return fail(Error{why.kind, text});
  }
  const std::string directory = parts->plan.open.checkpoint.directory().path();
  parts.reset();  // before the same memory is taken again
  ModelOptions on_cpu = asked;
  on_cpu.device = Device::kCpu;
  auto plan = plan_model(directory, on_cpu);
  if (!plan) return fail(with_why_cpu(std::move(plan).error(), text));
  plan->why_cpu = text;
  // In place of notes that flags of a GPU do nothing: `text` may advise them.
  plan->notes = {"the GPU refused what the plan takes; the CPU computes"};
  auto loaded = load(std::move(*plan), progress);
  if (!loaded) return fail(with_why_cpu(std::move(loaded).error(), text));
  return loaded;
}

void LanguageModel::Parts::describe_device() {
  const ModelOptions& options = plan.options;
  device_text = fmt::format("{} CPU thread{}, {}", options.cpu_threads,
                            options.cpu_threads == 1 ? "" : "s", cpu::isa_name(options.isa));
  if (!plan.why_cpu.empty()) device_text += fmt::format(" (no GPU: {})", plan.why_cpu);
  if (plan.gpu_name.empty()) return;
  const Placement& p = plan.placement;
  device_text = fmt::format("{} with {} of {} experts ({} of {}), {}", plan.gpu_name, p.num_slots,
                            p.num_experts, bytes_text(p.gpu.back().bytes),
                            bytes_text(p.gpu_budget_bytes), device_text);
}

const ModelConfig& LanguageModel::config() const {
  return parts_->plan.open.config;
}
const LoadReport& LanguageModel::load_report() const {
  return parts_->report;
}
const ModelOptions& LanguageModel::options() const {
  return parts_->plan.options;
}
int64_t LanguageModel::vocab_size() const {
  return parts_->plan.open.config.vocab_size;
}
int64_t LanguageModel::max_tokens() const {
  return parts_->plan.options.max_model_len;
}
int64_t LanguageModel::prefill_chunk() const {
  return parts_->plan.options.prefill_chunk;
}
int64_t LanguageModel::max_decode_batch() const {
  return std::min({kMaxDecodeBatch, prefill_chunk(), parts_->backend->max_logits(),
                   parts_->plan.options.max_num_seqs});
}

Result<std::unique_ptr<SequenceState>> LanguageModel::new_sequence(int64_t num_tokens_expected) {
  HS_ASSIGN_OR_RETURN(SequenceCache cache,
                      SequenceCache::create(parts_->backend->pages(), parts_->backend->states()));
  HS_RETURN_IF_ERROR(cache.reserve(std::clamp<int64_t>(num_tokens_expected, 1, max_tokens())));
  return std::make_unique<ModelSequence>(std::move(cache));
}

Status LanguageModel::reserve(SequenceState& sequence, int64_t num_tokens_expected) {
  SequenceCache& cache = static_cast<ModelSequence&>(sequence).cache;
  return cache.reserve(std::clamp<int64_t>(num_tokens_expected, 1, max_tokens()));
}

Status LanguageModel::extend_by(SequenceState& sequence, std::span<const int32_t> ids,
                                bool all_logits, std::span<float> logits) {
  SequenceCache& cache = static_cast<ModelSequence&>(sequence).cache;
  HS_RETURN_IF_ERROR(check_ids(ids, vocab_size()));
  const int64_t end = cache.num_tokens() + static_cast<int64_t>(ids.size());
  if (end > max_tokens()) {
    return fail(fmt::format("{} tokens exceed the context of {}", end, max_tokens()),
                ErrorKind::kResource);
  }
  HS_RETURN_IF_ERROR(cache.reserve(end));
  float* to = logits.data();
  while (!ids.empty()) {
    const int64_t most =
        all_logits ? std::min(prefill_chunk(), parts_->backend->max_logits()) : prefill_chunk();
    const size_t count = std::min(ids.size(), static_cast<size_t>(most));
    const bool last = count == ids.size();
    const int64_t num_logits = all_logits ? static_cast<int64_t>(count) : last ? 1 : 0;
    const SequencePart part{&cache, ids.first(count)};
    HS_RETURN_IF_ERROR(parts_->backend->forward({&part, 1}, num_logits, to));
    if (to != nullptr) to += num_logits * vocab_size();
    ids = ids.subspan(count);
  }
  return {};
}

Status LanguageModel::extend(SequenceState& sequence, std::span<const int32_t> ids,
                             std::span<float> last_logits) {
  HS_CHECK(static_cast<int64_t>(last_logits.size()) == vocab_size(), "{} logits for {}",
           last_logits.size(), vocab_size());
  return extend_by(sequence, ids, false, last_logits);
}

Result<bool> LanguageModel::extend_head(SequenceState& sequence, std::span<const int32_t> ids,
                                        int64_t num_valid, LogitsHead& head) {
  if (!parts_->backend->has_heads()) return false;
  HS_RETURN_IF_ERROR(extend_by(sequence, ids, false, {}));
  HS_RETURN_IF_ERROR(parts_->backend->read_heads(num_valid, {&head, 1}));
  return true;
}

Status LanguageModel::read_logits(int64_t row, std::span<float> logits) {
  HS_CHECK(static_cast<int64_t>(logits.size()) == vocab_size(), "{} logits for {}", logits.size(),
           vocab_size());
  return parts_->backend->read_logits(row, logits.data());
}

Status LanguageModel::extend_all_logits(SequenceState& sequence, std::span<const int32_t> ids,
                                        std::span<float> logits) {
  HS_CHECK(logits.size() == ids.size() * static_cast<size_t>(vocab_size()), "{} logits for {} ids",
           logits.size(), ids.size());
  return extend_by(sequence, ids, true, logits);
}

Status LanguageModel::extend_batch_by(std::span<const SequenceStep> steps, float* logits) {
  std::vector<SequencePart>& parts = parts_->batch;
  parts.clear();
  for (const SequenceStep& step : steps) {
    SequenceCache& cache = static_cast<ModelSequence&>(*step.sequence).cache;
    HS_RETURN_IF_ERROR(check_ids({&step.id, 1}, vocab_size()));
    HS_CHECK(std::none_of(parts.begin(), parts.end(),
                          [&](const SequencePart& part) { return part.cache == &cache; }),
             "a sequence takes two steps at once");
    if (cache.num_tokens() >= max_tokens()) {
      return fail(
          fmt::format("{} tokens exceed the context of {}", cache.num_tokens() + 1, max_tokens()),
          ErrorKind::kResource);
    }
    HS_RETURN_IF_ERROR(cache.reserve(cache.num_tokens() + 1));
    parts.push_back({&cache, {&step.id, 1}});
  }
  const auto most = static_cast<size_t>(std::min(prefill_chunk(), parts_->backend->max_logits()));
  for (size_t at = 0; at < parts.size(); at += most) {
    const auto some = std::span(parts).subspan(at, std::min(most, parts.size() - at));
    HS_RETURN_IF_ERROR(parts_->backend->forward(
        some, std::ssize(some),
        logits == nullptr ? nullptr : logits + static_cast<int64_t>(at) * vocab_size()));
  }
  return {};
}

Status LanguageModel::extend_batch(std::span<const SequenceStep> steps, std::span<float> logits) {
  HS_CHECK(logits.size() == steps.size() * static_cast<size_t>(vocab_size()),
           "{} logits for {} steps", logits.size(), steps.size());
  return extend_batch_by(steps, logits.data());
}

Result<bool> LanguageModel::extend_batch_heads(std::span<const SequenceStep> steps,
                                               int64_t num_valid, std::span<LogitsHead> heads) {
  HS_CHECK(std::ssize(steps) <= max_decode_batch() && heads.size() == steps.size(),
           "{} heads of {} steps", heads.size(), steps.size());
  if (!parts_->backend->has_heads()) return false;
  HS_RETURN_IF_ERROR(extend_batch_by(steps, nullptr));
  HS_RETURN_IF_ERROR(parts_->backend->read_heads(num_valid, heads));
  return true;
}

Status LanguageModel::prepare_batches(int64_t num_seqs) {
  return parts_->backend->prepare_batches(std::min(num_seqs, max_decode_batch()));
}

bool LanguageModel::has_mtp() const {
  return parts_->backend->has_mtp();
}

Status LanguageModel::draft_all_logits(SequenceState& sequence, std::span<const int32_t> next_ids,
                                       std::span<float> logits) {
  SequenceCache& cache = static_cast<ModelSequence&>(sequence).cache;
  HS_RETURN_IF_ERROR(check_ids(next_ids, vocab_size()));
  const auto count = static_cast<int64_t>(next_ids.size());
  HS_CHECK(has_mtp() && count <= prefill_chunk() && count <= cache.num_tokens(), "{} drafts",
           count);
  HS_CHECK(static_cast<int64_t>(logits.size()) == count * vocab_size(), "{} logits", logits.size());
  return parts_->backend->forward_mtp({&cache, next_ids}, count, logits.data());
}

Result<std::unique_ptr<SequenceState>> LanguageModel::snapshot(const SequenceState& sequence) {
  const SequenceCache& cache = static_cast<const ModelSequence&>(sequence).cache;
  HS_ASSIGN_OR_RETURN(SequenceCache copy,
                      SequenceCache::create(parts_->backend->pages(), parts_->backend->states()));
  parts_->backend->states().copy(cache.state_slot(), copy.state_slot());
  copy.commit(cache.num_tokens());
  return std::make_unique<ModelSequence>(std::move(copy));
}

Status LanguageModel::restore(SequenceState& sequence, const SequenceState& snapshot) {
  SequenceCache& cache = static_cast<ModelSequence&>(sequence).cache;
  const SequenceCache& saved = static_cast<const ModelSequence&>(snapshot).cache;
  if (saved.num_tokens() > cache.num_tokens()) {
    return fail(fmt::format("a snapshot at {} tokens of a sequence that has {}", saved.num_tokens(),
                            cache.num_tokens()));
  }
  parts_->backend->states().copy(saved.state_slot(), cache.state_slot());
  cache.commit(saved.num_tokens());
  return {};
}

void LanguageModel::set_clock(StageClock* clock) {
  parts_->backend->set_clock(clock);
}

Status LanguageModel::listen_to_routing(RoutingListener listener) {
  return parts_->backend->listen_to_routing(std::move(listener));
}

Result<ModelSummary> inspect_model(const std::string& directory, const ModelOptions& options) {
  LoadOptions load_options = layout_options(options);
  load_options.mtp = true;
  HS_ASSIGN_OR_RETURN(OpenModel open, open_model(directory, load_options));
  ModelSummary summary;
  summary.directory = directory;
  summary.quantization = quant_method_name(open.quant.method);
  if (!open.quant.writer.empty() && open.quant.writer != summary.quantization) {
    summary.quantization += fmt::format(" ({})", open.quant.writer);
  }
  summary.memory_bytes = packed_bytes(open.plan);
  for (ComponentSummary& component : open.plan.components) {
    if (component.name == "mtp" && !options.mtp) summary.memory_bytes -= component.memory_bytes;
    if (component.num_tensors > 0) summary.components.push_back(std::move(component));
  }
  summary.notes = std::move(open.plan.notes);
  summary.warnings = open.checkpoint.warnings();
  summary.unknown_tensors = std::move(open.plan.unknown_tensors);
  summary.num_tensors = static_cast<int64_t>(open.checkpoint.tensors().size());
  summary.num_mtp_tensors = open.plan.num_mtp_tensors;
  summary.file_bytes = open.checkpoint.total_bytes();
  summary.kv_bytes_per_token = kv_bytes_per_token(open.config, kv_type_bytes(options.kv_type));
  summary.state_bytes_per_sequence =
      state_pool_shape(open.config, 1).slot_floats() * int64_t{sizeof(float)};
  summary.config = std::move(open.config);
  return summary;
}

}  // namespace hotset
