// SPDX-License-Identifier: Apache-2.0
// Bodies of PackLoops on vectors of 32 bytes; included by one file per instruction set, which is
// why nothing here may be shared with other files. The compiler splits the vectors where registers
// are narrower. Shuffles are written as the instructions they should become.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/pack_loops.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace hotset {
namespace {

using Words4 = uint32_t __attribute__((vector_size(16)));
using Words8 = uint32_t __attribute__((vector_size(32)));
using Ints8 = int32_t __attribute__((vector_size(32)));
using Floats8 = float __attribute__((vector_size(32)));
using Halves8 = uint16_t __attribute__((vector_size(16)));
using Bytes32 = uint8_t __attribute__((vector_size(32)));
using Halves16 = uint16_t __attribute__((vector_size(32)));
using Longs4 = uint64_t __attribute__((vector_size(32)));
using Bytes8 = uint8_t __attribute__((vector_size(8)));

template <typename V>
V load_vector(const void* from) {
  V out;
  __builtin_memcpy(&out, from, sizeof(V));
  return out;
}

template <typename V>
void store_vector(void* to, const V& value) {
  __builtin_memcpy(to, &value, sizeof(V));
}

// Bytes 0213 of each word; on one word, four or eight.
template <typename V>
V middle_bytes_swapped(V x) {
#if defined(__AVX2__)
  if constexpr (sizeof(V) == 32) {
    const auto bytes = reinterpret_cast<Bytes32>(x);
    return reinterpret_cast<V>(__builtin_shufflevector(bytes, bytes, 0, 2, 1, 3, 4, 6, 5, 7, 8, 10,
                                                       9, 11, 12, 14, 13, 15, 16, 18, 17, 19, 20,
                                                       22, 21, 23, 24, 26, 25, 27, 28, 30, 29, 31));
  }
#endif
  return (x & 0xff0000ffu) | ((x >> 8) & 0x0000ff00u) | ((x << 8) & 0x00ff0000u);
}

// Bytes 1032 of each word.
template <typename V>
V pairs_swapped(V x) {
#if defined(__AVX2__)
  if constexpr (sizeof(V) == 32) {
    const auto bytes = reinterpret_cast<Bytes32>(x);
    return reinterpret_cast<V>(__builtin_shufflevector(bytes, bytes, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8,
                                                       11, 10, 13, 12, 15, 14, 17, 16, 19, 18, 21,
                                                       20, 23, 22, 25, 24, 27, 26, 29, 28, 31, 30));
  }
#endif
  return ((x >> 8) & 0x00ff00ffu) | ((x << 8) & 0xff00ff00u);
}

// The middle bytes change places, then the middle nibbles of each half: that is step_word(). With
// the high nibbles first, a step's even and odd columns have changed places too.
template <WordOrder order, typename V>
V ordered(V x) {
  if constexpr (order == WordOrder::kAsStored) return x;
  x = middle_bytes_swapped(x);
  const V moved = (x ^ (x >> 4)) & 0x00f000f0u;
  x = x ^ moved ^ (moved << 4);
  return order == WordOrder::kHighFirst ? pairs_swapped(x) : x;
}

template <WordOrder order>
void copy_steps_as(const std::byte* from, int64_t stride, int64_t num_steps, std::byte* to) {
  for (int64_t s = 0; s < num_steps; ++s, from += stride, to += 64) {
    store_vector(to, ordered<order>(load_vector<Words8>(from)));
    store_vector(to + 32, ordered<order>(load_vector<Words8>(from + 32)));
  }
}

void copy_steps(WordOrder order, const std::byte* from, int64_t stride, int64_t num_steps,
                std::byte* to) {
  switch (order) {
    case WordOrder::kAsStored:
      return copy_steps_as<WordOrder::kAsStored>(from, stride, num_steps, to);
    case WordOrder::kLowFirst:
      return copy_steps_as<WordOrder::kLowFirst>(from, stride, num_steps, to);
    case WordOrder::kHighFirst:
      return copy_steps_as<WordOrder::kHighFirst>(from, stride, num_steps, to);
  }
}

// Eight words of each of eight rows: column c goes to to + 64·c.
template <WordOrder order>
void turn_8x8(const std::byte* from, int64_t stride, std::byte* to) {
  Words8 a[8];
  Words8 b[8];
  for (int r = 0; r < 8; ++r) a[r] = ordered<order>(load_vector<Words8>(from + r * stride));
  for (int i = 0; i < 4; ++i) {
    const Words8 x = a[2 * i];
    const Words8 y = a[2 * i + 1];
    b[2 * i] = __builtin_shufflevector(x, y, 0, 8, 1, 9, 4, 12, 5, 13);
    b[2 * i + 1] = __builtin_shufflevector(x, y, 2, 10, 3, 11, 6, 14, 7, 15);
  }
  // a[4h+c] = column c, and c+4 in the upper half, of rows 4h … 4h+3
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 2; ++i) {
      const Words8 x = b[4 * h + i];
      const Words8 y = b[4 * h + 2 + i];
      a[4 * h + 2 * i] = __builtin_shufflevector(x, y, 0, 1, 8, 9, 4, 5, 12, 13);
      a[4 * h + 2 * i + 1] = __builtin_shufflevector(x, y, 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int c = 0; c < 4; ++c) {
    store_vector(to + 64 * c, __builtin_shufflevector(a[c], a[4 + c], 0, 1, 2, 3, 8, 9, 10, 11));
    store_vector(to + 64 * (c + 4),
                 __builtin_shufflevector(a[c], a[4 + c], 4, 5, 6, 7, 12, 13, 14, 15));
  }
}

// Four words of each of four rows.
template <WordOrder order>
void turn_4x4(const std::byte* from, int64_t stride, std::byte* to) {
  Words4 a[4];
  for (int r = 0; r < 4; ++r) a[r] = ordered<order>(load_vector<Words4>(from + r * stride));
  const Words4 low01 = __builtin_shufflevector(a[0], a[1], 0, 4, 1, 5);
  const Words4 high01 = __builtin_shufflevector(a[0], a[1], 2, 6, 3, 7);
  const Words4 low23 = __builtin_shufflevector(a[2], a[3], 0, 4, 1, 5);
  const Words4 high23 = __builtin_shufflevector(a[2], a[3], 2, 6, 3, 7);
  store_vector(to, __builtin_shufflevector(low01, low23, 0, 1, 4, 5));
  store_vector(to + 64, __builtin_shufflevector(low01, low23, 2, 3, 6, 7));
  store_vector(to + 128, __builtin_shufflevector(high01, high23, 0, 1, 4, 5));
  store_vector(to + 192, __builtin_shufflevector(high01, high23, 2, 3, 6, 7));
}

template <WordOrder order>
void turn_rows_as(const std::byte* from, int64_t stride, int64_t lanes, int64_t num_words,
                  std::byte* to) {
  int64_t done = 0;
  if (lanes == 16) {
    for (; done + 8 <= num_words; done += 8) {
      turn_8x8<order>(from + 4 * done, stride, to + 64 * done);
      turn_8x8<order>(from + 4 * done + 8 * stride, stride, to + 64 * done + 32);
    }
    for (; done + 4 <= num_words; done += 4) {
      for (int64_t r = 0; r < 16; r += 4) {
        turn_4x4<order>(from + 4 * done + r * stride, stride, to + 64 * done + 4 * r);
      }
    }
  }
  for (int64_t r = 0; r < lanes; ++r) {
    for (int64_t w = done; w < num_words; ++w) {
      const auto word = load_vector<uint32_t>(from + r * stride + 4 * w);
      store_vector(to + 64 * w + 4 * r, ordered<order>(word));
    }
  }
}

void turn_rows(WordOrder order, const std::byte* from, int64_t stride, int64_t lanes,
               int64_t num_words, std::byte* to) {
  switch (order) {
    case WordOrder::kAsStored:
      return turn_rows_as<WordOrder::kAsStored>(from, stride, lanes, num_words, to);
    case WordOrder::kLowFirst:
      return turn_rows_as<WordOrder::kLowFirst>(from, stride, lanes, num_words, to);
    case WordOrder::kHighFirst:
      return turn_rows_as<WordOrder::kHighFirst>(from, stride, lanes, num_words, to);
  }
}

// A step of four tiles. Nibbles of inputs j and j+4 pair up to bytes, even slots apart from odd
// ones; byte k of even[j] then belongs to slot 2k. Two rounds of interleaving bring a slot's four
// bytes together, and slots become outputs: 0,4,1,5 are the even ones, 2,6,3,7 the odd ones.
// A half of a vector is two tiles: e = even slots, o = odd slots of (tile, word) in order.
struct AwqSlots {
  Words8 word[4];  // tile 0 (2) word 0, word 1; tile 1 (3) word 0, word 1: a slot's bytes each
};

inline AwqSlots gather_slots(const Words8 pairs[4]) {
  const auto bytes = [&](int j) { return reinterpret_cast<Bytes32>(pairs[j]); };
  const auto low = [](Bytes32 x, Bytes32 y) {
    return reinterpret_cast<Halves16>(
        __builtin_shufflevector(x, y, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 16,
                                48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55));
  };
  const auto high = [](Bytes32 x, Bytes32 y) {
    return reinterpret_cast<Halves16>(
        __builtin_shufflevector(x, y, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47,
                                24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63));
  };
  const auto low16 = [](Halves16 x, Halves16 y) {
    return reinterpret_cast<Words8>(
        __builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27));
  };
  const auto high16 = [](Halves16 x, Halves16 y) {
    return reinterpret_cast<Words8>(
        __builtin_shufflevector(x, y, 4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15, 31));
  };
  const Halves16 low01 = low(bytes(0), bytes(1)), low23 = low(bytes(2), bytes(3));
  const Halves16 high01 = high(bytes(0), bytes(1)), high23 = high(bytes(2), bytes(3));
  return {
      {low16(low01, low23), high16(low01, low23), low16(high01, high23), high16(high01, high23)}};
}

inline void turn_awq_step(const std::byte* from, int64_t stride, std::byte* to,
                          int64_t tile_stride) {
  Words8 even[4];
  Words8 odd[4];
  for (int j = 0; j < 4; ++j) {
    const auto a = load_vector<Words8>(from + j * stride);
    const auto b = load_vector<Words8>(from + (j + 4) * stride);
    even[j] = (a & 0x0f0f0f0fu) | ((b & 0x0f0f0f0fu) << 4);
    odd[j] = ((a >> 4) & 0x0f0f0f0fu) | (b & 0xf0f0f0f0u);
  }
  const AwqSlots e = gather_slots(even);
  const AwqSlots o = gather_slots(odd);
  for (int tile = 0; tile < 2; ++tile) {
    for (int w = 0; w < 2; ++w) {
      const Words8 x = e.word[2 * tile + w];
      const Words8 y = o.word[2 * tile + w];
      const Words8 first = __builtin_shufflevector(x, y, 0, 2, 8, 10, 4, 6, 12, 14);
      const Words8 second = __builtin_shufflevector(x, y, 1, 3, 9, 11, 5, 7, 13, 15);
      store_vector(to + tile * tile_stride + 32 * w,
                   __builtin_shufflevector(first, second, 0, 1, 2, 3, 8, 9, 10, 11));
      store_vector(to + (tile + 2) * tile_stride + 32 * w,
                   __builtin_shufflevector(first, second, 4, 5, 6, 7, 12, 13, 14, 15));
    }
  }
}

void turn_awq(const std::byte* from, int64_t stride, int64_t num_steps, std::byte* to,
              int64_t tile_stride) {
  for (int64_t s = 0; s < num_steps; ++s, from += 8 * stride, to += 64) {
    turn_awq_step(from, stride, to, tile_stride);
    turn_awq_step(from + 32, stride, to + 4 * tile_stride, tile_stride);
  }
}

inline Words8 widened(Halves8 halves) {
#if defined(__AVX2__)
  return reinterpret_cast<Words8>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(halves)));
#else
  return __builtin_convertvector(halves, Words8);
#endif
}

inline Words8 f32_bits(Words8 bits) {
  return bits;
}

inline Words8 bf16_bits(Words8 halves) {
  return halves << 16;
}

// The exponent moves by a multiplication, which also makes subnormals normal; infinities and NaNs
// keep their mantissa under the larger exponent.
inline Words8 f16_bits(Words8 halves) {
  const Words8 magnitude = (halves & 0x7fffu) << 13;
  const Floats8 value = reinterpret_cast<Floats8>(magnitude) * 0x1p112f;
  const Words8 special = reinterpret_cast<Words8>(magnitude >= 0x0f800000u) & 0x7f800000u;
  return reinterpret_cast<Words8>(value) | special | ((halves & 0x8000u) << 16);
}

// Magnitudes compare as integers as they do as floats, and NaN is above all.
inline Ints8 larger(Ints8 x, Ints8 y) {
  return x > y ? x : y;
}

inline float largest_of(Ints8 all) {
  all = larger(all, __builtin_shufflevector(all, all, 4, 5, 6, 7, 0, 1, 2, 3));
  all = larger(all, __builtin_shufflevector(all, all, 2, 3, 0, 1, 6, 7, 4, 5));
  all = larger(all, __builtin_shufflevector(all, all, 1, 0, 3, 2, 5, 4, 7, 6));
  return __builtin_bit_cast(float, static_cast<int32_t>(all[0]));
}

// Eight stored values; past `count` there are zeros.
template <typename Stored>
Words8 load_stored(const std::byte* from, int64_t count) {
  Stored stored = {};
  if (count >= 8) {
    stored = load_vector<Stored>(from);
  } else if (count > 0) {
    __builtin_memcpy(&stored, from, static_cast<size_t>(count) * sizeof(Stored) / 8);
  }
  if constexpr (sizeof(Stored) == 16) {
    return widened(stored);
  } else {
    return stored;
  }
}

template <typename Stored, Words8 (*bits)(Words8)>
float widen(const std::byte* from, int64_t count, int64_t padded, float* to) {
  constexpr auto kSize = static_cast<int64_t>(sizeof(Stored) / 8);
  Ints8 best = {};
  const auto put = [&](int64_t i, int64_t left) {
    const Words8 value = bits(load_stored<Stored>(from + kSize * i, left));
    store_vector(to + i, value);
    best = larger(best, reinterpret_cast<Ints8>(value) & 0x7fffffff);
  };
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) put(i, 8);
  for (; i < padded; i += 8) put(i, count - i);
  return largest_of(best);
}

// Adding 0.5 rounds a subnormal half to its 2^-24.
float halve(const float* values, int64_t count, float factor, uint16_t* to) {
  constexpr uint32_t kHalf = 0x3f000000u;
  Ints8 best = {};
  for (int64_t i = 0; i < count; i += 8) {
    const int64_t left = count - i;
    const auto from = reinterpret_cast<const std::byte*>(values + i);
    const Floats8 value = reinterpret_cast<Floats8>(load_stored<Words8>(from, left)) * factor;
    const auto bits = reinterpret_cast<Words8>(value);
    const Words8 size = bits & 0x7fffffffu;
    best = larger(best, reinterpret_cast<Ints8>(size));
    const Words8 normal = (size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13;
    const Words8 tiny = reinterpret_cast<Words8>(reinterpret_cast<Floats8>(size) + 0.5f) - kHalf;
    const Words8 rounded = size < 0x38800000u ? tiny : normal;
    const auto halves = __builtin_convertvector(((bits >> 16) & 0x8000u) | rounded, Halves8);
    __builtin_memcpy(to + i, &halves, 2 * static_cast<size_t>(left < 8 ? left : 8));
  }
  return largest_of(best);
}

inline Floats8 magnitudes(Floats8 x) {
  return reinterpret_cast<Floats8>(reinterpret_cast<Words8>(x) & 0x7fffffffu);
}

// Sixteen words below 256 as bytes.
inline void store_bytes(Words8 first, Words8 second, uint8_t* to) {
#if defined(__AVX2__)
  const __m256i halves = _mm256_permute4x64_epi64(
      _mm256_packs_epi32(reinterpret_cast<__m256i>(first), reinterpret_cast<__m256i>(second)),
      0xd8);
  store_vector(
      to, _mm_packus_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
#elif defined(__SSE2__)
  const auto quarter = [](const Words8& v, int i) {
    return load_vector<__m128i>(reinterpret_cast<const char*>(&v) + 16 * i);
  };
  store_vector(to, _mm_packus_epi16(_mm_packs_epi32(quarter(first, 0), quarter(first, 1)),
                                    _mm_packs_epi32(quarter(second, 0), quarter(second, 1))));
#else
  store_vector(to, __builtin_convertvector(first, Bytes8));
  store_vector(to + 8, __builtin_convertvector(second, Bytes8));
#endif
}

template <bool clamp>
void quantize_as(const float* values, int64_t count, float scale, float inverse, uint8_t* codes,
                 Int8Sums& sums) {
  constexpr float kMagic = 12582912.0f;  // 1.5·2^23: adding and taking it away rounds to even
  constexpr int32_t kMagicBits = __builtin_bit_cast(int32_t, kMagic);
  Floats8 square_error[2], square_weight[2], max_error[2];
  for (int h = 0; h < 2; ++h) {
    square_error[h] = load_vector<Floats8>(sums.square_error + 8 * h);
    square_weight[h] = load_vector<Floats8>(sums.square_weight + 8 * h);
    max_error[h] = load_vector<Floats8>(sums.max_error + 8 * h);
  }
  for (int64_t i = 0; i < count; i += 16) {
    Words8 code[2];
    for (int h = 0; h < 2; ++h) {
      const auto value = load_vector<Floats8>(values + i + 8 * h);
      auto shifted = reinterpret_cast<Ints8>(value * inverse + kMagic);
      if constexpr (clamp) {
        const Ints8 low = Ints8{} + (kMagicBits - 127);
        const Ints8 high = Ints8{} + (kMagicBits + 127);
        shifted = shifted > low ? shifted : low;
        shifted = shifted < high ? shifted : high;
      }
      code[h] = reinterpret_cast<Words8>(shifted - (kMagicBits - 128));
      const Floats8 rounded = reinterpret_cast<Floats8>(shifted) - kMagic;
      const Floats8 error = magnitudes(rounded * scale - value);
      max_error[h] = error > max_error[h] ? error : max_error[h];
      square_error[h] += error * error;
      square_weight[h] += value * value;
    }
    store_bytes(code[0], code[1], codes + i);
  }
  for (int h = 0; h < 2; ++h) {
    store_vector(sums.square_error + 8 * h, square_error[h]);
    store_vector(sums.square_weight + 8 * h, square_weight[h]);
    store_vector(sums.max_error + 8 * h, max_error[h]);
  }
}

// A half scale of 2^-17 or more is within 1/256 of the largest value's 127th, so that no code
// rounds past 127.
void quantize(const float* values, int64_t count, float scale, float inverse, uint8_t* codes,
              Int8Sums& sums) {
  if (scale >= 0x1p-17f) {
    quantize_as<false>(values, count, scale, inverse, codes, sums);
  } else {
    quantize_as<true>(values, count, scale, inverse, codes, sums);
  }
}

constexpr PackLoops make_pack_loops(const char* name) {
  return {.name = name,
          .copy_steps = copy_steps,
          .turn_rows = turn_rows,
          .turn_awq = turn_awq,
          .widen_bf16 = widen<Halves8, bf16_bits>,
          .widen_f16 = widen<Halves8, f16_bits>,
          .widen_f32 = widen<Words8, f32_bits>,
          .halve = halve,
          .quantize = quantize};
}

}  // namespace
}  // namespace hotset
