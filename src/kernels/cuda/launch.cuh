// SPDX-License-Identifier: Apache-2.0
// How a launcher starts its kernel: arguments converted to the kernel's parameter types, the call
// made through the queue's runtime, the first failure kept. For .cu files only.
//
// HS_LAUNCH_EARLY starts a kernel while those before it still run (compute capability 9.0 and up;
// elsewhere it is HS_LAUNCH). Such a kernel calls wait_for_earlier() on every path of every thread,
// before it reads or writes anything that an earlier kernel writes or reads: until then it may only
// touch weights, which no kernel of a step writes. start_next() lets the kernel after it, if that
// is an early one, begin once all blocks have called it or ended; the earlier, the more it
// overlaps.
#pragma once

#include <array>
#include <tuple>

#include "kernels/cuda/queue.h"

namespace hotset::cuda {

// HS_LAUNCH(queue, grid, block, shared_bytes, kernel<…>, arguments…)
template <typename... Params, typename... Arguments>
void launch(Queue& queue, const char* name, bool early, Grid grid, Grid block, int64_t shared_bytes,
            void (*kernel)(Params...), Arguments... arguments) {
  static_assert(sizeof...(Params) == sizeof...(Arguments));
  if (!queue.status || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  std::tuple<Params...> values(static_cast<Params>(arguments)...);
  auto pointers = std::apply(
      [](auto&... value) {
        return std::array<void*, sizeof...(Params)>{
            const_cast<void*>(static_cast<const void*>(&value))...};
      },
      values);
  queue.note(queue.runtime.launch({.kernel = reinterpret_cast<const void*>(kernel),
                                   .name = name,
                                   .grid = grid,
                                   .block = block,
                                   .shared_bytes = shared_bytes,
                                   .arguments = pointers.data(),
                                   .early = early},
                                  queue.stream));
}

#define HS_LAUNCH(queue, grid, block, shared_bytes, kernel, ...) \
  ::hotset::cuda::launch(queue, #kernel, false, grid, block, shared_bytes, kernel, __VA_ARGS__)
#define HS_LAUNCH_EARLY(queue, grid, block, shared_bytes, kernel, ...) \
  ::hotset::cuda::launch(queue, #kernel, true, grid, block, shared_bytes, kernel, __VA_ARGS__)

// All that was on the stream before has ended, and what it wrote is there to read.
__device__ __forceinline__ void wait_for_earlier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void start_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

[[nodiscard]] inline unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

}  // namespace hotset::cuda
