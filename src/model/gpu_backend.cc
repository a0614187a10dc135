// SPDX-License-Identifier: Apache-2.0
#include "model/gpu_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/checked_math.h"
#include "experts/miss_split.h"
#include "kernels/cuda/delta_mixer.h"
#include "kernels/gated_attention.h"

namespace hotset {
namespace {

// Never promised to anyone: what the driver takes for its context (518 MiB on an H200), graphs and
// its own lists. A budget of 16 GiB with a margin of 512 MiB was seen to end at 16,487 MiB.
constexpr int64_t kMarginBytes = int64_t{768} << 20;
constexpr int64_t kLogitsBytes = int64_t{64} << 20;
constexpr int64_t kPieceTokens = 2048;  // keeps the GPU's products large and the buffers small

GatedAttention attention_shape(const ModelConfig& c, KvType type) {
  return {.num_heads = c.num_attention_heads,
          .num_kv_heads = c.num_key_value_heads,
          .head_dim = c.head_dim,
          .rotary_dims = c.rotary_dim(),
          .kv_type = type,
          .page_tokens = kPageTokens};
}

// Scratch of the largest single operation of a step.
int64_t scratch_bytes(const ModelConfig& c, const ModelWeights& host, int64_t chunk) {
  const DeltaNetShape delta{.num_key_heads = c.linear_num_key_heads,
                            .num_value_heads = c.linear_num_value_heads,
                            .key_head_dim = c.linear_key_head_dim,
                            .value_head_dim = c.linear_value_head_dim};
  int64_t bytes = std::max(cuda::matmul_scratch_bytes(chunk, widest_input(c)),
                           cuda::delta_mixer_scratch_bytes(delta, chunk));
  for (const LayerWeights& layer : host.layers) {
    const cuda::ExpertGroup group{.encoding = layer.experts.back(), .num_experts = 1};
    const cuda::ExpertGroup routed{.encoding = layer.experts.front(),
                                   .num_experts = static_cast<int32_t>(layer.experts.size())};
    for (const cuda::ExpertGroup& g : {group, routed}) {
      const cuda::ExpertTable table{.groups = &g, .num_groups = 1};
      bytes =
          std::max(bytes, cuda::moe_scratch_bytes(table, chunk, c.hidden_size,
                                                  static_cast<int32_t>(c.num_experts_per_tok + 1)));
    }
  }
  return bytes;
}

std::string gib(int64_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (int64_t{1} << 30));
}

}  // namespace

GpuBackend::GpuBackend(std::unique_ptr<cuda::Runtime> runtime, const ModelConfig& config,
                       cpu::WorkerPool& pool, std::unique_ptr<ModelWeights> weights,
                       const GpuBackendOptions& options)
    : runtime_(std::move(runtime)),
      config_(config),
      options_(options),
      host_(std::move(weights)),
      queue_{.runtime = *runtime_, .arithmetic = options.arithmetic},
      cpu_queue_{.pool = pool, .isa = options.isa, .arithmetic = options.arithmetic} {}

GpuBackend::~GpuBackend() {
  if (queue_.stream.handle != nullptr) (void)runtime_->synchronize(queue_.stream);
  for (const auto& [key, step] : graphs_) runtime_->destroy(step.graph);
  experts_.reset();
  slots_.reset();
  if (queue_.stream.handle != nullptr) runtime_->destroy(queue_.stream);
  for (void* data : pinned_) runtime_->unpin(data);
}

Result<std::unique_ptr<GpuBackend>> GpuBackend::create(std::unique_ptr<cuda::Runtime> runtime,
                                                       const ModelConfig& config,
                                                       const RopeTable& rope, cpu::WorkerPool& pool,
                                                       std::unique_ptr<ModelWeights> weights,
                                                       const GpuBackendOptions& options) {
  std::unique_ptr<GpuBackend> backend(
      new GpuBackend(std::move(runtime), config, pool, std::move(weights), options));
  HS_RETURN_IF_ERROR(backend->allocate(rope));
  return backend;
}

Status GpuBackend::pin_weights(bool banks) {
  const auto pin = [&](const HugeBuffer& memory) -> Status {
    if (memory.size() == 0) return {};
    HS_RETURN_IF_ERROR(runtime_->pin(memory.data(), memory.size()));
    pinned_.push_back(memory.data());
    return {};
  };
  HS_RETURN_IF_ERROR(pin(host_->dense_memory));
  for (const HugeBuffer& bank : host_->banks) {
    if (banks) HS_RETURN_IF_ERROR(pin(bank));
  }
  return {};
}

Status GpuBackend::allocate(const RopeTable& rope) {
  HS_ASSIGN_OR_RETURN(queue_.stream, runtime_->create_stream());
  HS_ASSIGN_OR_RETURN(const Sizes sizes, plan_memory());
  HS_RETURN_IF_ERROR(pin_weights(use_.num_slots < use_.num_experts));
  HS_ASSIGN_OR_RETURN(weights_, upload_weights(*runtime_, queue_.stream, *host_));
  HS_ASSIGN_OR_RETURN(queue_.scratch, cuda::Scratch::create(*runtime_, sizes.scratch_bytes));
  HS_RETURN_IF_ERROR(create_caches(sizes));
  HS_RETURN_IF_ERROR(create_workspace(sizes));
  HS_RETURN_IF_ERROR(create_step_buffers(rope));
  HS_RETURN_IF_ERROR(create_experts());
  RopeView device_rope = rope.view();
  device_rope.inv_freq = reinterpret_cast<const double*>(rope_memory_.data());
  context_.emplace(
      ForwardContext<cuda::Queue>{.config = config_,
                                  .weights = *weights_.views,
                                  .rope = device_rope,
                                  .queue = queue_,
                                  .workspace = workspace_,
                                  .experts = *experts_,
                                  .cache = {.kv_layer_bytes = sizes.pages.layer_bytes(),
                                            .state_layer_floats = sizes.states.layer_floats(),
                                            .delta_floats = sizes.states.delta_floats}});
  return runtime_->synchronize(queue_.stream);
}

// Everything has its size before anything is allocated; slots take what is left.
Result<GpuBackend::Sizes> GpuBackend::plan_memory() {
  const ModelConfig& c = config_;
  const int64_t chunk = std::min(options_.prefill_chunk, kPieceTokens);
  max_pieces_ = ceil_div(options_.prefill_chunk, kPieceTokens);
  max_pages_ = ceil_div(options_.max_context, kPageTokens);
  max_logits_ = std::clamp(kLogitsBytes / (4 * c.vocab_size), options_.max_num_seqs,
                           std::max(options_.prefill_chunk, options_.max_num_seqs));
  Sizes sizes{
      .rows = {.max_chunk = chunk,
               .max_step = options_.prefill_chunk,
               .max_context = options_.max_context,
               .page_tokens = kPageTokens,
               .kv_type = options_.kv_type},
      .mixers = {.attention_floats = gated_attention_scratch_floats(
                     queue_, attention_shape(c, options_.kv_type), chunk, options_.max_context)},
      .pages = page_pool_shape(c, false, kv_type_bytes(options_.kv_type)),
      .states = state_pool_shape(c, options_.max_num_seqs),
      .scratch_bytes = std::max(scratch_bytes(c, *host_, chunk),
                                cuda::matmul_scratch_bytes(max_logits_, c.hidden_size))};
  sizes.pages.num_pages = max_pages_ + options_.max_num_seqs;

  HS_ASSIGN_OR_RETURN(const int64_t free, runtime_->free_bytes());
  const int64_t asked = options_.gpu_memory_bytes;
  use_.budget = asked > 0 ? std::min(asked, free) : free;
  use_.num_experts = num_routed_experts(*host_);
  use_.weights = gpu_weight_bytes(*host_);
  use_.kv_pages = sizes.pages.bytes();
  use_.states = sizes.states.num_slots * sizes.states.slot_floats() * 4;
  use_.workspace = workspace_bytes(c, sizes.rows, sizes.mixers) + sizes.scratch_bytes +
                   step_input_bytes() + max_logits_ * c.vocab_size * 4 +
                   ExpertsRunner<cuda::Queue>::memory_bytes(c, *host_, chunk);
  const int64_t fixed = use_.weights + use_.kv_pages + use_.states + use_.workspace + kMarginBytes;
  const int64_t wanted =
      options_.max_slots >= 0 ? std::min(options_.max_slots, use_.num_experts) : use_.num_experts;
  use_.num_slots = std::min(ExpertSlots::slots_in(*host_, use_.budget - fixed), wanted);
  use_.slots = ExpertSlots::memory_bytes(*host_, std::max<int64_t>(0, use_.num_slots));
  if (use_.budget < fixed || use_.num_slots < std::min<int64_t>(1, wanted)) {
    return fail(does_not_fit(free, fixed), ErrorKind::kResource);
  }
  return sizes;
}

std::string GpuBackend::does_not_fit(int64_t free, int64_t fixed) const {
  return fmt::format(
      "the GPU budget is {} ({} are free), and weights {}, KV cache {}, states {}, buffers {} and "
      "a margin of {} take {} without any expert; try --max-model-len {}, a smaller "
      "--prefill-chunk, --dense-8bit, or --device cpu",
      gib(use_.budget), gib(free), gib(use_.weights), gib(use_.kv_pages), gib(use_.states),
      gib(use_.workspace), gib(kMarginBytes), gib(fixed),
      std::max<int64_t>(kPageTokens, options_.max_context / 2));
}

Status GpuBackend::create_caches(const Sizes& sizes) {
  HS_ASSIGN_OR_RETURN(page_memory_, cuda::DeviceMemory::allocate(*runtime_, use_.kv_pages));
  pages_.emplace(PagePool::create_in(sizes.pages, page_memory_.data()));
  HS_ASSIGN_OR_RETURN(cuda::DeviceMemory states,
                      cuda::DeviceMemory::allocate(*runtime_, use_.states));
  state_memory_.emplace(queue_, std::move(states));
  states_.emplace(StatePool::create_in(sizes.states, *state_memory_));
  return {};
}

Status GpuBackend::create_workspace(const Sizes& sizes) {
  HS_ASSIGN_OR_RETURN(
      workspace_memory_,
      cuda::DeviceMemory::allocate(*runtime_, workspace_bytes(config_, sizes.rows, sizes.mixers)));
  workspace_ = place_workspace(config_, sizes.rows, sizes.mixers, workspace_memory_.data());
  return fill_dense_choices();
}

// A dense MLP is one expert that every token chooses.
Status GpuBackend::fill_dense_choices() {
  const int64_t chunk = workspace_.shape.max_chunk;
  const std::vector<float> ones(static_cast<size_t>(chunk), 1.0f);
  HS_RETURN_IF_ERROR(runtime_->fill(workspace_.dense_ids, 0, chunk * 4, queue_.stream));
  HS_RETURN_IF_ERROR(
      runtime_->copy(workspace_.dense_weights, ones.data(), chunk * 4, queue_.stream));
  return runtime_->synchronize(queue_.stream);  // `ones` ends here
}

Status GpuBackend::create_step_buffers(const RopeTable& rope) {
  using cuda::DeviceMemory;
  const int64_t rope_bytes = std::ssize(rope.inv_freq) * static_cast<int64_t>(sizeof(double));
  HS_ASSIGN_OR_RETURN(rope_memory_, DeviceMemory::allocate(*runtime_, rope_bytes));
  HS_RETURN_IF_ERROR(
      runtime_->copy(rope_memory_.data(), rope.inv_freq.data(), rope_bytes, queue_.stream));
  HS_ASSIGN_OR_RETURN(input_device_, DeviceMemory::allocate(*runtime_, step_input_bytes()));
  HS_ASSIGN_OR_RETURN(input_host_, DeviceMemory::allocate(*runtime_, step_input_bytes(),
                                                          cuda::MemoryKind::kPinned));
  const int64_t logits_bytes = max_logits_ * config_.vocab_size * 4;
  HS_ASSIGN_OR_RETURN(logits_device_, DeviceMemory::allocate(*runtime_, logits_bytes));
  HS_ASSIGN_OR_RETURN(logits_host_,
                      DeviceMemory::allocate(*runtime_, logits_bytes, cuda::MemoryKind::kPinned));
  return runtime_->synchronize(queue_.stream);
}

Status GpuBackend::create_experts() {
  using Runner = ExpertsRunner<cuda::Queue>;
  const auto ranks = static_cast<int32_t>(config_.num_experts_per_tok + 1);
  const int64_t width =
      std::max(config_.moe_intermediate_size, config_.shared_expert_intermediate_size);
  cpu_queue_.scratch.reserve(
      hotset::moe_scratch_bytes(Runner::kMaxSharedTokens * ranks, config_.hidden_size, width, 1,
                                config_.num_experts + 1, cpu_queue_.pool.num_threads()));
  HS_ASSIGN_OR_RETURN(slots_, ExpertSlots::create(queue_, *host_, *weights_.views, use_.num_slots));
  HS_ASSIGN_OR_RETURN(experts_, Runner::create(queue_, cpu_queue_, config_, *host_, *slots_,
                                               workspace_.shape.max_chunk));
  experts_->fix_prefill_fetch_share(options_.fetch_share);
  return experts_->set_fetched(fetched_by_missed());
}

// For 0, 1, 2 … missed experts of a layer.
std::vector<int32_t> GpuBackend::fetched_by_missed() const {
  const bool by_rates = options_.fetch_share < 0;
  if (by_rates && rates_.pcie_overlapped_bytes_per_s <= 0) return {};
  const ExpertCost cost{.bytes = expert_slot_bytes(*host_),
                        .flops_per_token = 6.0 * static_cast<double>(config_.hidden_size) *
                                           static_cast<double>(config_.moe_intermediate_size)};
  std::vector<int32_t> fetched, tokens;
  for (int64_t missed = 0; missed <= config_.num_experts; ++missed, tokens.push_back(1)) {
    const double share = options_.fetch_share * static_cast<double>(missed);
    fetched.push_back(by_rates ? split_misses(rates_, cost, tokens, 0).num_fetched
                               : static_cast<int32_t>(std::lround(share)));
  }
  return fetched;
}

int64_t GpuBackend::max_rows() const {
  return std::max(options_.max_num_seqs, max_pieces_);
}

int64_t GpuBackend::step_input_bytes() const {
  const int64_t rows = max_rows() * static_cast<int64_t>(sizeof(SequenceRows));
  const int64_t pages =
      options_.max_num_seqs * max_pages_ * static_cast<int64_t>(sizeof(std::byte*));
  return round_up(rows, 256) + round_up(options_.prefill_chunk * 4, 256) + pages;
}

GpuBackend::StepInput GpuBackend::step_input(std::byte* base) const {
  const int64_t rows = max_rows() * static_cast<int64_t>(sizeof(SequenceRows));
  std::byte* ids = base + round_up(rows, 256);
  return {.rows = reinterpret_cast<SequenceRows*>(base),
          .ids = reinterpret_cast<int32_t*>(ids),
          .pages = reinterpret_cast<std::byte**>(ids + round_up(options_.prefill_chunk * 4, 256))};
}

void GpuBackend::send(void* device, const void* host, int64_t bytes) {
  queue_.note(runtime_->copy(device, host, bytes, queue_.stream));
}

// Fills the pinned image and sends what the step uses of it. Either all sequences share one piece,
// or one sequence goes through several.
void GpuBackend::write_input(std::span<const SequencePart> parts) {
  const StepInput to = step_input(input_host_.data());
  const StepInput on_device = step_input(input_device_.data());
  const int64_t piece = workspace_.shape.max_chunk;
  pieces_.clear();
  int64_t num_rows = 0, num_ids = 0;
  for (size_t s = 0; s < parts.size(); ++s) {
    const SequenceCache& cache = *parts[s].cache;
    const int64_t table = static_cast<int64_t>(s) * max_pages_;
    const std::vector<std::byte*>& pages = cache.page_data();
    std::copy(pages.begin(), pages.end(), to.pages + table);
    send(on_device.pages + table, to.pages + table, std::ssize(pages) * 8);
    std::copy(parts[s].ids.begin(), parts[s].ids.end(), to.ids + num_ids);
    for (int64_t at = 0; at < std::ssize(parts[s].ids); at += piece) {
      const auto count =
          static_cast<int32_t>(std::min<int64_t>(piece, std::ssize(parts[s].ids) - at));
      if (pieces_.empty() || parts.size() == 1) {
        pieces_.push_back(
            {.sequences = on_device.rows + num_rows, .max_positions = options_.max_context});
      }
      StepBatch& batch = pieces_.back();
      to.rows[num_rows++] = {.first_position = cache.num_tokens() + at,
                             .token_begin = batch.num_tokens,
                             .num_tokens = count,
                             .pages = on_device.pages + table,
                             .state = cache.state_data()};
      batch.num_sequences += 1;
      batch.num_tokens += count;
      batch.max_tokens = std::max(batch.max_tokens, count);
    }
    num_ids += std::ssize(parts[s].ids);
  }
  send(on_device.rows, to.rows, num_rows * static_cast<int64_t>(sizeof(SequenceRows)));
  send(on_device.ids, to.ids, num_ids * 4);
}

void GpuBackend::put_on_stream(int64_t num_tokens, int64_t num_logits) {
  const StepInput input = step_input(input_device_.data());
  hotset::forward<cuda::Queue>(*context_, pieces_,
                               std::span<const int32_t>(input.ids, static_cast<size_t>(num_tokens)),
                               num_logits, reinterpret_cast<float*>(logits_device_.data()));
}

void GpuBackend::set_clock(StageClock* clock) {
  clock_ = clock;
  if (clock != nullptr && marks_ == nullptr) {
    marks_ = std::make_unique<StageMarks>(*runtime_, queue_.stream);
  }
}

void GpuBackend::put_on_stream(int64_t num_tokens, int64_t num_logits, StageMarks* marks) {
  context_->marks = marks;
  experts_->set_marks(marks);
  if (marks != nullptr) queue_.note(marks->begin());
  put_on_stream(num_tokens, num_logits);
  if (marks != nullptr) queue_.note(marks->end());
}

Status GpuBackend::record_and_launch(int64_t num_tokens, int64_t num_logits) {
  const GraphKey key{pieces_[0].num_tokens, pieces_[0].num_sequences, pieces_[0].max_tokens,
                     num_logits, clock_ != nullptr};
  auto found = graphs_.find(key);
  if (found == graphs_.end()) {
    RecordedStep step;
    if (clock_ != nullptr) step.marks = std::make_unique<StageMarks>(*runtime_, queue_.stream);
    HS_RETURN_IF_ERROR(runtime_->begin_capture(queue_.stream));
    put_on_stream(num_tokens, num_logits, step.marks.get());
    auto graph = runtime_->end_capture(queue_.stream);
    if (!queue_.status && graph) runtime_->destroy(*graph);
    HS_RETURN_IF_ERROR(queue_.status);
    if (!graph) return fail(graph.error());
    step.graph = *graph;
    found = graphs_.emplace(key, std::move(step)).first;
  }
  step_marks_ = found->second.marks.get();
  step_nodes_ = found->second.graph.num_nodes;
  return runtime_->launch(found->second.graph, queue_.stream);
}

// Steps that the CPU takes part in must be one launch, or the CPU could wait in the driver for the
// GPU while the GPU waits for it. Other decode steps are recorded because they come again and
// again.
Status GpuBackend::run_step(int64_t num_tokens, int64_t num_logits) {
  HS_RETURN_IF_ERROR(queue_.status);
  const bool shared = experts_->needs_service(num_tokens);
  const bool decode = pieces_.size() == 1 && pieces_[0].max_tokens == 1;
  if (shared || (decode && options_.record_graphs)) {
    HS_RETURN_IF_ERROR(record_and_launch(num_tokens, num_logits));
  } else {
    step_marks_ = clock_ != nullptr ? marks_.get() : nullptr;
    put_on_stream(num_tokens, num_logits, step_marks_);
  }
  if (shared) HS_RETURN_IF_ERROR(experts_->serve_step(num_tokens));
  if (num_logits > 0) {
    send(logits_host_.data(), logits_device_.data(), num_logits * config_.vocab_size * 4);
  }
  HS_RETURN_IF_ERROR(runtime_->synchronize(queue_.stream));
  HS_RETURN_IF_ERROR(queue_.status);
  if (clock_ != nullptr && step_marks_ != nullptr) {
    HS_RETURN_IF_ERROR(step_marks_->collect(*clock_));
  }
  if (shared) HS_RETURN_IF_ERROR(experts_->end_step(num_tokens));
  return {};
}

Status GpuBackend::forward(std::span<const SequencePart> parts, int64_t num_logits, float* logits) {
  HS_CHECK(num_logits <= max_logits_ && std::ssize(parts) <= options_.max_num_seqs,
           "{} logits of at most {}, {} sequences", num_logits, max_logits_, parts.size());
  int64_t num_tokens = 0;
  for (const SequencePart& part : parts) num_tokens += std::ssize(part.ids);
  HS_CHECK(parts.size() == 1 || num_tokens <= workspace_.shape.max_chunk,
           "{} tokens of {} sequences", num_tokens, parts.size());
  HS_RETURN_IF_ERROR(slots_->begin_step(experts_->num_staged(num_tokens)));
  write_input(parts);
  const Status status = run_step(num_tokens, num_logits);
  if (!status) {
    // What this step put on the stream must not touch memory that the next one hands out.
    const Status drained = runtime_->synchronize(queue_.stream);
    queue_.status = {};
    if (drained) (void)experts_->recover();
    return fail(drained ? status.error() : drained.error());
  }
  std::memcpy(logits, logits_host_.data(),
              static_cast<size_t>(num_logits * config_.vocab_size) * sizeof(float));
  for (const SequencePart& part : parts) {
    part.cache->commit(part.cache->num_tokens() + std::ssize(part.ids));
  }
  return {};
}

Status GpuBackend::forward_mtp(const SequencePart& /*part*/, int64_t /*num_logits*/,
                               float* /*logits*/) {
  return fail("the MTP head is computed on the CPU only (--device cpu)", ErrorKind::kUnsupported);
}

}  // namespace hotset
