// SPDX-License-Identifier: Apache-2.0
// matmul_lanes.h in plain C++: the oracle of the others, and what runs on any processor.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/float16.h"
#include "kernels/cpu/matmul_kernels.h"

namespace hotset::cpu {
namespace {

constexpr int kIntegerTokens = 4;  // tokens of one pass over a tile
constexpr int kFloatTokens = 4;

struct Floats {
  float v[16];
};
struct Ints {
  int32_t v[16];
};

template <typename To, typename F>
inline To per_lane(F f) {
  To out;
  for (int i = 0; i < 16; ++i) out.v[i] = f(i);
  return out;
}
template <typename T>
inline T value_at(const std::byte* at, int64_t index) {
  T value;
  std::memcpy(&value, at + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

inline Floats splat(float x) {
  return per_lane<Floats>([&](int) { return x; });
}
inline Floats load_floats(const std::byte* at) {
  return per_lane<Floats>([&](int i) { return value_at<float>(at, i); });
}
inline Floats load_floats(const float* at) {
  return per_lane<Floats>([&](int i) { return at[i]; });
}
inline void store_floats(float* to, Floats a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = a.v[i];
}
inline Floats load_halves(const std::byte* at) {
  return per_lane<Floats>([&](int i) { return half_to_float(value_at<uint16_t>(at, i)); });
}
inline Floats load_bf16s(const std::byte* at) {
  return per_lane<Floats>([&](int i) { return bf16_to_float(value_at<uint16_t>(at, i)); });
}
inline Floats load_fp8s(const std::byte* at) {
  return per_lane<Floats>([&](int i) { return e4m3_to_float(value_at<uint8_t>(at, i)); });
}
inline Floats load_bytes(const std::byte* at) {
  return per_lane<Floats>([&](int i) { return static_cast<float>(value_at<uint8_t>(at, i)); });
}
inline Floats fma(Floats a, Floats b, Floats c) {
  return per_lane<Floats>([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
inline Floats operator+(Floats a, Floats b) {
  return per_lane<Floats>([&](int i) { return a.v[i] + b.v[i]; });
}
inline Floats operator-(Floats a, Floats b) {
  return per_lane<Floats>([&](int i) { return a.v[i] - b.v[i]; });
}
inline Floats operator*(Floats a, Floats b) {
  return per_lane<Floats>([&](int i) { return a.v[i] * b.v[i]; });
}
inline Floats operator/(Floats a, Floats b) {
  return per_lane<Floats>([&](int i) { return a.v[i] / b.v[i]; });
}
// The second operand where either is a NaN, as the SSE instructions have it.
inline Floats min_second(Floats a, Floats b) {
  return per_lane<Floats>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Floats max_second(Floats a, Floats b) {
  return per_lane<Floats>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}

inline Ints load_ints(const std::byte* at) {
  return per_lane<Ints>([&](int i) { return value_at<int32_t>(at, i); });
}
template <int kShift, int kMask>
inline Ints bits_of(Ints a) {
  return per_lane<Ints>([&](int i) {
    return static_cast<int32_t>((static_cast<uint32_t>(a.v[i]) >> kShift) & kMask);
  });
}
inline Floats to_floats(Ints a) {
  return per_lane<Floats>([&](int i) { return static_cast<float>(a.v[i]); });
}
inline Ints round_to_ints(Floats a) {  // to nearest even; INT32_MIN where that doesn't fit
  return per_lane<Ints>([&](int i) {
    return std::fabs(a.v[i]) < 0x1p31f ? static_cast<int32_t>(std::nearbyint(a.v[i])) : INT32_MIN;
  });
}
inline Floats pow2(Ints n) {  // 2^n for n in [-126, 127]
  return per_lane<Floats>(
      [&](int i) { return std::bit_cast<float>((static_cast<uint32_t>(n.v[i]) + 127u) << 23); });
}
inline int32_t largest_magnitude_bits(Floats a, Floats b) {
  uint32_t most = 0;
  for (int i = 0; i < 16; ++i) {
    for (const float x : {a.v[i], b.v[i]}) {
      const uint32_t bits = std::bit_cast<uint32_t>(x) & 0x7fffffffu;
      most = bits > most ? bits : most;
    }
  }
  return static_cast<int32_t>(most);
}
inline int32_t store_int8s(int8_t* to, Ints a) {  // and their sum
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) {
    to[i] = static_cast<int8_t>(a.v[i]);
    sum += a.v[i];
  }
  return sum;
}

struct Table {
  const float* entries;
};
inline Table load_table(const float* entries) {
  return {entries};
}
inline Floats lookup(Table table, Ints index) {
  return per_lane<Floats>([&](int i) { return table.entries[index.v[i]]; });
}

inline int32_t signed_code(CodeKind code, const TileFormat& format, uint8_t byte, bool high) {
  if (code == CodeKind::kInt8) return byte - 128;
  const int nibble = high ? byte >> 4 : byte & 15;
  if (code == CodeKind::kAffine4) return nibble;
  return format.codebook_codes[nibble] - 128;
}

struct DotTables {
  const TileFormat& format;
};
inline DotTables load_dot_tables(const TileFormat& format) {
  return {format};
}

// dot[t] = Σ over 8·steps columns of code · q[t]; codes are u (kAffine4), u − 128 (kInt8), the
// rounded codebook entry (kCodebook4). sum[t] = Σ q[t], for those who need it.
template <CodeKind kCode, int kTokens>
inline void dot_block(const DotTables& tables, const std::byte* codes, int64_t steps,
                      const int8_t* const* q, const int32_t*, Ints* dot) {
  for (int t = 0; t < kTokens; ++t) dot[t] = {};
  constexpr bool kPair = kCode != CodeKind::kInt8;  // two columns in a byte
  for (int64_t vec = 0; vec < 2 * steps; ++vec) {
    const std::byte* at = codes + 64 * (kPair ? vec / 2 : vec);
    for (int i = 0; i < 64; ++i) {
      const int32_t w =
          signed_code(kCode, tables.format, value_at<uint8_t>(at, i), kPair && vec % 2 == 1);
      for (int t = 0; t < kTokens; ++t) dot[t].v[i / 4] += w * q[t][4 * vec + i % 4];
    }
  }
}

inline void prefetch(const std::byte*) {}

}  // namespace
}  // namespace hotset::cpu
