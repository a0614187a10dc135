// SPDX-License-Identifier: Apache-2.0
// matmul_lanes.h with AVX2, FMA and F16C: two registers for 16 rows. The integer dot products are
// in matmul_dot_avx2.h and matmul_dot_avxvnni.h.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/matmul_kernels.h"

namespace hotset::cpu {
namespace {

constexpr int kIntegerTokens = 4;  // two accumulators each, of sixteen registers
constexpr int kFloatTokens = 6;

struct Floats {
  __m256 a, b;
};
struct Ints {
  __m256i a, b;
};

inline __m128i load16(const std::byte* at) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}
inline __m256i load32(const std::byte* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

inline Floats splat(float x) {
  const __m256 v = _mm256_set1_ps(x);
  return {v, v};
}
inline Floats load_floats(const float* at) {
  return {_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)};
}
inline Floats load_floats(const std::byte* at) {
  return {_mm256_castsi256_ps(load32(at)), _mm256_castsi256_ps(load32(at + 32))};
}
inline __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline void store_floats(float* to, Floats x, int64_t n) {
  if (n == 16) {
    _mm256_storeu_ps(to, x.a);
    _mm256_storeu_ps(to + 8, x.b);
    return;
  }
  _mm256_maskstore_ps(to, first_lanes(n), x.a);
  if (n > 8) _mm256_maskstore_ps(to + 8, first_lanes(n - 8), x.b);
}
inline Floats load_halves(const std::byte* at) {
  return {_mm256_cvtph_ps(load16(at)), _mm256_cvtph_ps(load16(at + 16))};
}
inline __m256 widen_bf16(__m128i halves) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
inline Floats load_bf16s(const std::byte* at) {
  return {widen_bf16(load16(at)), widen_bf16(load16(at + 16))};
}
// e4m3 bits moved into a half are the value times 2^-8, subnormals included; 0x7f is a NaN.
inline __m256 widen_fp8(__m128i words) {
  const __m128i magnitude = _mm_and_si128(words, _mm_set1_epi16(0x7f));
  const __m128i sign = _mm_slli_epi16(_mm_and_si128(words, _mm_set1_epi16(0x80)), 8);
  const __m128i nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f));
  const __m128i half =
      _mm_or_si128(_mm_or_si128(sign, _mm_slli_epi16(magnitude, 7)), _mm_srli_epi16(nan, 1));
  return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
}
inline Floats load_fp8s(const std::byte* at) {
  const __m256i words = _mm256_cvtepu8_epi16(load16(at));
  return {widen_fp8(_mm256_castsi256_si128(words)), widen_fp8(_mm256_extracti128_si256(words, 1))};
}
inline Floats load_bytes(const std::byte* at) {
  const __m128i bytes = load16(at);
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
}
inline Floats fma(Floats x, Floats y, Floats z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline Floats operator+(Floats x, Floats y) {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
inline Floats operator-(Floats x, Floats y) {
  return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
inline Floats operator*(Floats x, Floats y) {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
inline Floats operator/(Floats x, Floats y) {
  return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
// The second operand where either is a NaN.
inline Floats min_second(Floats x, Floats y) {
  return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
inline Floats max_second(Floats x, Floats y) {
  return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}

inline Ints load_ints(const std::byte* at) {
  return {load32(at), load32(at + 32)};
}
template <int kShift, int kMask>
inline Ints bits_of(Ints x) {
  const __m256i mask = _mm256_set1_epi32(kMask);
  return {_mm256_and_si256(_mm256_srli_epi32(x.a, kShift), mask),
          _mm256_and_si256(_mm256_srli_epi32(x.b, kShift), mask)};
}
inline Floats to_floats(Ints x) {
  return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
}
inline Ints round_to_ints(Floats x) {  // to nearest even; |x| < 2^31
  return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)};
}
inline __m256 pow2_half(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
inline Floats pow2(Ints n) {  // 2^n for n in [-126, 127]
  return {pow2_half(n.a), pow2_half(n.b)};
}
inline int32_t largest_magnitude_bits(Floats x, Floats y) {
  const __m256i mask = _mm256_set1_epi32(0x7fffffff);
  const auto bits = [&](__m256 v) { return _mm256_and_si256(_mm256_castps_si256(v), mask); };
  const __m256i eight = _mm256_max_epu32(_mm256_max_epu32(bits(x.a), bits(x.b)),
                                         _mm256_max_epu32(bits(y.a), bits(y.b)));
  __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtsi128_si32(four);
}
inline int32_t store_int8s(int8_t* to, Ints x) {  // and their sum
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
  const __m128i bytes =
      _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
  const __m256i pairs = _mm256_add_epi32(x.a, x.b);
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtsi128_si32(four);
}

struct Table {
  __m256 low, high;
};
inline Table load_table(const float* entries) {
  return {_mm256_loadu_ps(entries), _mm256_loadu_ps(entries + 8)};
}
inline __m256 lookup_half(Table table, __m256i index) {
  const __m256 low = _mm256_permutevar8x32_ps(table.low, index);
  const __m256 high = _mm256_permutevar8x32_ps(table.high, index);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}
inline Floats lookup(Table table, Ints index) {
  return {lookup_half(table, index.a), lookup_half(table, index.b)};
}

inline void prefetch(const std::byte* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0);
}

inline __m256i broadcast4(const int8_t* at) {
  int32_t four;
  std::memcpy(&four, at, sizeof(four));
  return _mm256_set1_epi32(four);
}

struct DotTables {
  __m256i codes;  // of a codebook, unsigned: 128 is 0
};
inline DotTables load_dot_tables(const TileFormat& format) {
  const auto* codes = reinterpret_cast<const __m128i*>(format.codebook_codes);
  return {_mm256_broadcastsi128_si256(_mm_load_si128(codes))};
}

inline __m256i low_nibbles(__m256i codes) {
  return _mm256_and_si256(codes, _mm256_set1_epi8(15));
}
inline __m256i high_nibbles(__m256i codes) {
  return _mm256_and_si256(_mm256_srli_epi16(codes, 4), _mm256_set1_epi8(15));
}

}  // namespace
}  // namespace hotset::cpu
