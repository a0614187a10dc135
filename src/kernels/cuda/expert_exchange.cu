// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/expert_exchange.h"
#include "kernels/cuda/launch.cuh"

namespace hotset::cuda {
namespace {

constexpr int kThreads = 256;
// Of clock64, at no more than 3 GHz.
constexpr int64_t kReplyTimeoutCycles = static_cast<int64_t>(kReplyTimeoutSeconds * 3e9);

__device__ uint32_t read_flag(const uint32_t* flag) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}

__device__ void write_flag(uint32_t* flag, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}

__global__ void __launch_bounds__(kThreads)
    hand_over_kernel(const ExpertAddress* addresses, const int32_t* ids, const float* x,
                     int num_choices, int64_t num_values, ExpertExchange exchange,
                     int32_t* gpu_ids) {
  __shared__ int num_misses;
  if (threadIdx.x == 0) num_misses = 0;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < num_choices; i += kThreads) {
    const int id = ids[i];
    const bool missed = addresses[id].gate == nullptr;
    gpu_ids[i] = missed ? -1 : id;
    exchange.ids[i] = id;
    exchange.missed[i] = missed ? 1 : 0;
    if (missed) atomicAdd(&num_misses, 1);
  }
  __syncthreads();
  if (num_misses > 0) {
    const auto* from = reinterpret_cast<const float4*>(x);
    auto* to = reinterpret_cast<float4*>(exchange.x);
    for (int64_t i = threadIdx.x; i < num_values / 4; i += kThreads) to[i] = from[i];
    for (int64_t i = num_values / 4 * 4 + threadIdx.x; i < num_values; i += kThreads) {
      exchange.x[i] = x[i];
    }
  }
  __threadfence_system();  // what this thread wrote is there before the flag is
  __syncthreads();
  if (threadIdx.x != 0) return;
  const uint32_t number = exchange.last[0] + 1;
  exchange.last[0] = number;
  exchange.last[1] = static_cast<uint32_t>(num_misses);
  *exchange.num_misses = static_cast<uint32_t>(num_misses);
  __threadfence_system();
  write_flag(&exchange.flags->request, number);
}

__global__ void await_reply_kernel(ExpertExchange exchange) {
  if (exchange.last[1] == 0) return;
  const uint32_t number = exchange.last[0];
  const int64_t begin = clock64();
  while (static_cast<int32_t>(read_flag(&exchange.flags->reply) - number) < 0) {
    if (read_flag(&exchange.flags->abort) != 0) return;
    if (clock64() - begin > kReplyTimeoutCycles) {
      write_flag(&exchange.flags->expired, 1);
      write_flag(&exchange.flags->abort, 1);
      return;
    }
  }
  __threadfence_system();
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
               const ExpertExchange& exchange, int32_t* gpu_ids) {
  HS_LAUNCH(queue, Grid{1}, Grid{kThreads}, 0, hand_over_kernel, experts.addresses,
            batch.expert_ids, batch.x, batch.num_tokens * batch.top_k,
            batch.num_tokens * batch.hidden, exchange, gpu_ids);
}

void await_reply(Queue& queue, const ExpertExchange& exchange) {
  HS_LAUNCH(queue, Grid{1}, Grid{1}, 0, await_reply_kernel, exchange);
}

void apply_address_changes(Queue& queue, ExpertAddress* entries, const AddressChange* changes,
                           const int32_t* count, int32_t max_count) {
  constexpr int64_t kPerBlock = 128;
  HS_LAUNCH(queue, Grid{blocks_for(max_count, kPerBlock)}, Grid{kPerBlock}, 0,
            apply_address_changes_kernel, entries, changes, count);
}

}  // namespace hotset::cuda
