// SPDX-License-Identifier: Apache-2.0
#include "model/gpu_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/stopwatch.h"
#include "kernels/cuda/top_logits.h"

namespace hotset {
namespace {

// Decode steps of several sequences are steps that the CPU may share.
static_assert(kMaxDecodeBatch <= ExpertsRunner<cuda::Queue>::kMaxSharedTokens);

// What the groups' lists are together.
void join_groups(std::span<const cuda::LogitGroup> groups, LogitsHead& head) {
  head.largest.clear();
  head.cut = -std::numeric_limits<float>::infinity();
  head.all_finite = true;
  for (const cuda::LogitGroup& group : groups) {
    head.cut = std::max(head.cut, group.next);
    if (group.not_finite != 0) head.all_finite = false;
    for (int i = 0; i < cuda::kListedLogits && group.ids[i] >= 0; ++i) {
      head.largest.push_back({group.ids[i], group.logits[i]});
    }
  }
}

// A step failed, and waiting for what it left on the stream fails as well: an error that stays,
// whatever its code. Without an end every request would fail from now on.
Error device_lost(const Error& step, const Error& waiting) {
  if (step.kind == ErrorKind::kDeviceLost) return step;
  return {ErrorKind::kDeviceLost, fmt::format("{}; the GPU can't be waited for either ({})",
                                              step.message, waiting.message)};
}

}  // namespace

GpuBackend::GpuBackend(std::unique_ptr<cuda::Runtime> runtime, const ModelConfig& config,
                       cpu::WorkerPool& pool, std::unique_ptr<ModelWeights> weights,
                       const GpuBackendOptions& options, const GpuPlan& plan)
    : runtime_(std::move(runtime)),
      config_(config),
      options_(options),
      plan_(plan),
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
                                                       const GpuBackendOptions& options,
                                                       const GpuPlan& plan) {
  std::unique_ptr<GpuBackend> backend(
      new GpuBackend(std::move(runtime), config, pool, std::move(weights), options, plan));
  HS_RETURN_IF_ERROR(backend->allocate(rope));
  return backend;
}

Status GpuBackend::pin(const HugeBuffer& memory) {
  if (memory.size() == 0) return {};
  HS_RETURN_IF_ERROR(runtime_->pin(memory.data(), memory.size()));
  pinned_.push_back(memory.data());
  return {};
}

// Kernels read the embedding table, and copies the banks, where they lie in RAM. Both work, slower,
// where the system refuses to pin; the small table may be pinned where the banks may not.
Status GpuBackend::pin_weights() {
  Status status = pin(host_->dense_memory);
  const bool has_table = status.has_value();
  const size_t num_kept = pinned_.size();
  if (plan_.placement.num_slots < plan_.placement.num_experts) {
    for (size_t i = 0; status && i < host_->banks.size(); ++i) status = pin(host_->banks[i]);
  }
  if (status || status.error().kind == ErrorKind::kDeviceLost) return status;
  for (size_t i = num_kept; i < pinned_.size(); ++i) runtime_->unpin(pinned_[i]);
  pinned_.resize(num_kept);
  banks_are_pinned_ = false;
  if (!has_table) embedding_ = EmbeddingPlace::kDevice;
  notes_.push_back(fmt::format(
      "the weights in RAM can't be pinned ({}): the CPU computes all missing experts, copies to "
      "the GPU go through the driver's buffer at a fraction of PCIe's rate{}; look at ulimit -l "
      "and at the container's memory limit",
      status.error().message, has_table ? "" : ", and the embedding table takes GPU memory"));
  return {};
}

// The same plan with more of dense weights: there are fewer slots, or it does not fit.
Status GpuBackend::plan_anew(int64_t more_dense_bytes) {
  if (more_dense_bytes <= 0) return {};
  PlacementInput input = plan_.input;
  input.dense.stored_bytes += more_dense_bytes;
  auto placement = plan_placement(input);
  if (!placement) {
    return fail(Error{placement.error().kind,
                      fmt::format("the embedding table can't be pinned and needs GPU memory: {}",
                                  placement.error().message)});
  }
  placement->other_form_tok_s = plan_.placement.other_form_tok_s;
  plan_.placement = std::move(*placement);
  plan_.input = input;
  return {};
}

Status GpuBackend::allocate(const RopeTable& rope) {
  HS_ASSIGN_OR_RETURN(queue_.stream, runtime_->create_stream());
  const GpuSizes& sizes = plan_.sizes;
  HS_RETURN_IF_ERROR(pin_weights());
  HS_RETURN_IF_ERROR(plan_anew(gpu_weight_bytes(*host_, embedding_) - plan_.sizes.weight_bytes));
  HS_ASSIGN_OR_RETURN(weights_, upload_weights(*runtime_, queue_.stream, *host_, embedding_));
  HS_ASSIGN_OR_RETURN(queue_.scratch, cuda::Scratch::create(*runtime_, sizes.scratch_bytes));
  HS_RETURN_IF_ERROR(create_caches());
  HS_RETURN_IF_ERROR(create_workspace());
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

Status GpuBackend::create_caches() {
  const GpuSizes& sizes = plan_.sizes;
  HS_ASSIGN_OR_RETURN(page_memory_, cuda::DeviceMemory::allocate(*runtime_, sizes.pages.bytes()));
  pages_.emplace(PagePool::create_in(sizes.pages, page_memory_.data()));
  const int64_t state_bytes = sizes.states.num_slots * sizes.states.slot_floats() * 4;
  HS_ASSIGN_OR_RETURN(cuda::DeviceMemory states,
                      cuda::DeviceMemory::allocate(*runtime_, state_bytes));
  state_memory_.emplace(queue_, std::move(states));
  states_.emplace(StatePool::create_in(sizes.states, *state_memory_));
  return {};
}

Status GpuBackend::create_workspace() {
  const GpuSizes& sizes = plan_.sizes;
  HS_ASSIGN_OR_RETURN(workspace_memory_,
                      cuda::DeviceMemory::allocate(*runtime_, sizes.step_rows_bytes));
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
  HS_ASSIGN_OR_RETURN(input_device_, DeviceMemory::allocate(*runtime_, plan_.sizes.input_bytes));
  HS_ASSIGN_OR_RETURN(input_host_, DeviceMemory::allocate(*runtime_, plan_.sizes.input_bytes,
                                                          cuda::MemoryKind::kPinned));
  const int64_t logits_bytes = plan_.sizes.logits_bytes;
  HS_ASSIGN_OR_RETURN(logits_device_, DeviceMemory::allocate(*runtime_, logits_bytes));
  HS_ASSIGN_OR_RETURN(logits_host_,
                      DeviceMemory::allocate(*runtime_, logits_bytes, cuda::MemoryKind::kPinned));
  if (config_.vocab_size <= cuda::max_top_logits()) {
    constexpr int64_t kBytes = cuda::kLogitGroups * static_cast<int64_t>(sizeof(cuda::LogitGroup));
    HS_ASSIGN_OR_RETURN(heads_, DeviceMemory::allocate(*runtime_, kMaxDecodeBatch * kBytes,
                                                       cuda::MemoryKind::kPinned));
  }
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
  HS_ASSIGN_OR_RETURN(
      slots_, ExpertSlots::create(queue_, *host_, *weights_.views, plan_.placement.num_slots,
                                  options_.expert_profile));
  HS_ASSIGN_OR_RETURN(experts_, Runner::create(queue_, cpu_queue_, config_, *host_, *slots_,
                                               workspace_.shape.max_chunk));
  experts_->fix_prefill_fetch_share(banks_are_pinned_ ? options_.fetch_share : 0);
  if (banks_are_pinned_ && options_.fetch_share < 0) {
    const auto expert_bytes = static_cast<double>(expert_slot_bytes(*host_));
    const FetchLimits limits{
        .expert_s = expert_bytes / plan_.rates.pcie_bytes_per_s,
        .max_fetched = static_cast<double>(ExpertFetch::kMaxFetched * plan_.sizes.num_moe_layers),
        .min_missed = static_cast<double>(plan_.sizes.num_moe_layers)};
    share_searches_.assign(kNumFetchClasses, FetchShareSearch(limits));
  }
  return {};
}

double GpuBackend::fetch_share(int64_t num_tokens) const {
  if (!share_searches_.empty()) {
    return share_searches_[static_cast<size_t>(fetch_class(num_tokens))].settled();
  }
  return banks_are_pinned_ ? std::max(0.0, options_.fetch_share) : 0;
}

// Steps with marks are not compared.
double GpuBackend::next_fetch_share(int64_t num_tokens) const {
  if (share_searches_.empty() || clock_ != nullptr) return fetch_share(num_tokens);
  return share_searches_[static_cast<size_t>(fetch_class(num_tokens))].share();
}

// A step that fails because of the share that is tried must not fail again and again.
void GpuBackend::give_up_trial(int64_t num_tokens) {
  if (share_searches_.empty() || clock_ != nullptr || !experts_->needs_service(num_tokens)) return;
  share_searches_[static_cast<size_t>(fetch_class(num_tokens))].step_failed();
}

void GpuBackend::learn_fetch_share(int64_t num_tokens, double seconds, int64_t num_missed) {
  if (share_searches_.empty() || clock_ != nullptr || step_was_recorded_) return;
  share_searches_[static_cast<size_t>(fetch_class(num_tokens))].step_took(seconds, num_missed);
}

GpuBackend::StepInput GpuBackend::step_input(std::byte* base) const {
  const int64_t rows = plan_.sizes.max_rows * static_cast<int64_t>(sizeof(SequenceRows));
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
    const int64_t table = static_cast<int64_t>(s) * plan_.sizes.max_pages;
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

// Steps that were recorded before go their way without a listener.
Status GpuBackend::listen_to_routing(RoutingListener listener) {
  for (const auto& [key, step] : graphs_) runtime_->destroy(step.graph);
  graphs_.clear();
  return experts_->listen(std::move(listener), options_.prefill_chunk);
}

void GpuBackend::put_on_stream(int64_t num_tokens, int64_t num_logits, StageMarks* marks) {
  context_->marks = marks;
  experts_->set_marks(marks);
  if (marks != nullptr) queue_.note(marks->begin());
  put_on_stream(num_tokens, num_logits);
  if (marks != nullptr) queue_.note(marks->end());
}

Result<const GpuBackend::RecordedStep*> GpuBackend::recorded_step(int64_t num_tokens,
                                                                  int64_t num_logits) {
  const GraphKey key{pieces_[0].num_tokens, pieces_[0].num_sequences,
                     pieces_[0].max_tokens, num_logits,
                     clock_ != nullptr,     experts_->fetches(num_tokens)};
  auto found = graphs_.find(key);
  step_was_recorded_ = found == graphs_.end();
  if (step_was_recorded_) {
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
  return &found->second;
}

Status GpuBackend::record_and_launch(int64_t num_tokens, int64_t num_logits) {
  HS_ASSIGN_OR_RETURN(const RecordedStep* step, recorded_step(num_tokens, num_logits));
  step_marks_ = step->marks.get();
  step_nodes_ = step->graph.num_nodes;
  return runtime_->launch(step->graph, queue_.stream);
}

// All that serving will record: decode steps of 1 to num_seqs sequences, and prompts, or what is
// new of them, of so few tokens that the CPU takes part.
Status GpuBackend::prepare_batches(int64_t num_seqs) {
  for (int32_t n = 1; n <= num_seqs; ++n) {
    HS_RETURN_IF_ERROR(prepare_steps({.num_sequences = n, .num_tokens = n, .max_tokens = 1}));
  }
  for (int32_t n = 2; n <= workspace_.shape.max_chunk && experts_->needs_service(n); ++n) {
    HS_RETURN_IF_ERROR(prepare_steps({.num_sequences = 1, .num_tokens = n, .max_tokens = n}));
  }
  return {};
}

// A share above 0 and none are two graphs; both come up where it is learnt. Nothing is launched, so
// rows and ids need not be there.
Status GpuBackend::prepare_steps(StepBatch piece) {
  piece.sequences = step_input(input_device_.data()).rows;
  piece.max_positions = options_.max_context;
  pieces_.assign(1, piece);
  const int64_t num_tokens = piece.num_tokens;
  const bool shared = experts_->needs_service(num_tokens);
  if (!shared && !(is_decode(num_tokens) && options_.record_graphs)) return {};
  Status status = prepare_step(num_tokens, piece.num_sequences, fetch_share(num_tokens));
  if (status && shared && !share_searches_.empty()) {
    status = prepare_step(num_tokens, piece.num_sequences, 1);
  }
  const Status drained = runtime_->synchronize(queue_.stream);
  queue_.status = {};
  return status ? drained : status;
}

Status GpuBackend::prepare_step(int64_t num_tokens, int64_t num_logits, double fetch_share) {
  HS_RETURN_IF_ERROR(experts_->set_fetch_share(num_tokens, fetch_share));
  const auto step = recorded_step(num_tokens, num_logits);
  return step ? Status{} : fail(step.error());
}

// Steps that the CPU takes part in must be one launch, or the CPU could wait in the driver for the
// GPU while the GPU waits for it. Other decode steps are recorded because they come again and
// again, unless experts are staged for them.
Status GpuBackend::run_step(int64_t num_tokens, int64_t num_logits, bool logits_to_host) {
  HS_RETURN_IF_ERROR(queue_.status);
  const bool shared = experts_->needs_service(num_tokens);
  const bool decode = is_decode(num_tokens);
  if (shared) {
    HS_RETURN_IF_ERROR(experts_->set_fetch_share(num_tokens, next_fetch_share(num_tokens)));
  }
  const int64_t missed_before = experts_->counts().missed();
  const Clock::time_point start = Clock::now();
  if (shared || (decode && options_.record_graphs)) {
    HS_RETURN_IF_ERROR(record_and_launch(num_tokens, num_logits));
  } else {
    step_marks_ = clock_ != nullptr ? marks_.get() : nullptr;
    put_on_stream(num_tokens, num_logits, step_marks_);
  }
  if (shared) HS_RETURN_IF_ERROR(experts_->serve_step(num_tokens));
  num_logits_ = num_logits;
  if (num_logits > 0 && logits_to_host) {
    send(logits_host_.data(), logits_device_.data(), num_logits * config_.vocab_size * 4);
  }
  HS_RETURN_IF_ERROR(runtime_->synchronize(queue_.stream));
  HS_RETURN_IF_ERROR(queue_.status);
  if (shared && experts_->was_given_up()) {
    return fail("the GPU did not wait any longer for the CPU's experts: the process stood still",
                ErrorKind::kInternal);
  }
  if (shared && decode) {
    learn_fetch_share(num_tokens, seconds_since(start),
                      experts_->counts().missed() - missed_before);
  }
  if (clock_ != nullptr && step_marks_ != nullptr) {
    HS_RETURN_IF_ERROR(step_marks_->collect(*clock_));
  }
  experts_->tell_listener(num_tokens);
  if (shared) HS_RETURN_IF_ERROR(experts_->end_step());
  return {};
}

Status GpuBackend::forward(std::span<const SequencePart> parts, int64_t num_logits, float* logits) {
  HS_CHECK(num_logits <= plan_.sizes.max_logits && std::ssize(parts) <= options_.max_num_seqs,
           "{} logits of at most {}, {} sequences", num_logits, plan_.sizes.max_logits,
           parts.size());
  int64_t num_tokens = 0;
  for (const SequencePart& part : parts) num_tokens += std::ssize(part.ids);
  HS_CHECK(parts.size() == 1 || num_tokens <= workspace_.shape.max_chunk,
           "{} tokens of {} sequences", num_tokens, parts.size());
  Status status = slots_->begin_step(experts_->num_staged(num_tokens));
  if (status) {
    write_input(parts);
    status = run_step(num_tokens, num_logits, logits != nullptr);
  }
  if (!status) {
    // What this step put on the stream must not touch memory that the next one hands out.
    const Status drained = runtime_->synchronize(queue_.stream);
    queue_.status = {};
    if (!drained) return fail(device_lost(status.error(), drained.error()));
    (void)experts_->recover();
    give_up_trial(num_tokens);
    return status;
  }
  if (logits != nullptr) {
    std::memcpy(logits, logits_host_.data(),
                static_cast<size_t>(num_logits * config_.vocab_size) * sizeof(float));
  }
  for (const SequencePart& part : parts) {
    part.cache->commit(part.cache->num_tokens() + std::ssize(part.ids));
  }
  return {};
}

Status GpuBackend::read_heads(int64_t num_valid, std::span<LogitsHead> heads) {
  HS_CHECK(has_heads() && std::ssize(heads) == num_logits_ && num_logits_ <= kMaxDecodeBatch &&
               num_valid >= 1 && num_valid <= config_.vocab_size,
           "the largest of {} logits, {} heads of {} rows", num_valid, heads.size(), num_logits_);
  auto* groups = reinterpret_cast<cuda::LogitGroup*>(heads_.data());
  cuda::top_logits(queue_, logits_row(0), num_logits_, config_.vocab_size, num_valid, groups);
  const Status launched = std::exchange(queue_.status, {});
  HS_RETURN_IF_ERROR(runtime_->synchronize(queue_.stream));
  HS_RETURN_IF_ERROR(launched);
  for (LogitsHead& head : heads) {
    join_groups({groups, static_cast<size_t>(cuda::kLogitGroups)}, head);
    groups += cuda::kLogitGroups;
  }
  return {};
}

Status GpuBackend::read_logits(int64_t row, float* logits) {
  HS_CHECK(row >= 0 && row < num_logits_, "row {} of {} rows of logits", row, num_logits_);
  const int64_t bytes = config_.vocab_size * 4;
  send(logits_host_.data(), logits_row(row), bytes);
  const Status launched = std::exchange(queue_.status, {});
  HS_RETURN_IF_ERROR(runtime_->synchronize(queue_.stream));
  HS_RETURN_IF_ERROR(launched);
  std::memcpy(logits, logits_host_.data(), static_cast<size_t>(bytes));
  return {};
}

Status GpuBackend::forward_mtp(const SequencePart& /*part*/, int64_t /*num_logits*/,
                               float* /*logits*/) {
  return fail("the MTP head is computed on the CPU only (--device cpu)", ErrorKind::kUnsupported);
}

}  // namespace hotset
