// SPDX-License-Identifier: Apache-2.0
// dot_block with AVX2: vpmaddubsw sums two products of an unsigned and a signed byte in 16 bits and
// saturates, so each code kind is arranged such that it never can:
//   affine4    15·127·2 = 3810 a pair; 8 of them, 32 columns, still fit, so one widening a block
//   int8       |u − 128| times q with the sign moved over: at most 128·127·2 = 32512
//   codebook4  as int8, from a table of 16 of them
#pragma once

#include "kernels/cpu/matmul_lanes_avx2.h"

namespace hotset::cpu {
namespace {

template <int kTokens>
[[gnu::always_inline]] inline void dot_affine4(const std::byte* codes, int64_t steps,
                                               const int8_t* const* q, Ints* dot) {
  __m256i sum[kTokens][2];
  for (int t = 0; t < kTokens; ++t) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
  for (int64_t vec = 0; vec < 2 * steps; ++vec) {
    const Ints c = load_ints(codes + 64 * (vec / 2));
    const __m256i u[2] = {vec % 2 == 0 ? low_nibbles(c.a) : high_nibbles(c.a),
                          vec % 2 == 0 ? low_nibbles(c.b) : high_nibbles(c.b)};
    for (int t = 0; t < kTokens; ++t) {
      const __m256i x = broadcast4(q[t] + 4 * vec);
      sum[t][0] = _mm256_add_epi16(sum[t][0], _mm256_maddubs_epi16(u[0], x));
      sum[t][1] = _mm256_add_epi16(sum[t][1], _mm256_maddubs_epi16(u[1], x));
    }
  }
  const __m256i ones = _mm256_set1_epi16(1);
  for (int t = 0; t < kTokens; ++t) {
    dot[t] = {_mm256_madd_epi16(sum[t][0], ones), _mm256_madd_epi16(sum[t][1], ones)};
  }
}

inline __m256i add_signed_product(__m256i sum, __m256i weight, __m256i magnitude, __m256i q) {
  const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(q, weight));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// The codes of columns 4·vec … 4·vec+3.
template <CodeKind kCode>
[[gnu::always_inline]] inline Ints unpack_bytes(const DotTables& tables, const std::byte* codes,
                                                int64_t vec) {
  if constexpr (kCode == CodeKind::kInt8) return load_ints(codes + 64 * vec);
  const Ints c = load_ints(codes + 64 * (vec / 2));
  const Ints u = vec % 2 == 0 ? Ints{low_nibbles(c.a), low_nibbles(c.b)}
                              : Ints{high_nibbles(c.a), high_nibbles(c.b)};
  return {_mm256_shuffle_epi8(tables.codes, u.a), _mm256_shuffle_epi8(tables.codes, u.b)};
}

template <CodeKind kCode, int kTokens>
[[gnu::always_inline]] inline void dot_bytes(const DotTables& tables, const std::byte* codes,
                                             int64_t steps, const int8_t* const* q, Ints* dot) {
  for (int t = 0; t < kTokens; ++t) dot[t] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  const __m256i middle = _mm256_set1_epi8(-128);
  for (int64_t vec = 0; vec < 2 * steps; ++vec) {
    const Ints u = unpack_bytes<kCode>(tables, codes, vec);
    const Ints w = {_mm256_xor_si256(u.a, middle), _mm256_xor_si256(u.b, middle)};
    const Ints magnitude = {_mm256_abs_epi8(w.a), _mm256_abs_epi8(w.b)};
    for (int t = 0; t < kTokens; ++t) {
      const __m256i x = broadcast4(q[t] + 4 * vec);
      dot[t] = {add_signed_product(dot[t].a, w.a, magnitude.a, x),
                add_signed_product(dot[t].b, w.b, magnitude.b, x)};
    }
  }
}

// dot[t] = Σ over 8·steps columns of code · q[t]; codes are u (kAffine4), u − 128 (kInt8), the
// rounded codebook entry (kCodebook4). Σ q[t], which others need, is not used.
template <CodeKind kCode, int kTokens>
[[gnu::always_inline]] inline void dot_block(const DotTables& tables, const std::byte* codes,
                                             int64_t steps, const int8_t* const* q, const int32_t*,
                                             Ints* dot) {
  if constexpr (kCode == CodeKind::kAffine4) {
    dot_affine4<kTokens>(codes, steps, q, dot);
  } else {
    dot_bytes<kCode, kTokens>(tables, codes, steps, q, dot);
  }
}

}  // namespace
}  // namespace hotset::cpu
