// SPDX-License-Identifier: Apache-2.0
// C += A·B for matrices that fit the cache, fp32, by register blocks of 4 rows × 2 vectors. B and C
// have contiguous rows; A's element (m, k) is at m·row + k·col. Each element of C is one chain of
// fused multiply-adds in the order of k.
#pragma once

#include "kernels/cpu/lanes.h"

namespace hotset::cpu {
namespace {

struct Operand {
  const float* data;
  int64_t row;
  int64_t col;
};

template <int R, int V>
inline void gemm_block(int64_t k_size, const Operand& a, const float* b, int64_t b_row, float* c,
                       int64_t c_row) {
  Vec acc[R][V];
  for (int64_t r = 0; r < R; ++r) {
    for (int64_t v = 0; v < V; ++v) acc[r][v] = load(c + r * c_row + v * Vec::kLanes);
  }
  for (int64_t k = 0; k < k_size; ++k) {
    Vec x[V];
    for (int64_t v = 0; v < V; ++v) x[v] = load(b + k * b_row + v * Vec::kLanes);
    for (int64_t r = 0; r < R; ++r) {
      const Vec y = splat(a.data[r * a.row + k * a.col]);
      for (int64_t v = 0; v < V; ++v) acc[r][v] = fma(y, x[v], acc[r][v]);
    }
  }
  for (int64_t r = 0; r < R; ++r) {
    for (int64_t v = 0; v < V; ++v) store(c + r * c_row + v * Vec::kLanes, acc[r][v]);
  }
}

template <int R>
inline void gemm_tail(int64_t lanes, int64_t k_size, const Operand& a, const float* b,
                      int64_t b_row, float* c, int64_t c_row) {
  Vec acc[R];
  for (int64_t r = 0; r < R; ++r) acc[r] = load_n(c + r * c_row, lanes);
  for (int64_t k = 0; k < k_size; ++k) {
    const Vec x = load_n(b + k * b_row, lanes);
    for (int64_t r = 0; r < R; ++r) acc[r] = fma(splat(a.data[r * a.row + k * a.col]), x, acc[r]);
  }
  for (int64_t r = 0; r < R; ++r) store_n(c + r * c_row, acc[r], lanes);
}

template <int R>
inline void gemm_rows(int64_t n, int64_t k_size, const Operand& a, const float* b, int64_t b_row,
                      float* c, int64_t c_row) {
  int64_t j = 0;
  for (; j + 2 * Vec::kLanes <= n; j += 2 * Vec::kLanes) {
    gemm_block<R, 2>(k_size, a, b + j, b_row, c + j, c_row);
  }
  for (; j + Vec::kLanes <= n; j += Vec::kLanes) {
    gemm_block<R, 1>(k_size, a, b + j, b_row, c + j, c_row);
  }
  if (j < n) gemm_tail<R>(n - j, k_size, a, b + j, b_row, c + j, c_row);
}

// C [m, n] += A [m, k_size] · B [k_size, n]
inline void gemm_add(int64_t m, int64_t n, int64_t k_size, const Operand& a, const float* b,
                     int64_t b_row, float* c, int64_t c_row) {
  int64_t i = 0;
  for (; i + 4 <= m; i += 4) {
    gemm_rows<4>(n, k_size, {a.data + i * a.row, a.row, a.col}, b, b_row, c + i * c_row, c_row);
  }
  for (; i < m; ++i) {
    gemm_rows<1>(n, k_size, {a.data + i * a.row, a.row, a.col}, b, b_row, c + i * c_row, c_row);
  }
}

}  // namespace
}  // namespace hotset::cpu
