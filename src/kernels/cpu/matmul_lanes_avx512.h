// SPDX-License-Identifier: Apache-2.0
// matmul_lanes.h with AVX-512 (F, BW, DQ, VL, VNNI): one register holds 16 rows.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/matmul_kernels.h"

namespace hotset::cpu {
namespace {

constexpr int kIntegerTokens = 8;
constexpr int kFloatTokens = 12;

struct Floats {
  __m512 v;
};
struct Ints {
  __m512i v;
};

inline __m128i load16(const std::byte* at) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}
inline __m256i load32(const std::byte* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

inline Floats splat(float x) {
  return {_mm512_set1_ps(x)};
}
inline Floats load_floats(const float* at) {
  return {_mm512_loadu_ps(at)};
}
inline Floats load_floats(const std::byte* at) {
  return {_mm512_castsi512_ps(_mm512_loadu_si512(at))};
}
inline void store_floats(float* to, Floats x, int64_t n) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << n) - 1u), x.v);
}
inline Floats load_halves(const std::byte* at) {
  return {_mm512_cvtph_ps(load32(at))};
}
inline Floats load_bf16s(const std::byte* at) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load32(at)), 16))};
}
// e4m3 bits moved into a half are the value times 2^-8, subnormals included; 0x7f is a NaN.
inline Floats load_fp8s(const std::byte* at) {
  const __m256i words = _mm256_cvtepu8_epi16(load16(at));
  const __m256i magnitude = _mm256_and_si256(words, _mm256_set1_epi16(0x7f));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(words, _mm256_set1_epi16(0x80)), 8);
  const __m256i nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f));
  const __m256i half = _mm256_or_si256(_mm256_or_si256(sign, _mm256_slli_epi16(magnitude, 7)),
                                       _mm256_srli_epi16(nan, 1));
  return {_mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f))};
}
inline Floats load_bytes(const std::byte* at) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load16(at)))};
}
inline Floats fma(Floats x, Floats y, Floats z) {
  return {_mm512_fmadd_ps(x.v, y.v, z.v)};
}
inline Floats operator+(Floats x, Floats y) {
  return {_mm512_add_ps(x.v, y.v)};
}
inline Floats operator-(Floats x, Floats y) {
  return {_mm512_sub_ps(x.v, y.v)};
}
inline Floats operator*(Floats x, Floats y) {
  return {_mm512_mul_ps(x.v, y.v)};
}
inline Floats operator/(Floats x, Floats y) {
  return {_mm512_div_ps(x.v, y.v)};
}
// The second operand where either is a NaN.
inline Floats min_second(Floats x, Floats y) {
  return {_mm512_min_ps(x.v, y.v)};
}
inline Floats max_second(Floats x, Floats y) {
  return {_mm512_max_ps(x.v, y.v)};
}

inline Ints load_ints(const std::byte* at) {
  return {_mm512_loadu_si512(at)};
}
template <int kShift, int kMask>
inline Ints bits_of(Ints x) {
  return {_mm512_and_si512(_mm512_srli_epi32(x.v, kShift), _mm512_set1_epi32(kMask))};
}
inline Floats to_floats(Ints x) {
  return {_mm512_cvtepi32_ps(x.v)};
}
inline Ints round_to_ints(Floats x) {  // to nearest even; |x| < 2^31
  return {_mm512_cvtps_epi32(x.v)};
}
inline Floats pow2(Ints n) {  // 2^n for n in [-126, 127]
  return {
      _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n.v, _mm512_set1_epi32(127)), 23))};
}
inline int32_t largest_magnitude_bits(Floats x, Floats y) {
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  const __m512i most = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(x.v), mask),
                                        _mm512_and_si512(_mm512_castps_si512(y.v), mask));
  return static_cast<int32_t>(_mm512_reduce_max_epu32(most));
}
inline int32_t store_int8s(int8_t* to, Ints x) {  // and their sum
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(x.v));
  return _mm512_reduce_add_epi32(x.v);
}

struct Table {
  __m512 entries;
};
inline Table load_table(const float* entries) {
  return {_mm512_loadu_ps(entries)};
}
inline Floats lookup(Table table, Ints index) {
  return {_mm512_permutexvar_ps(index.v, table.entries)};
}

inline void prefetch(const std::byte* at) {  // to L2: what is in flight is more than L1 tracks
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T1);
}

inline __m512i broadcast4(const int8_t* at) {
  int32_t four;
  std::memcpy(&four, at, sizeof(four));
  return _mm512_set1_epi32(four);
}

struct DotTables {
  __m512i codes;  // of a codebook, unsigned: 128 is 0
};
inline DotTables load_dot_tables(const TileFormat& format) {
  const auto* codes = reinterpret_cast<const __m128i*>(format.codebook_codes);
  return {_mm512_broadcast_i32x4(_mm_load_si128(codes))};
}

// The 64 codes of 4 columns × 16 rows at position `vec` of a block, as vpdpbusd takes them.
template <CodeKind kCode>
[[gnu::always_inline]] inline __m512i unpack_codes(const DotTables& tables, const std::byte* codes,
                                                   int64_t vec) {
  if constexpr (kCode == CodeKind::kInt8) return _mm512_loadu_si512(codes + 64 * vec);
  const __m512i both = _mm512_loadu_si512(codes + 64 * (vec / 2));
  const __m512i shifted = vec % 2 == 0 ? both : _mm512_srli_epi16(both, 4);
  const __m512i nibbles = _mm512_and_si512(shifted, _mm512_set1_epi8(15));
  if constexpr (kCode == CodeKind::kAffine4) return nibbles;
  return _mm512_shuffle_epi8(tables.codes, nibbles);
}

// dot[t] = Σ over 8·steps columns of code · q[t]; codes are u (kAffine4), u − 128 (kInt8), the
// rounded codebook entry (kCodebook4). q_sum[t] = Σ q[t]. Codes stay unsigned for vpdpbusd; the
// offset times Σ q is where the sums start.
template <CodeKind kCode, int kTokens>
[[gnu::always_inline]] inline void dot_block(const DotTables& tables, const std::byte* codes,
                                             int64_t steps, const int8_t* const* q,
                                             const int32_t* q_sum, Ints* dot) {
  constexpr int kOffset = kCode == CodeKind::kAffine4 ? 0 : -128;
  for (int t = 0; t < kTokens; ++t) {
    dot[t].v = _mm512_set1_epi32(kOffset == 0 ? 0 : kOffset * q_sum[t]);
  }
  for (int64_t vec = 0; vec < 2 * steps; ++vec) {
    const __m512i u = unpack_codes<kCode>(tables, codes, vec);
    for (int t = 0; t < kTokens; ++t) {
      dot[t].v = _mm512_dpbusd_epi32(dot[t].v, u, broadcast4(q[t] + 4 * vec));
    }
  }
}

}  // namespace
}  // namespace hotset::cpu
