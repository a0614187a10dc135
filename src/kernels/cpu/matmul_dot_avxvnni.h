// SPDX-License-Identifier: Apache-2.0
// dot_block with AVX-VNNI: vpdpbusd adds four products of unsigned and signed bytes to 32 bits,
// without saturation. Codes stay unsigned; the offset times Σ q is where the sums start.
#pragma once

#include "kernels/cpu/matmul_lanes_avx2.h"

namespace hotset::cpu {
namespace {

inline Ints add_dot(Ints sum, Ints codes, __m256i q) {
  return {_mm256_dpbusd_avx_epi32(sum.a, codes.a, q), _mm256_dpbusd_avx_epi32(sum.b, codes.b, q)};
}
inline Ints all_lanes(int32_t x) {
  return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
inline Ints look_up(__m256i table, Ints index) {
  return {_mm256_shuffle_epi8(table, index.a), _mm256_shuffle_epi8(table, index.b)};
}

// dot[t] = Σ over 8·steps columns of code · q[t]; codes are u (kAffine4), u − 128 (kInt8), the
// rounded codebook entry (kCodebook4). q_sum[t] = Σ q[t].
template <CodeKind kCode, int kTokens>
[[gnu::always_inline]] inline void dot_block(const DotTables& tables, const std::byte* codes,
                                             int64_t steps, const int8_t* const* q,
                                             const int32_t* q_sum, Ints* dot) {
  constexpr int kOffset = kCode == CodeKind::kAffine4 ? 0 : -128;
  for (int t = 0; t < kTokens; ++t) dot[t] = all_lanes(kOffset == 0 ? 0 : kOffset * q_sum[t]);
  for (int64_t vec = 0; vec < 2 * steps; ++vec) {
    Ints u;
    if constexpr (kCode == CodeKind::kInt8) {
      u = load_ints(codes + 64 * vec);
    } else {
      const Ints c = load_ints(codes + 64 * (vec / 2));
      u = vec % 2 == 0 ? Ints{low_nibbles(c.a), low_nibbles(c.b)}
                       : Ints{high_nibbles(c.a), high_nibbles(c.b)};
    }
    if constexpr (kCode == CodeKind::kCodebook4) u = look_up(tables.codes, u);
    for (int t = 0; t < kTokens; ++t) dot[t] = add_dot(dot[t], u, broadcast4(q[t] + 4 * vec));
  }
}

}  // namespace
}  // namespace hotset::cpu
