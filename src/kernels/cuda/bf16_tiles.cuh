// SPDX-License-Identifier: Apache-2.0
// bf16 weights times up to 16 tokens on the matrix units. The input goes in as the sum of three
// bf16 values, which together have all of its bits; sums are fp32. What a token gets does not
// depend on how many go with it: they are rows of the same product.
//
// A tile has its columns one after the other, 16 rows each. A step is 16 columns: lane l = 4g + c
// loads rows 2g and 2g+1 of columns 4c … 4c+3, which stand for columns 2c, 2c+1, 2c+8, 2c+9 of the
// matrix unit, in the input too. Even and odd rows are products of their own.
#pragma once

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tile_products.cuh"

namespace hotset::cuda {

inline constexpr int kMmaColumns = 16;

HS_BOTH inline bool fits_matrix_units(const TileLayout& f) {
  return f.code == CodeKind::kBF16 && f.scale == ScaleKind::kNone && f.num_groups == 1 &&
         f.cols % kMmaColumns == 0;
}

struct StepWeights {
  uint32_t columns[4];

  __device__ void load(const std::byte* codes, int step, int lane) {
    constexpr int kColumnBytes = 2 * kTileRows;
    const std::byte* from =
        codes + (kMmaColumns * step + lane % 4 * 4) * kColumnBytes + lane / 4 * 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      columns[i] = __ldcs(reinterpret_cast<const uint32_t*>(from + i * kColumnBytes));
    }
  }
};

// Columns 4c … 4c+3 of a step, of token g (and g + 8).
__device__ inline float4 step_input(const TileLayout& f, const float* x, bool fours, int step,
                                    int lane) {
  const int col = kMmaColumns * step + lane % 4 * 4;
  if (fours) return *reinterpret_cast<const float4*>(x + col);
  return {input_at(f, f.order, x, col), input_at(f, f.order, x, col + 1),
          input_at(f, f.order, x, col + 2), input_at(f, f.order, x, col + 3)};
}

struct ThreeParts {
  uint32_t part[3];  // high, middle, low
};
__device__ inline ThreeParts three_parts(float a, float b) {
  ThreeParts parts;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const __nv_bfloat162 high = __floats2bfloat162_rn(a, b);
    const float2 back = __bfloat1622float2(high);
    parts.part[i] = bits_of(high);
    a -= back.x;
    b -= back.y;
  }
  return parts;
}

// Sums of a lane: rows 4c … 4c+3 of token g, then of token g + 8.
template <int kHalves>
struct Bf16Sums {
  float sum[3][2][4] = {};  // of the input's parts, even and odd rows

  __device__ void add(const StepWeights& w, const float4 (&x)[kHalves]) {
    uint32_t b[2][2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      b[0][i] = __byte_perm(w.columns[2 * i], w.columns[2 * i + 1], 0x5410);
      b[1][i] = __byte_perm(w.columns[2 * i], w.columns[2 * i + 1], 0x7632);
    }
    ThreeParts first[2] = {}, second[2] = {};  // of the two halves
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      first[h] = three_parts(x[h].x, x[h].y);
      second[h] = three_parts(x[h].z, x[h].w);
    }
#pragma unroll
    for (int p = 0; p < 3; ++p) {
      const uint32_t a[4] = {first[0].part[p], first[1].part[p], second[0].part[p],
                             second[1].part[p]};
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        multiply_add<__nv_bfloat16>(sum[p][odd], a, b[odd][0], b[odd][1]);
      }
    }
  }
  // to: [16 tokens][16 rows]
  __device__ void keep(float* to, int lane) const {
    const auto total = [&](int odd, int i) {
      return sum[0][odd][i] + (sum[1][odd][i] + sum[2][odd][i]);
    };
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      *reinterpret_cast<float4*>(to + (lane / 4 + 8 * h) * kTileRows + lane % 4 * 4) = {
          total(0, 2 * h), total(1, 2 * h), total(0, 2 * h + 1), total(1, 2 * h + 1)};
    }
  }
};

}  // namespace hotset::cuda
