// SPDX-License-Identifier: Apache-2.0
// The pieces that integer kernels are made of. One mma.m16n8k32 multiplies a sub-block of a tile
// (16 rows × 32 columns) with 8 tokens. Lane l = 4r + c of a warp reads the tile as it lies,
// without a detour: 8 bytes that hold columns 8c … 8c+7 of rows 2r and 2r+1. The matrix unit is
// told that row r of its own is row 2r, row r+8 is row 2r+1, and that its columns 4c…, 16+4c… are
// 8c…, 8c+4…; the input is then 8 bytes in a row as well. What a lane gets back:
//
//   d[0], d[1]: row 2r, tokens 2c, 2c+1        d[2], d[3]: row 2r+1, tokens 2c, 2c+1
//
// The fp32 operations of a row are those of kernels/cpu/matmul_integer_body.h in the same order, so
// results have the CPU's bits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/codebook.cuh"
#include "kernels/cuda/matmul_layout.h"
#include "kernels/cuda/warp.cuh"

namespace hotset::cuda {

__device__ inline float scale_at(const std::byte* group, ScaleKind kind, int row) {
  switch (kind) {
    case ScaleKind::kF16:
      return __half2float(__ldg(reinterpret_cast<const __half*>(group) + row));
    case ScaleKind::kBF16:
      return __uint_as_float(
          static_cast<uint32_t>(__ldg(reinterpret_cast<const uint16_t*>(group) + row)) << 16);
    case ScaleKind::kF32:
      return __ldg(reinterpret_cast<const float*>(group) + row);
    case ScaleKind::kNone:
      break;
  }
  return 1.0f;
}

__device__ inline float zero_at(const TileLayout& f, const std::byte* group, int row) {
  if (!f.has_zeros) return f.zero;
  return static_cast<float>(__ldg(reinterpret_cast<const uint8_t*>(group) + f.zeros_offset + row));
}

// ── Rounding and SwiGLU: kernels/cpu/matmul_rows_body.h, operation by operation ─────────────────

__device__ inline float exponential(float x) {
  const float below = 88.0f < x ? 88.0f : x;  // a NaN stays
  const float limited = -87.0f > below ? -87.0f : below;
  const int n = __float2int_rn(__fmul_rn(limited, 1.44269504f));
  const float whole = __int2float_rn(n);
  float r = __fmaf_rn(whole, -0.693145752f, limited);
  r = __fmaf_rn(whole, -1.42860677e-6f, r);
  float p = 1.0f / 5040;
  p = __fmaf_rn(p, r, 1.0f / 720);
  p = __fmaf_rn(p, r, 1.0f / 120);
  p = __fmaf_rn(p, r, 1.0f / 24);
  p = __fmaf_rn(p, r, 1.0f / 6);
  p = __fmaf_rn(p, r, 0.5f);
  p = __fmaf_rn(p, r, 1.0f);
  p = __fmaf_rn(p, r, 1.0f);
  return __fmul_rn(p, __uint_as_float(static_cast<uint32_t>(n + 127) << 23));
}

__device__ inline float silu_mul(float gate, float up) {
  const float sigmoid = __fdiv_rn(1.0f, __fadd_rn(1.0f, exponential(__fsub_rn(0.0f, gate))));
  return __fmul_rn(__fmul_rn(gate, sigmoid), up);
}

struct RoundedValue {
  int q = 0;        // of this lane
  float scale = 0;  // of the sub-block
  int sum = 0;
};

// From the bits of a sub-block's largest magnitude.
struct SubBlockScale {
  float scale;
  float factor;
  bool all_zero;

  __device__ int rounded(float value) const {
    return all_zero ? 0 : __float2int_rn(__fmul_rn(value, factor));
  }
};
__device__ inline SubBlockScale sub_block_scale(uint32_t bits) {
  const bool finite = bits < 0x7f800000u, tiny = bits < 0x08000000u;
  if (!finite || tiny) return {finite ? 0.0f : __uint_as_float(0x7fc00000u), 0.0f, true};
  const float most = __uint_as_float(bits);
  return {__fdiv_rn(most, 127.0f), __fdiv_rn(127.0f, most), false};
}

// A warp rounds one sub-block, a column a lane; columns that are not there are zeros.
__device__ inline RoundedValue round_sub_block(float value) {
  const unsigned bits = __reduce_max_sync(kAllLanes, __float_as_uint(value) & 0x7fffffffu);
  const SubBlockScale scale = sub_block_scale(bits);
  const int q = scale.rounded(value);
  return {q, scale.scale, __reduce_add_sync(kAllLanes, q)};
}

// Lane `lane`'s value of sub-block s of a row: x, or silu(x) ∘ up.
__device__ inline float sub_block_value(const RoundedCut& cut, const int32_t* order, const float* x,
                                        const float* up, int s, int lane) {
  const int g = s / cut.subs_per_group;
  const int in_group = kSubBlock * (s - g * cut.subs_per_group) + lane;
  const int64_t col = static_cast<int64_t>(g) * cut.group + in_group;
  if (in_group >= cut.group || col >= cut.cols) return 0.0f;
  const int64_t at = order != nullptr ? order[col] : col;
  return up != nullptr ? silu_mul(x[at], up[at]) : x[at];
}

// A warp rounds the sub-blocks 4·quad … 4·quad+3 of a row that is read in order and cut every 32
// columns, eight lanes each and four columns a lane.
__device__ inline void round_quad(const RoundedCut& cut, float4 v, int quad, int lane, int8_t* q,
                                  float* meta) {
  const auto magnitude = [](float x) { return __float_as_uint(x) & 0x7fffffffu; };
  unsigned bits = max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w)));
#pragma unroll
  for (int step = 1; step < 8; step *= 2) {
    bits = max(bits, __shfl_xor_sync(kAllLanes, bits, step));
  }
  const float most = __uint_as_float(bits);
  const bool finite = bits < 0x7f800000u;
  const bool counts = finite && bits >= 0x08000000u;
  const float factor = counts ? __fdiv_rn(127.0f, most) : 0.0f;
  const auto code = [&](float x) { return counts ? __float2int_rn(__fmul_rn(x, factor)) : 0; };
  const int a = code(v.x), b = code(v.y), c = code(v.z), d = code(v.w);
  int sum = a + b + c + d;
#pragma unroll
  for (int step = 1; step < 8; step *= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  const int sub = 4 * quad + lane / 8;
  if (sub >= cut.num_subs()) return;
  const int packed = (a & 0xff) | (b & 0xff) << 8 | (c & 0xff) << 16 | d << 24;
  *reinterpret_cast<int*>(q + kSubBlock * sub + 4 * (lane % 8)) = packed;
  if (lane % 8 == 0) {
    const float scale = counts   ? __fdiv_rn(most, 127.0f)
                        : finite ? 0.0f
                                 : __uint_as_float(0x7fc00000u);
    *reinterpret_cast<float2*>(meta + 2 * sub) = {scale, static_cast<float>(sum)};
  }
}

// Part `first` of `stride` of such a row. Loads of two quads are under way at once.
__device__ inline void round_plain_row(const RoundedCut& cut, const float* x, int first, int stride,
                                       int lane, int8_t* q, float* meta) {
  constexpr int kAtOnce = 2;
  const int num_quads = (cut.num_subs() + 3) / 4;
  for (int quad = first; quad < num_quads; quad += kAtOnce * stride) {
    float4 values[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int col = 4 * (kWarp * (quad + i * stride) + lane);
      values[i] = col < cut.cols ? *reinterpret_cast<const float4*>(x + col) : float4{0, 0, 0, 0};
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (quad + i * stride >= num_quads) break;
      round_quad(cut, values[i], quad + i * stride, lane, q, meta);
    }
  }
}

// Rounds a row's share `first` of `stride`, a warp each.
__device__ inline void round_row(const RoundedCut& cut, const int32_t* order, const float* x,
                                 const float* up, int first, int stride, int lane, int8_t* q,
                                 float* meta) {
  const bool plain = order == nullptr && up == nullptr && cut.group % kSubBlock == 0 &&
                     cut.cols % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
  if (plain) return round_plain_row(cut, x, first, stride, lane, q, meta);
  constexpr int kAtOnce = 4;
  const int num_subs = cut.num_subs();
  for (int s = first; s < num_subs; s += kAtOnce * stride) {
    float value[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int sub = s + i * stride;
      value[i] = sub < num_subs ? sub_block_value(cut, order, x, up, sub, lane) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int sub = s + i * stride;
      if (sub >= num_subs) break;
      const RoundedValue rounded = round_sub_block(value[i]);
      q[kSubBlock * sub + lane] = static_cast<int8_t>(rounded.q);
      if (lane == 0) {
        *reinterpret_cast<float2*>(meta + 2 * sub) = {rounded.scale,
                                                      static_cast<float>(rounded.sum)};
      }
    }
  }
}

// A warp asks for `bytes` bytes to come to the L2 cache.
__device__ inline void prefetch_bytes(const std::byte* from, int64_t bytes, int lane) {
  constexpr int kLine = 128;
  for (int64_t at = static_cast<int64_t>(lane) * kLine; at < bytes; at += kWarp * kLine) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
  }
}

// ── Codes to matrix fragments ───────────────────────────────────────────────────────────────────

template <CodeKind kCode>
inline constexpr int kSubBytes = kCode == CodeKind::kInt8 ? 512 : 256;

// What one lane has of a sub-block's codes: rows 2r and 2r+1, columns 8c … 8c+7.
template <CodeKind kCode>
struct LaneCodes {
  uint2 words[kCode == CodeKind::kInt8 ? 2 : 1];
};

// Byte offsets of a lane's words inside a sub-block of codes.
template <CodeKind kCode>
HS_BOTH constexpr int lane_code_offset(int lane, int word) {
  const int r = lane / 4, c = lane % 4;
  return (kCode == CodeKind::kInt8 ? 2 * c + word : c) * 64 + 8 * r;
}

// Read once, so the cache keeps other things.
template <CodeKind kCode>
__device__ inline LaneCodes<kCode> load_codes(const std::byte* codes, int steps, int lane) {
  LaneCodes<kCode> lane_codes = {};
  if (lane % 4 < steps) {
#pragma unroll
    for (int w = 0; w < (kCode == CodeKind::kInt8 ? 2 : 1); ++w) {
      lane_codes.words[w] =
          __ldcs(reinterpret_cast<const uint2*>(codes + lane_code_offset<kCode>(lane, w)));
    }
  }
  return lane_codes;
}

struct Fragment {
  uint32_t a[4];
};

template <CodeKind kCode>
__device__ inline Fragment fragment(const LaneCodes<kCode>& codes, const Codebook& book) {
  constexpr uint32_t kLow = 0x0f0f0f0fu;
  const uint2 w = codes.words[0];
  if constexpr (kCode == CodeKind::kInt8) {
    constexpr uint32_t kMiddle = 0x80808080u;
    const uint2 v = codes.words[1];
    return {{w.x ^ kMiddle, w.y ^ kMiddle, v.x ^ kMiddle, v.y ^ kMiddle}};
  } else if constexpr (kCode == CodeKind::kAffine4) {
    return {{w.x & kLow, w.y & kLow, (w.x >> 4) & kLow, (w.y >> 4) & kLow}};
  } else {
    const uint2 first = look_up(book.codes, w.x), second = look_up(book.codes, w.y);
    return {{first.x, second.x, first.y, second.y}};
  }
}

// start + a·b, the start the same everywhere.
__device__ inline void mma_int8(int (&d)[4], const Fragment& a, uint2 b, int start) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%10,%10,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a.a[0]), "r"(a.a[1]), "r"(a.a[2]), "r"(a.a[3]), "r"(b.x), "r"(b.y), "r"(start));
}

// d + a·b
__device__ inline void add_mma_int8(int (&d)[4], const Fragment& a, uint2 b) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a.a[0]), "r"(a.a[1]), "r"(a.a[2]), "r"(a.a[3]), "r"(b.x), "r"(b.y));
}

// A sum that starts from the bits of 1.5·2^23 is that float plus the sum, up to ±2^22; the largest
// is 128·127·32.
inline constexpr int kSumStartBits = 0x4b400000;
__device__ inline void sums_as_floats(const int (&d)[4], float (&out)[4]) {
  constexpr float kStart = 12582912.0f;
#pragma unroll
  for (int i = 0; i < 4; ++i) out[i] = __fsub_rn(__int_as_float(d[i]), kStart);
}

// Dot products of a sub-block with 8 tokens as floats.
__device__ inline void sub_dots(const Fragment& codes, uint2 q, float (&out)[4]) {
  int d[4];
  mma_int8(d, codes, q, kSumStartBits);
  sums_as_floats(d, out);
}

// The same for codes that few tokens use: two products are quicker than a choice between the halves
// of a codebook, and putting the columns of the input in the order of the nibbles (0, 4, 1, 5, 2,
// 6, 3, 7) quicker than those of the codes.
template <CodeKind kCode>
struct SubFragments {
  static constexpr bool kIsBook = kCode == CodeKind::kCodebook4;
  Fragment part[kIsBook ? 2 : 1];

  __device__ SubFragments(const LaneCodes<kCode>& codes, const CodebookTables& tables) {
    if constexpr (kIsBook) {
      const uint2 w = codes.words[0];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t flip = half == 0 ? 0u : 0x88888888u;
        const uint32_t low = tables.codes[2 * half], high = tables.codes[2 * half + 1];
        const uint32_t x = w.x ^ flip, y = w.y ^ flip;
        part[half] = {{permuted(low, high, x), permuted(low, high, y), permuted(low, high, x >> 16),
                       permuted(low, high, y >> 16)}};
      }
    } else {
      part[0] = fragment<kCode>(codes, Codebook{});
    }
  }
  __device__ void dots(uint2 q, float (&out)[4]) const {
    if constexpr (kIsBook) {
      const uint2 in_order = {permuted(q.x, q.y, 0x5140), permuted(q.x, q.y, 0x7362)};
      int d[4];
      mma_int8(d, part[0], in_order, kSumStartBits);
      add_mma_int8(d, part[1], in_order);
      sums_as_floats(d, out);
    } else {
      sub_dots(part[0], q, out);
    }
  }
};

// ── What a group block says of rows 2r and 2r+1 ─────────────────────────────────────────────────

struct GroupRows {
  float scale[2];
  float minus_zero[2];
};

// As stored, so that nothing waits for them before they are needed.
struct StoredRows {
  uint2 scale;    // two of 16 bits in x, or two of 32
  uint32_t zero;  // two of 8 bits
};

template <CodeKind kCode>
__device__ inline bool needs_zero(const TileLayout& f) {
  if constexpr (kCode == CodeKind::kCodebook4) return false;
  return f.has_zeros || f.zero != (kCode == CodeKind::kInt8 ? 128.0f : 0.0f);
}

__device__ inline StoredRows load_rows(const TileLayout& f, const std::byte* group, int lane) {
  const int pair = lane / 4;
  StoredRows rows = {};
  if (f.scale == ScaleKind::kF32) {
    rows.scale = __ldg(reinterpret_cast<const uint2*>(group) + pair);
  } else if (f.scale != ScaleKind::kNone) {
    rows.scale.x = __ldg(reinterpret_cast<const uint32_t*>(group) + pair);
  }
  if (f.has_zeros) {
    rows.zero = __ldg(reinterpret_cast<const uint16_t*>(group + f.zeros_offset) + pair);
  }
  return rows;
}

__device__ inline float half_bits(uint32_t bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits & 0xffffu)));
}

// What the scales mean to the products.
template <CodeKind kCode>
__device__ inline GroupRows group_rows_of(const TileLayout& f, float scale0, float scale1,
                                          uint32_t zeros, float codebook_step) {
  constexpr float kOffset = kCode == CodeKind::kInt8 ? 128.0f : 0.0f;
  GroupRows rows = {{scale0, scale1}, {0.0f, 0.0f}};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if constexpr (kCode == CodeKind::kCodebook4) {
      rows.scale[i] = __fmul_rn(rows.scale[i], codebook_step);
    } else {
      const float zero = f.has_zeros ? static_cast<float>((zeros >> (8 * i)) & 0xffu) : f.zero;
      rows.minus_zero[i] = __fsub_rn(kOffset, zero);
    }
  }
  return rows;
}

template <CodeKind kCode>
__device__ inline GroupRows group_rows(const TileLayout& f, const StoredRows& stored,
                                       float codebook_step) {
  float scale[2] = {1.0f, 1.0f};
  const uint32_t bits = stored.scale.x;
  switch (f.scale) {
    case ScaleKind::kNone:
      break;
    case ScaleKind::kF16:
      scale[0] = half_bits(bits);
      scale[1] = half_bits(bits >> 16);
      break;
    case ScaleKind::kBF16:
      scale[0] = __uint_as_float(bits << 16);
      scale[1] = __uint_as_float(bits & 0xffff0000u);
      break;
    case ScaleKind::kF32:
      scale[0] = __uint_as_float(bits);
      scale[1] = __uint_as_float(stored.scale.y);
      break;
  }
  return group_rows_of<kCode>(f, scale[0], scale[1], stored.zero, codebook_step);
}

// The same where scales have 16 bits.
template <CodeKind kCode>
__device__ inline StoredRows load_usual_rows(const TileLayout& f, const std::byte* group,
                                             int lane) {
  StoredRows rows = {};
  rows.scale.x = __ldg(reinterpret_cast<const uint32_t*>(group) + lane / 4);
  if (kCode != CodeKind::kCodebook4 && f.has_zeros) {
    rows.zero = __ldg(reinterpret_cast<const uint16_t*>(group + f.zeros_offset) + lane / 4);
  }
  return rows;
}
template <CodeKind kCode>
__device__ inline GroupRows usual_group_rows(const TileLayout& f, const StoredRows& stored,
                                             float codebook_step) {
  const uint32_t bits = stored.scale.x;
  const bool half = f.scale == ScaleKind::kF16;
  const float first = half ? half_bits(bits) : __uint_as_float(bits << 16);
  const float second = half ? half_bits(bits >> 16) : __uint_as_float(bits & 0xffff0000u);
  return group_rows_of<kCode>(f, first, second, stored.zero, codebook_step);
}

}  // namespace hotset::cuda
