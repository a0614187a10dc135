// SPDX-License-Identifier: Apache-2.0
// How a launcher starts its kernel: arguments converted to the kernel's parameter types, the call
// made through the queue's runtime, the first failure kept. For .cu files only.
#pragma once

#include <array>
#include <tuple>

#include "kernels/cuda/queue.h"

namespace hotset::cuda {

// HS_LAUNCH(queue, grid, block, shared_bytes, kernel<…>, arguments…)
template <typename... Params, typename... Arguments>
void launch(Queue& queue, const char* name, Grid grid, Grid block, int64_t shared_bytes,
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
                                   .arguments = pointers.data()},
                                  queue.stream));
}

#define HS_LAUNCH(queue, grid, block, shared_bytes, kernel, ...) \
  ::hotset::cuda::launch(queue, #kernel, grid, block, shared_bytes, kernel, __VA_ARGS__)

[[nodiscard]] inline unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

}  // namespace hotset::cuda
