// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/cuda/expert_exchange.cuh"
#include "kernels/cuda/launch.cuh"

namespace hotset::cuda {
namespace {

constexpr int kMostThreads = 1024;
constexpr int kFetchBlocks = 32;  // 16 are enough for what PCIe 5 gives
constexpr int kFetchThreads = 512;
constexpr int kFetchAtOnce = 4;  // 16-byte loads in flight, a thread

struct Misses {
  int num_experts;
  int num_cpu;      // choices
  int num_fetched;  // choices
};

__device__ inline int num_threads() {
  return static_cast<int>(blockDim.x);
}

// By all threads of a block: loads go ahead of stores, which are slow.
__device__ void copy_values(const float* from, int64_t count, float* to) {
  constexpr int kAtOnce = 8;
  const auto* fours = reinterpret_cast<const float4*>(from);
  for (int64_t first = threadIdx.x; first < count / 4; first += kAtOnce * blockDim.x) {
    float4 values[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i * blockDim.x < count / 4) values[i] = fours[first + i * blockDim.x];
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t at = first + i * blockDim.x;
      if (at < count / 4) reinterpret_cast<float4*>(to)[at] = values[i];
    }
  }
  for (int64_t i = count / 4 * 4 + threadIdx.x; i < count; i += blockDim.x) to[i] = from[i];
}

// first[i]: the first choice with the same missed expert as choice i; −1 where it is resident.
__device__ void find_misses(const ExpertAddress* addresses, const int32_t* ids, int num_choices,
                            int32_t* missed_ids, int32_t* first, Misses& misses) {
  for (int i = static_cast<int>(threadIdx.x); i < num_choices; i += num_threads()) {
    missed_ids[i] = addresses[ids[i]].gate == nullptr ? ids[i] : -1;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < num_choices; i += num_threads()) {
    first[i] = -1;
    if (missed_ids[i] < 0) continue;
    int j = 0;
    while (missed_ids[j] != missed_ids[i]) ++j;
    first[i] = j;
    if (i == j) atomicAdd(&misses.num_experts, 1);
  }
  __syncthreads();
}

// Missed experts in the order of their first choices: which one is choice i's?
__device__ int rank_of(const int32_t* first, int i) {
  int rank = 0;
  for (int j = 0; j < first[i]; ++j) rank += first[j] == j ? 1 : 0;
  return rank;
}

__device__ ExpertAddress address_in(std::byte* slot, const BankExpert& expert) {
  const ExpertAddress& at = expert.address;
  return {slot + (at.gate - expert.record), slot + (at.up - expert.record),
          slot + (at.down - expert.record)};
}

__device__ void place_choice(const ExpertAddress* addresses, const int32_t* first, int i, int id,
                             int first_fetched, const ExpertExchange& exchange,
                             const FetchRule& fetch, const GpuChoices& to, Misses& misses) {
  ChoicePlace place = first[i] < 0 ? ChoicePlace::kResident : ChoicePlace::kCpu;
  ExpertAddress address = addresses[id];
  if (place == ChoicePlace::kCpu && first_fetched < misses.num_experts) {
    const int rank = rank_of(first, i) - first_fetched;
    if (rank >= 0) {
      const BankExpert& expert = fetch.bank[id];
      std::byte* slot = fetch.slots + rank * fetch.slot_bytes;
      address = address_in(slot, expert);
      place = ChoicePlace::kFetched;
      if (first[i] == i) fetch.jobs[rank] = {expert.record, slot, expert.bytes};
    }
  }
  to.ids[i] = place == ChoicePlace::kCpu ? -1 : id;
  to.addresses[i] = address;
  exchange.ids[i] = id;
  exchange.places[i] = place;
  if (place == ChoicePlace::kCpu) atomicAdd(&misses.num_cpu, 1);
  if (place == ChoicePlace::kFetched) atomicAdd(&misses.num_fetched, 1);
}

__global__ void __launch_bounds__(kMostThreads)
    hand_over_kernel(const ExpertAddress* addresses, const int32_t* ids, const float* x,
                     int num_choices, int64_t num_values, ExpertExchange exchange, FetchRule fetch,
                     GpuChoices to) {
  extern __shared__ int32_t missed_ids[];  // [num_choices], then `first`
  int32_t* first = missed_ids + num_choices;
  __shared__ Misses misses;
  start_next();
  wait_for_earlier();
  if (threadIdx.x == 0) misses = {};
  copy_values(x, num_values, exchange.x);
  __syncthreads();
  find_misses(addresses, ids, num_choices, missed_ids, first, misses);
  const int wanted =
      fetch.bank == nullptr ? 0 : min(fetch.num_fetched[misses.num_experts], fetch.max_fetched);
  const int limit = min(wanted, misses.num_experts);
  for (int i = static_cast<int>(threadIdx.x); i < num_choices; i += num_threads()) {
    place_choice(addresses, first, i, ids[i], misses.num_experts - limit, exchange, fetch, to,
                 misses);
    if (exchange.predicted != nullptr) exchange.predicted[i] = ids[num_choices + i];
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (fetch.bank != nullptr) *fetch.num_jobs = limit;
  const uint32_t number = exchange.last[0] + 1;
  exchange.last[0] = number;
  exchange.last[1] = static_cast<uint32_t>(misses.num_cpu);
  *exchange.counts = {static_cast<uint32_t>(misses.num_cpu),
                      static_cast<uint32_t>(misses.num_fetched)};
  write_flag(&exchange.flags->request, number);
}

__global__ void __launch_bounds__(kFetchThreads)
    fetch_kernel(const FetchJob* jobs, const int32_t* num_jobs) {
  start_next();
  wait_for_earlier();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kFetchThreads;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kFetchThreads + threadIdx.x;
  for (int j = 0; j < *num_jobs; ++j) {
    const FetchJob job = jobs[j];
    const auto* from = reinterpret_cast<const uint4*>(job.from);
    auto* to = reinterpret_cast<uint4*>(job.to);
    const int64_t count = job.bytes / 16;
    for (int64_t i = begin; i < count; i += kFetchAtOnce * step) {
      uint4 words[kFetchAtOnce];
#pragma unroll
      for (int u = 0; u < kFetchAtOnce; ++u) {
        if (i + u * step < count) words[u] = __ldcs(from + i + u * step);
      }
#pragma unroll
      for (int u = 0; u < kFetchAtOnce; ++u) {
        if (i + u * step < count) to[i + u * step] = words[u];
      }
    }
  }
}

__global__ void apply_address_changes_kernel(ExpertAddress* entries, const AddressChange* changes,
                                             const int32_t* count) {
  const int n = *static_cast<const volatile int32_t*>(count);
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x * blockDim.x)) {
    entries[changes[i].index] = changes[i].address;
  }
}

}  // namespace

void hand_over(Queue& queue, const ExpertTable& experts, const MoeBatch& batch,
               const ExpertExchange& exchange, const FetchRule& fetch, const GpuChoices& to) {
  const int64_t choices = batch.num_tokens * batch.top_k;
  // Two float4 a thread for one token, eight for more.
  const int64_t threads =
      std::clamp<int64_t>(batch.num_tokens * batch.hidden / 32 / 32 * 32, 256, kMostThreads);
  HS_LAUNCH_EARLY(queue, Grid{1}, Grid{static_cast<unsigned>(threads)}, 8 * choices,
                  hand_over_kernel, experts.addresses, batch.expert_ids, batch.x, choices,
                  batch.num_tokens * batch.hidden, exchange, fetch, to);
}

void fetch(Queue& queue, const FetchRule& rule) {
  HS_LAUNCH_EARLY(queue, Grid{kFetchBlocks}, Grid{kFetchThreads}, 0, fetch_kernel, rule.jobs,
                  rule.num_jobs);
}

void apply_address_changes(Queue& queue, ExpertAddress* entries, const AddressChange* changes,
                           const int32_t* count, int32_t max_count) {
  constexpr int64_t kPerBlock = 128;
  HS_LAUNCH(queue, Grid{blocks_for(max_count, kPerBlock)}, Grid{kPerBlock}, 0,
            apply_address_changes_kernel, entries, changes, count);
}

}  // namespace hotset::cuda
