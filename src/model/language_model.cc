// SPDX-License-Identifier: Apache-2.0
#include "model/language_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/check.h"
#include "base/checked_math.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/json_file.h"
#include "checkpoint/quant_config.h"
#include "kernels/rope.h"
#include "kvcache/sequence_cache.h"
#include "memory/memory_info.h"
#include "model/cpu_backend.h"
#ifdef HOTSET_HAS_CUDA
#include "model/gpu_backend.h"
#endif

namespace hotset {
namespace {

constexpr int64_t kCpuPrefillChunk = 512;
constexpr int64_t kGpuPrefillChunk = 8192;

// The directory, opened and understood.
struct OpenModel {
  Checkpoint checkpoint;
  QuantConfig quant;
  ModelConfig config;
  WeightPlan plan;
};

Result<OpenModel> open_model(const std::string& directory, const LoadOptions& options) {
  HS_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(directory));
  HS_ASSIGN_OR_RETURN(const Json json, read_json_file(checkpoint.directory(), "config.json"));
  HS_ASSIGN_OR_RETURN(ModelConfig config, parse_model_config(json, directory + "/config.json"));
  HS_ASSIGN_OR_RETURN(QuantConfig quant, QuantConfig::load(checkpoint.directory(), json));
  HS_ASSIGN_OR_RETURN(WeightPlan plan, plan_weights(checkpoint, quant, config, options));
  return OpenModel{std::move(checkpoint), std::move(quant), std::move(config), std::move(plan)};
}

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

int64_t packed_bytes(const WeightPlan& plan) {
  int64_t bytes = plan.dense_bytes;
  for (const int64_t bank : plan.bank_bytes) bytes += bank;
  return bytes;
}

// All weights but routed experts and the embedding table, which stays in host memory.
int64_t gpu_dense_bytes(const WeightPlan& plan) {
  int64_t bytes = plan.dense_bytes;
  for (const LinearTask& task : plan.tasks) {
    if (task.to == &plan.weights->embed_tokens) bytes -= task.plan.shape.bytes();
  }
  return bytes;
}

// The longest context: what was asked, or the config's, cut to half of the memory that is left.
Result<int64_t> plan_context(const ModelConfig& c, const ModelOptions& options, int64_t weights) {
  const int64_t asked = options.max_model_len;
  if (asked > c.max_position_embeddings) {
    return fail(
        fmt::format("--max-model-len {}: the model's config allows {} (use rope_scaling in "
                    "config.json to extend it)",
                    asked, c.max_position_embeddings));
  }
  HS_ASSIGN_OR_RETURN(const MemoryInfo memory, read_memory_info());
  const int64_t left = memory.usable_bytes() - weights;
  const auto gib = [](int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); };
  if (left <= 0) {
    return fail(fmt::format("the weights take {:.2f} GiB in memory and {:.2f} GiB are available",
                            gib(weights), gib(memory.usable_bytes())),
                ErrorKind::kResource);
  }
  const int64_t token_bytes =
      std::max<int64_t>(1, kv_bytes_per_token(c, kv_type_bytes(options.kv_type)));
  const int64_t fits = left / 2 / token_bytes / kPageTokens * kPageTokens;
  if (asked > fits || fits == 0) {
    return fail(
        fmt::format("a context of {} tokens takes {:.2f} GiB of KV cache, and {:.2f} GiB are "
                    "left for it beside the weights; --max-model-len {} fits",
                    asked, gib(asked * token_bytes), gib(left / 2), fits),
        ErrorKind::kResource);
  }
  return asked > 0 ? asked : std::min(c.max_position_embeddings, fits);
}

// Every sequence may take the whole context where half of the memory left allows it, since a
// request without max_tokens asks for just that; else one may, and others share what it leaves or
// wait.
Result<int64_t> plan_pages(const ModelOptions& options, int64_t page_bytes) {
  const int64_t context = ceil_div(options.max_model_len, kPageTokens);
  const int64_t least = context + options.max_num_seqs;
  const int64_t most = std::max(least, context * options.max_num_seqs);
  HS_ASSIGN_OR_RETURN(const MemoryInfo memory, read_memory_info());
  return std::clamp(memory.usable_bytes() / 2 / std::max<int64_t>(1, page_bytes), least, most);
}

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

// In order of construction.
struct LanguageModel::Parts {
  ModelOptions options;
  ModelConfig config;
  RopeTable rope;
  LoadReport report;
  std::string device_text;
  std::unique_ptr<cpu::WorkerPool> pool;
  std::unique_ptr<Backend> backend;

  void create_pool(const DeviceChoice& choice);
  Status settle_options(const WeightPlan& plan, const DeviceChoice& choice);
};

Result<std::unique_ptr<Backend>> LanguageModel::create_cpu_backend(
    const Parts& parts, std::unique_ptr<ModelWeights> weights) {
  const ModelOptions& options = parts.options;
  const PagePoolShape shape =
      page_pool_shape(parts.config, weights->mtp != nullptr, kv_type_bytes(options.kv_type));
  HS_ASSIGN_OR_RETURN(const int64_t num_pages, plan_pages(options, shape.page_bytes()));
  return CpuBackend::create(parts.config, parts.rope, *parts.pool, std::move(weights),
                            {.isa = options.isa,
                             .arithmetic = options.arithmetic,
                             .kv_type = options.kv_type,
                             .max_context = options.max_model_len,
                             .prefill_chunk = options.prefill_chunk,
                             .max_num_seqs = options.max_num_seqs,
                             .num_pages = num_pages});
}

#ifdef HOTSET_HAS_CUDA
Result<std::unique_ptr<Backend>> LanguageModel::create_gpu_backend(
    Parts& parts, std::unique_ptr<cuda::Runtime> runtime, std::unique_ptr<ModelWeights> weights) {
  const ModelOptions& options = parts.options;
  const std::string name = runtime->info().name;
  HS_ASSIGN_OR_RETURN(std::unique_ptr<GpuBackend> backend,
                      GpuBackend::create(std::move(runtime), parts.config, parts.rope, *parts.pool,
                                         std::move(weights),
                                         {.isa = options.isa,
                                          .arithmetic = options.arithmetic,
                                          .kv_type = options.kv_type,
                                          .gpu_memory_bytes = options.gpu_memory_bytes,
                                          .max_context = options.max_model_len,
                                          .prefill_chunk = options.prefill_chunk,
                                          .max_num_seqs = options.max_num_seqs,
                                          .max_slots = options.max_expert_slots,
                                          .fetch_share = options.fetch_share}));
  const GpuMemoryUse& use = backend->memory_use();
  parts.device_text =
      fmt::format("{} with {} of {} experts ({:.2f} GiB of {:.2f} GiB), {}", name, use.num_slots,
                  use.num_experts, static_cast<double>(use.slots) / (1 << 30),
                  static_cast<double>(use.budget) / (1 << 30), parts.device_text);
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
    Parts& /*parts*/, std::unique_ptr<cuda::Runtime> /*runtime*/,
    std::unique_ptr<ModelWeights> /*weights*/) {
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

LanguageModel::LanguageModel(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
LanguageModel::~LanguageModel() = default;

Result<std::unique_ptr<LanguageModel>> LanguageModel::load(const std::string& directory,
                                                           const ModelOptions& options,
                                                           const LoadProgressFn& progress) {
  auto parts = std::make_unique<Parts>();
  parts->options = options;
  const auto num_cpus = static_cast<int>(cpu::allowed_cpus().size());
  const LoadOptions load_options{
      .dense_8bit = options.dense_8bit,
      .mtp = options.mtp,
      .num_threads = options.cpu_threads > 0 ? options.cpu_threads : num_cpus};
  HS_ASSIGN_OR_RETURN(OpenModel open, open_model(directory, load_options));
  parts->config = open.config;
  HS_ASSIGN_OR_RETURN(DeviceChoice device,
                      choose_device(options.device, options.gpu, options.gpu_memory_bytes,
                                    gpu_dense_bytes(open.plan)));
  parts->create_pool(device);
  HS_RETURN_IF_ERROR(parts->settle_options(open.plan, device));
  parts->rope = rope_table(parts->config);
  HS_ASSIGN_OR_RETURN(
      std::unique_ptr<ModelWeights> weights,
      load_weights(open.checkpoint, std::move(open.plan), load_options, progress, &parts->report));
  if (device.runtime != nullptr) {
    HS_ASSIGN_OR_RETURN(parts->backend,
                        create_gpu_backend(*parts, std::move(device.runtime), std::move(weights)));
  } else {
    HS_ASSIGN_OR_RETURN(parts->backend, create_cpu_backend(*parts, std::move(weights)));
  }
  return std::unique_ptr<LanguageModel>(new LanguageModel(std::move(parts)));
}

// Beside a GPU a core is left to the driver and to whatever else runs: one thread that is put off
// stalls all others.
void LanguageModel::Parts::create_pool(const DeviceChoice& choice) {
  if (options.cpu_threads == 0 && choice.runtime != nullptr) {
    options.cpu_threads = std::max(1, cpu::num_allowed_cores() - 1);
  }
  pool = std::make_unique<cpu::WorkerPool>(options.cpu_threads, options.pin_threads);
  options.cpu_threads = pool->num_threads();
}

// What was left open in the options, now that model and device are known.
Status LanguageModel::Parts::settle_options(const WeightPlan& plan, const DeviceChoice& choice) {
  const bool on_gpu = choice.runtime != nullptr;
  options.device = on_gpu ? Device::kCuda : Device::kCpu;
  if (on_gpu && options.max_model_len == 0) {
    HS_ASSIGN_OR_RETURN(const int64_t free, choice.runtime->free_bytes());
    const int64_t asked = options.gpu_memory_bytes;
    options.max_model_len = default_gpu_context(
        asked > 0 ? std::min(asked, free) : free,
        kv_bytes_per_token(config, kv_type_bytes(options.kv_type)), config.max_position_embeddings);
  }
  HS_ASSIGN_OR_RETURN(options.max_model_len, plan_context(config, options, packed_bytes(plan)));
  if (options.prefill_chunk == 0) {
    options.prefill_chunk = on_gpu ? kGpuPrefillChunk : kCpuPrefillChunk;
  }
  options.prefill_chunk = std::clamp<int64_t>(options.prefill_chunk, 1, options.max_model_len);
  device_text = fmt::format("{} CPU threads, {}", options.cpu_threads, cpu::isa_name(options.isa));
  if (!choice.why_cpu.empty()) device_text += fmt::format(" (no GPU: {})", choice.why_cpu);
  return {};
}

const ModelConfig& LanguageModel::config() const {
  return parts_->config;
}
const LoadReport& LanguageModel::load_report() const {
  return parts_->report;
}
const ModelOptions& LanguageModel::options() const {
  return parts_->options;
}
int64_t LanguageModel::vocab_size() const {
  return parts_->config.vocab_size;
}
int64_t LanguageModel::max_tokens() const {
  return parts_->options.max_model_len;
}
int64_t LanguageModel::prefill_chunk() const {
  return parts_->options.prefill_chunk;
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
    to += num_logits * vocab_size();
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

Status LanguageModel::extend_all_logits(SequenceState& sequence, std::span<const int32_t> ids,
                                        std::span<float> logits) {
  HS_CHECK(logits.size() == ids.size() * static_cast<size_t>(vocab_size()), "{} logits for {} ids",
           logits.size(), ids.size());
  return extend_by(sequence, ids, true, logits);
}

Status LanguageModel::extend_batch(std::span<const SequenceStep> steps, std::span<float> logits) {
  HS_CHECK(logits.size() == steps.size() * static_cast<size_t>(vocab_size()),
           "{} logits for {} steps", logits.size(), steps.size());
  std::vector<SequencePart> parts;
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
        some, std::ssize(some), logits.data() + static_cast<int64_t>(at) * vocab_size()));
  }
  return {};
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

bool LanguageModel::listen_to_routing(RoutingListener listener) {
  return parts_->backend->listen_to_routing(std::move(listener));
}

Result<ModelSummary> inspect_model(const std::string& directory, const ModelOptions& options) {
  const LoadOptions load_options{.dense_8bit = options.dense_8bit, .mtp = true};
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
