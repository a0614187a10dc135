// SPDX-License-Identifier: Apache-2.0
// The GPU's side of the flags of expert_exchange.h, for kernels.
#pragma once

#include "kernels/cuda/expert_exchange.h"

namespace hotset::cuda {

// Of clock64, at no more than 3 GHz.
inline constexpr int64_t kReplyTimeoutCycles = static_cast<int64_t>(kReplyTimeoutSeconds * 3e9);

__device__ inline uint32_t read_flag(const uint32_t* flag) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}

// Of thread 0 of a block, behind a barrier: what all its threads wrote before is there first.
__device__ inline void write_flag(uint32_t* flag, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}

// All threads of a block: until the CPU has answered the last hand-over, or a wait is given up.
__device__ inline void await_reply(const ExpertExchange& exchange) {
  if (exchange.last[1] == 0) return;
  if (threadIdx.x == 0) {
    const uint32_t number = exchange.last[0];
    const int64_t begin = clock64();
    while (static_cast<int32_t>(read_flag(&exchange.flags->reply) - number) < 0) {
      if (read_flag(&exchange.flags->abort) != 0) break;
      if (clock64() - begin <= kReplyTimeoutCycles) continue;
      write_flag(&exchange.flags->expired, 1);
      write_flag(&exchange.flags->abort, 1);
      break;
    }
    __threadfence_system();
  }
  __syncthreads();
}

}  // namespace hotset::cuda
