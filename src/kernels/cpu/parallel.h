// SPDX-License-Identifier: Apache-2.0
// How the row-wise operations use the pool: equal shares of a range, or items taken one by one when
// their costs differ. Both leave the arithmetic of a row or an item untouched.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/cpu/queue.h"

namespace hotset::cpu {

// Below this many elements (4 bytes read or written each) waking the pool costs more than it saves.
inline constexpr int64_t kParallelElements = 16384;

// The instruction sets these operations are built for: three, while matmul has more.
template <typename Table>
[[nodiscard]] const Table& table_for(Isa isa, const Table& scalar, const Table& avx2,
                                     const Table& avx512) {
  if (isa >= Isa::kAvx512Vnni) return avx512;
  return isa >= Isa::kAvx2 ? avx2 : scalar;
}

// body(begin, end) on consecutive shares of [0, n), each a multiple of `step` but the last. One
// call on this thread when n · elements_per_item is small.
template <typename Body>
void for_shares(Queue& queue, int64_t n, int64_t elements_per_item, int64_t step,
                const Body& body) {
  if (n <= 0) return;
  if (queue.pool.num_threads() == 1 || n * elements_per_item <= kParallelElements) {
    body(int64_t{0}, n);
    return;
  }
  queue.pool.run([&](int worker, int num_workers) {
    const int64_t steps = (n + step - 1) / step;
    const int64_t begin = std::min(n, steps * worker / num_workers * step);
    const int64_t end = std::min(n, steps * (worker + 1) / num_workers * step);
    if (begin < end) body(begin, end);
  });
}

// body(item, worker) for each item of [0, n); a free worker takes the next one.
template <typename Body>
void for_items(Queue& queue, int64_t n, const Body& body) {
  if (n <= 0) return;
  if (queue.pool.num_threads() == 1 || n == 1) {
    for (int64_t item = 0; item < n; ++item) body(item, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  queue.pool.run([&](int worker, int) {
    for (int64_t item = next.fetch_add(1); item < n; item = next.fetch_add(1)) body(item, worker);
  });
}

}  // namespace hotset::cpu
