// SPDX-License-Identifier: Apache-2.0
// One SIMD vector of floats, as wide as the instruction set that the including file is compiled
// for: 16 lanes with AVX-512, 8 with AVX2+FMA, and 8 plain floats else (the readable oracle). The
// bodies of the operations (*_kernels.h) are written once against it and compiled per instruction
// set.
//
// Everything here has internal linkage: the same name means different code in different files, and
// code built for AVX must never be picked by the linker for a machine without it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) || defined(__AVX512F__)
// g++ 12 takes the "any value" operands of its own AVX-512 intrinsics for mistakes.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include "base/float16.h"

namespace hotset::cpu {
namespace {

#if defined(__AVX512F__)

struct Vec {
  static constexpr int64_t kLanes = 16;
  __m512 v;
};
inline __mmask16 lane_mask(int64_t n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}
inline Vec load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
inline Vec load_n(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(lane_mask(n), p)};
}
inline void store(float* p, Vec a) {
  _mm512_storeu_ps(p, a.v);
}
inline void store_n(float* p, Vec a, int64_t n) {
  _mm512_mask_storeu_ps(p, lane_mask(n), a.v);
}
inline Vec splat(float x) {
  return {_mm512_set1_ps(x)};
}
inline Vec operator+(Vec a, Vec b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline Vec operator-(Vec a, Vec b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
inline Vec operator*(Vec a, Vec b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
inline Vec operator/(Vec a, Vec b) {
  return {_mm512_div_ps(a.v, b.v)};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline Vec max(Vec a, Vec b) {
  return {_mm512_max_ps(a.v, b.v)};
}
inline float sum(Vec a) {
  return _mm512_reduce_add_ps(a.v);
}
// out[0 … 3] = the sums of four vectors.
inline void store_sums(float* out, const Vec* v) {
  __m256 h[4];
  for (int64_t i = 0; i < 4; ++i) {
    h[i] = _mm256_add_ps(_mm512_castps512_ps256(v[i].v), _mm512_extractf32x8_ps(v[i].v, 1));
  }
  const __m256 t = _mm256_hadd_ps(_mm256_hadd_ps(h[0], h[1]), _mm256_hadd_ps(h[2], h[3]));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1)));
}
inline float largest(Vec a) {
  return _mm512_reduce_max_ps(a.v);
}
inline Vec load_bf16(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}
inline Vec load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
// x·2^n for whole n in [-126, 127].
inline Vec scale_pow2(Vec x, Vec n) {
  const __m512i bits =
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23);
  return {_mm512_mul_ps(x.v, _mm512_castsi512_ps(bits))};
}
inline Vec round_nearest(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// min/max that keep a NaN of the second operand.
inline Vec clamp_keep_nan(Vec x, float low, float high) {
  return {_mm512_max_ps(_mm512_set1_ps(low), _mm512_min_ps(_mm512_set1_ps(high), x.v))};
}
inline Vec zero_where_below(Vec x, float limit, Vec value) {
  return {
      _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(limit), _CMP_NLT_UQ), value.v)};
}

#elif defined(__AVX2__)

struct Vec {
  static constexpr int64_t kLanes = 8;
  __m256 v;
};
inline __m256i lane_mask(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec load(const float* p) {
  return {_mm256_loadu_ps(p)};
}
inline Vec load_n(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, lane_mask(n))};
}
inline void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.v);
}
inline void store_n(float* p, Vec a, int64_t n) {
  _mm256_maskstore_ps(p, lane_mask(n), a.v);
}
inline Vec splat(float x) {
  return {_mm256_set1_ps(x)};
}
inline Vec operator+(Vec a, Vec b) {
  return {_mm256_add_ps(a.v, b.v)};
}
inline Vec operator-(Vec a, Vec b) {
  return {_mm256_sub_ps(a.v, b.v)};
}
inline Vec operator*(Vec a, Vec b) {
  return {_mm256_mul_ps(a.v, b.v)};
}
inline Vec operator/(Vec a, Vec b) {
  return {_mm256_div_ps(a.v, b.v)};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
inline Vec max(Vec a, Vec b) {
  return {_mm256_max_ps(a.v, b.v)};
}
inline float sum(Vec a) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
// out[0 … 3] = the sums of four vectors.
inline void store_sums(float* out, const Vec* v) {
  const __m256 t = _mm256_hadd_ps(_mm256_hadd_ps(v[0].v, v[1].v), _mm256_hadd_ps(v[2].v, v[3].v));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1)));
}
inline float largest(Vec a) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline Vec load_bf16(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16))};
}
inline Vec load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline Vec scale_pow2(Vec x, Vec n) {
  const __m256i bits =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23);
  return {_mm256_mul_ps(x.v, _mm256_castsi256_ps(bits))};
}
inline Vec round_nearest(Vec a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec clamp_keep_nan(Vec x, float low, float high) {
  return {_mm256_max_ps(_mm256_set1_ps(low), _mm256_min_ps(_mm256_set1_ps(high), x.v))};
}
inline Vec zero_where_below(Vec x, float limit, Vec value) {
  return {_mm256_and_ps(_mm256_cmp_ps(x.v, _mm256_set1_ps(limit), _CMP_NLT_UQ), value.v)};
}

#else

struct Vec {
  static constexpr int64_t kLanes = 8;
  float v[kLanes];
};
template <typename F>
inline Vec per_lane(F f) {
  Vec r;
  for (int64_t i = 0; i < Vec::kLanes; ++i) r.v[i] = f(i);
  return r;
}
inline Vec load_n(const float* p, int64_t n) {
  return per_lane([&](int64_t i) { return i < n ? p[i] : 0.0f; });
}
inline Vec load(const float* p) {
  return per_lane([&](int64_t i) { return p[i]; });
}
inline void store_n(float* p, Vec a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = a.v[i];
}
inline void store(float* p, Vec a) {
  store_n(p, a, Vec::kLanes);
}
inline Vec splat(float x) {
  return per_lane([&](int64_t) { return x; });
}
inline Vec operator+(Vec a, Vec b) {
  return per_lane([&](int64_t i) { return a.v[i] + b.v[i]; });
}
inline Vec operator-(Vec a, Vec b) {
  return per_lane([&](int64_t i) { return a.v[i] - b.v[i]; });
}
inline Vec operator*(Vec a, Vec b) {
  return per_lane([&](int64_t i) { return a.v[i] * b.v[i]; });
}
inline Vec operator/(Vec a, Vec b) {
  return per_lane([&](int64_t i) { return a.v[i] / b.v[i]; });
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return per_lane([&](int64_t i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline Vec max(Vec a, Vec b) {
  return per_lane([&](int64_t i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline float sum(Vec a) {
  float s = 0.0f;
  for (float x : a.v) s += x;
  return s;
}
inline void store_sums(float* out, const Vec* v) {
  for (int64_t i = 0; i < 4; ++i) out[i] = sum(v[i]);
}
inline float largest(Vec a) {
  float s = a.v[0];
  for (float x : a.v) s = x > s ? x : s;
  return s;
}
inline Vec load_bf16(const uint16_t* p) {
  return per_lane([&](int64_t i) { return bf16_to_float(p[i]); });
}
inline Vec load_half(const uint16_t* p) {
  return per_lane([&](int64_t i) { return half_to_float(p[i]); });
}

#endif

#if defined(__AVX2__) || defined(__AVX512F__)

// e^x, within 2 units in the last place; 0 below -87.3, at most 2.4e38 above, NaN stays NaN.
// x = n·ln2 + r with |r| <= ln2/2, then a minimax polynomial of e^r (degree 7).
inline Vec exp(Vec x) {
  constexpr float kLowest = -87.3f;
  const Vec c = clamp_keep_nan(x, kLowest, 88.3f);
  const Vec n = round_nearest(c * splat(1.44269504088896341f));
  Vec r = fma(n, splat(-0.693359375f), c);
  r = fma(n, splat(2.12194440e-4f), r);
  Vec p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p * r, r, r + splat(1.0f));
  return zero_where_below(x, kLowest, scale_pow2(p, n));
}

#else

inline Vec exp(Vec x) {
  return per_lane([&](int64_t i) { return std::exp(x.v[i]); });
}

#endif

inline Vec zero() {
  return splat(0.0f);
}
inline Vec sigmoid(Vec x) {
  return splat(1.0f) / (splat(1.0f) + exp(zero() - x));
}
inline Vec silu(Vec x) {
  return x / (splat(1.0f) + exp(zero() - x));
}

// Calls body(offset, lanes) over [0, n) in full vectors, then once for the rest.
template <typename F>
inline void for_lanes(int64_t n, F body) {
  int64_t i = 0;
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) body(i, Vec::kLanes);
  if (i < n) body(i, n - i);
}
inline Vec load_some(const float* p, int64_t n) {
  return n == Vec::kLanes ? load(p) : load_n(p, n);
}
inline void store_some(float* p, Vec a, int64_t n) {
  n == Vec::kLanes ? store(p, a) : store_n(p, a, n);
}

}  // namespace
}  // namespace hotset::cpu
