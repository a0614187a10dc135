// SPDX-License-Identifier: Apache-2.0
#include "model/split_prefill.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"
#include "base/stopwatch.h"
#include "kernels/cuda/row_fetch.h"

namespace hotset {
namespace {

// Where the first layers of the first prompt start from: 15 threads of a Xeon with AVX-512 VNNI
// beside PCIe 5 x16 (docs/performance.md). Any machine's own rates come within a few layers.
constexpr MachineRates kStart = {.cpu_bytes_per_s = 120e9,
                                 .cpu_overlapped_bytes_per_s = 100e9,
                                 .pcie_bytes_per_s = 50e9,
                                 .pcie_overlapped_bytes_per_s = 45e9,
                                 .cpu_flops = 4e12,
                                 .gpu_flops = 1e15,
                                 .handshake_s = 40e-6,
                                 .fetch_s = 120e-6};
// The CPU's experts are computed in two groups, the second a quarter: the first one's rows leave
// meanwhile, and few are left at the end. A group costs some 0.1 ms of its own.
constexpr size_t kNumGroups = 2;
constexpr int64_t kMinToGroup = 48;  // experts
constexpr double kGapWeight = 0.25;  // of the newest gap

double now_s() {
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

ExpertCost cost_of(const ModelConfig& config, const ModelWeights& host) {
  return {.bytes = expert_slot_bytes(host),
          .flops_per_token = 6.0 * static_cast<double>(config.hidden_size) *
                             static_cast<double>(config.moe_intermediate_size)};
}

}  // namespace

SplitPrefill::SplitPrefill(cuda::Queue& queue, cpu::Queue& cpu_queue, const ModelConfig& config,
                           const ModelWeights& host, ExpertSlots& slots, ExpertStream& stream,
                           int64_t max_tokens)
    : queue_(queue),
      cpu_queue_(cpu_queue),
      config_(config),
      host_(host),
      slots_(slots),
      stream_(stream),
      max_tokens_(std::min(max_tokens, kMaxTokens)),
      top_k_(static_cast<int32_t>(config.num_experts_per_tok + 1)),
      cost_(cost_of(config, host)),
      rates_(kStart),
      rows_queue_{.runtime = queue.runtime} {}

SplitPrefill::~SplitPrefill() {
  cuda::Runtime& runtime = queue_.runtime;
  if (rows_queue_.stream.handle != nullptr) {
    (void)runtime.synchronize(rows_queue_.stream);
    runtime.destroy(rows_queue_.stream);
  }
  for (const cuda::Event event : {routed_, rows_there_}) {
    if (event.handle != nullptr) runtime.destroy(event);
  }
}

Result<std::unique_ptr<SplitPrefill>> SplitPrefill::create(
    cuda::Queue& queue, cpu::Queue& cpu_queue, const ModelConfig& config, const ModelWeights& host,
    ExpertSlots& slots, ExpertStream& stream, int64_t max_tokens) {
  std::unique_ptr<SplitPrefill> split(
      new SplitPrefill(queue, cpu_queue, config, host, slots, stream, max_tokens));
  HS_RETURN_IF_ERROR(split->allocate());
  return split;
}

int64_t SplitPrefill::host_bytes(const ModelConfig& config, int64_t max_tokens) {
  const int64_t tokens = std::min(max_tokens, kMaxTokens);
  const int64_t pairs = tokens * (config.num_experts_per_tok + 1);
  return (tokens + pairs) * config.hidden_size * 4 + 2 * pairs * 4;
}

Status SplitPrefill::allocate() {
  cuda::Runtime& runtime = queue_.runtime;
  const int64_t pairs = max_tokens_ * top_k_;
  const auto pinned = [&](int64_t bytes) {
    return cuda::DeviceMemory::allocate(runtime, bytes, cuda::MemoryKind::kPinned);
  };
  HS_ASSIGN_OR_RETURN(rows_queue_.stream, runtime.create_stream());
  HS_ASSIGN_OR_RETURN(routed_, runtime.create_event());
  HS_ASSIGN_OR_RETURN(rows_there_, runtime.create_event());
  HS_ASSIGN_OR_RETURN(x_, pinned(max_tokens_ * config_.hidden_size * 4));
  HS_ASSIGN_OR_RETURN(ids_, pinned(pairs * 4));
  HS_ASSIGN_OR_RETURN(rows_, pinned(pairs * config_.hidden_size * 4));
  HS_ASSIGN_OR_RETURN(pairs_, pinned(pairs * 4));
  const auto experts = static_cast<size_t>(config_.num_experts + 1);
  tokens_of_.resize(experts);
  group_of_.resize(experts);
  misses_.reserve(experts);
  miss_tokens_.reserve(experts);
  ahead_.reserve(experts);
  cpu_ids_.resize(static_cast<size_t>(pairs));
  cpu_queue_.scratch.reserve(
      moe_scratch_bytes(max_tokens_, config_.hidden_size, config_.moe_intermediate_size, top_k_,
                        config_.num_experts + 1, cpu_queue_.pool.num_threads()));
  return {};
}

// PCIe moves less than a third of what is missing where the CPU is bound by reading, and more where
// many tokens make it compute.
int64_t SplitPrefill::num_staged(int64_t num_tokens) const {
  const int64_t missing = slots_.max_missing();
  return std::min(missing, missing * (512 + num_tokens) / 1536 + 1);
}

void SplitPrefill::run(int64_t layer, const MoeBatch& batch, float* rows, float* y) {
  const cpu::WorkerPool::Awake awake(cpu_queue_.pool);
  send_to_host(batch);
  cuda::moe_outputs(queue_, slots_.table(layer), batch, rows);
  if (!await_routing()) return;
  learn_copies();
  list_misses(layer, batch);
  stream_.begin(layer);
  const int64_t count = std::min(num_fetched(), stream_.room(layer));
  stream_first(layer, count);
  stage_ahead(layer);
  cuda::moe_outputs(queue_, stream_.table(layer), batch, rows);
  stream_.release(layer);
  compute(layer, std::span(misses_).subspan(static_cast<size_t>(count)), batch, rows);
  queue_.note(queue_.runtime.wait(queue_.stream, rows_there_));
  cuda::moe_join(queue_, batch, rows, nullptr, y);
  computed_at_s_ = layer + 1 < config_.num_hidden_layers ? now_s() : 0;
}

void SplitPrefill::send_to_host(const MoeBatch& batch) {
  cuda::Runtime& runtime = queue_.runtime;
  const int64_t pairs = batch.num_tokens * batch.top_k;
  queue_.note(runtime.copy(ids_.data(), batch.expert_ids, pairs * 4, queue_.stream));
  queue_.note(runtime.copy(x_.data(), batch.x, batch.num_tokens * batch.hidden * 4, queue_.stream));
  queue_.note(runtime.record(routed_, queue_.stream));
}

bool SplitPrefill::await_routing() {
  if (!queue_.status) return false;
  const double start = now_s();
  queue_.note(queue_.runtime.synchronize(routed_));
  const double end = now_s();
  counts_.wait_seconds += end - start;
  if (computed_at_s_ > 0) gap_s_ += kGapWeight * (end - computed_at_s_ - gap_s_);
  return queue_.status.has_value();
}

// The copies of the layer before are over: its sum was taken.
void SplitPrefill::learn_copies() {
  if (copied_bytes_ == 0) return;
  const Result<double> seconds = stream_.last_seconds();
  if (!seconds) queue_.note(fail(seconds.error()));
  if (seconds) rates_.fetch_took(copied_bytes_, *seconds);
  copied_bytes_ = 0;
}

// What was staged ahead is no miss any more.
void SplitPrefill::list_misses(int64_t layer, const MoeBatch& batch) {
  const auto* ids = reinterpret_cast<const int32_t*>(ids_.data());
  std::fill(tokens_of_.begin(), tokens_of_.end(), 0);
  for (int64_t i = 0; i < batch.num_tokens * batch.top_k; ++i) {
    ++tokens_of_[static_cast<size_t>(ids[i])];
  }
  misses_.clear();
  miss_tokens_.clear();
  int64_t untouched = 0;
  for (int32_t e = 0; e < config_.num_experts; ++e) {
    if (slots_.is_resident(layer, e) || stream_.holds(layer, e)) continue;
    const int32_t tokens = tokens_of_[static_cast<size_t>(e)];
    if (tokens > 0) misses_.push_back({e, tokens});
    untouched += tokens > 0 ? 0 : 1;
  }
  all_touched_ = untouched < std::ssize(misses_);
  std::sort(misses_.begin(), misses_.end(), [](const Miss& a, const Miss& b) {
    return a.tokens != b.tokens ? a.tokens > b.tokens : a.expert < b.expert;
  });
  for (const Miss& miss : misses_) miss_tokens_.push_back(miss.tokens);
}

int64_t SplitPrefill::num_fetched() const {
  if (fetch_share_ < 0) return split_misses(rates_.now(), cost_, miss_tokens_, 0).num_fetched;
  return std::lround(fetch_share_ * static_cast<double>(misses_.size()));
}

void SplitPrefill::stream_first(int64_t layer, int64_t count) {
  stream_.start_clock(layer);
  for (int64_t i = 0; i < count; ++i) stream_.add(layer, misses_[static_cast<size_t>(i)].expert);
  stream_.finish(layer);
  stream_.await(layer);
  copied_bytes_ = count * cost_.bytes;
}

// For as long as nobody will know what the next layer's tokens choose: experts that were in use of
// late. Where few experts are touched at all, most copies would be in vain.
void SplitPrefill::stage_ahead(int64_t layer) {
  const auto count = static_cast<int64_t>(gap_s_ * rates_.now().pcie_bytes_per_s /
                                          static_cast<double>(cost_.bytes));
  int64_t next = layer + 1;
  while (next < config_.num_hidden_layers && !host_.layers[static_cast<size_t>(next)].is_moe) {
    ++next;
  }
  if (count == 0 || !all_touched_ || fetch_share_ == 0 || next == config_.num_hidden_layers) return;
  ahead_.clear();
  for (int32_t e = 0; e < config_.num_experts; ++e) {
    if (!slots_.is_resident(next, e)) ahead_.push_back({e, 0});
  }
  stream_.begin(next);
  const int64_t taken = std::min({count, stream_.room(next), std::ssize(ahead_)});
  std::partial_sort(ahead_.begin(), ahead_.begin() + taken, ahead_.end(),
                    [&](const Miss& a, const Miss& b) {
                      const double use_a = slots_.recent_use(next, a.expert);
                      const double use_b = slots_.recent_use(next, b.expert);
                      return use_a != use_b ? use_a > use_b : a.expert < b.expert;
                    });
  for (int64_t i = 0; i < taken; ++i) stream_.add(next, ahead_[static_cast<size_t>(i)].expert);
}

// pairs_ ← the choices that the CPU computes, group after group.
void SplitPrefill::group_choices(std::span<const Miss> on_cpu, const MoeBatch& batch) {
  const int64_t count = std::ssize(on_cpu);
  const int64_t in_first = count < kMinToGroup ? count : count - count / 4;
  std::fill(group_of_.begin(), group_of_.end(), -1);
  group_begin_ = {};
  for (int64_t i = 0; i < count; ++i) {
    const Miss& miss = on_cpu[static_cast<size_t>(i)];
    const size_t group = i < in_first ? 0 : 1;
    group_of_[static_cast<size_t>(miss.expert)] = static_cast<int32_t>(group);
    group_begin_[group + 1] += miss.tokens;
  }
  for (size_t g = 1; g < group_begin_.size(); ++g) group_begin_[g] += group_begin_[g - 1];
  const auto* ids = reinterpret_cast<const int32_t*>(ids_.data());
  auto* pairs = reinterpret_cast<int32_t*>(pairs_.data());
  std::array<int64_t, kNumGroups> end = {};
  std::copy_n(group_begin_.begin(), kNumGroups, end.begin());
  for (int32_t i = 0; i < batch.num_tokens * batch.top_k; ++i) {
    const int32_t group = group_of_[static_cast<size_t>(ids[i])];
    if (group >= 0) pairs[end[static_cast<size_t>(group)]++] = i;
  }
}

void SplitPrefill::compute(int64_t layer, std::span<const Miss> on_cpu, const MoeBatch& batch,
                           float* rows) {
  const double start = now_s();
  group_choices(on_cpu, batch);
  const auto* ids = reinterpret_cast<const int32_t*>(ids_.data());
  const auto* pairs = reinterpret_cast<const int32_t*>(pairs_.data());
  auto* host_rows = reinterpret_cast<float*>(rows_.data());
  MoeBatch group = batch;  // its weights are not read: rows are not weighted
  group.x = reinterpret_cast<const float*>(x_.data());
  group.expert_ids = cpu_ids_.data();
  for (size_t g = 0; g + 1 < group_begin_.size(); ++g) {
    const int64_t begin = group_begin_[g], end = group_begin_[g + 1];
    if (begin == end) continue;
    std::fill_n(cpu_ids_.begin(), batch.num_tokens * batch.top_k, -1);
    for (int64_t i = begin; i < end; ++i) cpu_ids_[static_cast<size_t>(pairs[i])] = ids[pairs[i]];
    moe_outputs(cpu_queue_, host_.layers[static_cast<size_t>(layer)].experts, group, host_rows);
    cuda::fetch_rows(rows_queue_, host_rows, pairs + begin, end - begin, batch.hidden, rows);
  }
  queue_.note(rows_queue_.status);
  queue_.note(queue_.runtime.record(rows_there_, rows_queue_.stream));
  const double seconds = now_s() - start;
  rates_.cpu_took(cost_, std::span(miss_tokens_).last(on_cpu.size()), copied_bytes_ > 0, seconds);
  counts_.cpu_seconds += seconds;
  counts_.computed_bytes += std::ssize(on_cpu) * cost_.bytes;
}

Status SplitPrefill::recover() {
  rows_queue_.status = {};
  copied_bytes_ = 0;
  computed_at_s_ = 0;
  return queue_.runtime.synchronize(rows_queue_.stream);
}

}  // namespace hotset
