// SPDX-License-Identifier: Apache-2.0
// What happens to whole rows between the products: rounding to int8, SwiGLU and the weighted sum.
// Written once and compiled per instruction set, with bitwise equal results.
#pragma once

#include "kernels/cpu/matmul_lanes.h"

namespace hotset::cpu {
namespace {

struct SubBlock {
  float scale = 0;
  int32_t sum = 0;
};

// q = round(x · 127 / max|x|), scale = max|x| / 127. A NaN or an infinity makes the scale a NaN, so
// that it shows in the result; what is too small to divide by becomes zero.
inline SubBlock quantize_sub_block(Floats a, Floats b, int8_t* q) {
  constexpr int32_t kInfinityBits = 0x7f800000;
  constexpr int32_t kSmallestBits = 0x08000000;  // about 4e-34
  const int32_t bits = largest_magnitude_bits(a, b);
  float most;
  __builtin_memcpy(&most, &bits, sizeof(most));
  const bool finite = bits < kInfinityBits;
  if (!finite || bits < kSmallestBits) {
    const Ints none = round_to_ints(splat(0.0f));
    store_int8s(q, none);
    store_int8s(q + 16, none);
    return {finite ? 0.0f : __builtin_nanf(""), 0};
  }
  const Floats inverse = splat(127.0f / most);
  const int32_t first = store_int8s(q, round_to_ints(a * inverse));
  return {most / 127.0f, first + store_int8s(q + 16, round_to_ints(b * inverse))};
}

void quantize_row(const float* x, const int32_t* order, int64_t cols, int64_t group, int8_t* q,
                  float* scale, int32_t* sum, float* group_sum) {
  for (int64_t begin = 0; begin < cols; begin += group, ++group_sum) {
    float total = 0;
    for (int64_t at = 0; at < group; at += kSubBlock, ++scale, ++sum) {
      const int64_t first = begin + at;
      const int64_t in_group = group - at < kSubBlock ? group - at : kSubBlock;
      const int64_t valid = cols - first < in_group ? cols - first : in_group;
      float gathered[kSubBlock] = {};
      const float* from = x + first;
      if (order != nullptr || valid < kSubBlock) {
        for (int64_t i = 0; i < valid; ++i)
          gathered[i] = x[order != nullptr ? order[first + i] : first + i];
        from = gathered;
      }
      int8_t block[kSubBlock];
      int8_t* to = in_group == kSubBlock ? q + first : block;
      const SubBlock result = quantize_sub_block(load_floats(from), load_floats(from + 16), to);
      if (to == block) __builtin_memcpy(q + first, block, static_cast<size_t>(in_group));
      *scale = result.scale;
      *sum = result.sum;
      total = __builtin_fmaf(result.scale, static_cast<float>(result.sum), total);
    }
    *group_sum = total;
  }
}

void sum_groups(int64_t num_groups, int64_t subs_per_group, const float* scale, const int32_t* sum,
                float* group_sum) {
  for (int64_t g = 0; g < num_groups; ++g) {
    float total = 0;
    for (int64_t s = 0; s < subs_per_group; ++s, ++scale, ++sum) {
      total = __builtin_fmaf(*scale, static_cast<float>(*sum), total);
    }
    group_sum[g] = total;
  }
}

// e^x: x = n·ln2 + r with |r| <= ln2/2, a Taylor polynomial of e^r of degree 7 (error below 1e-8),
// times 2^n. Limits first: 88 keeps 2^n finite, −87 keeps it normal.
inline Floats exponential(Floats x) {
  const Floats limited = max_second(splat(-87.0f), min_second(splat(88.0f), x));
  const Ints n = round_to_ints(limited * splat(1.44269504f));
  const Floats whole = to_floats(n);
  Floats r = fma(whole, splat(-0.693145752f), limited);
  r = fma(whole, splat(-1.42860677e-6f), r);
  Floats p = splat(1.0f / 5040);
  const float coefficients[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  for (const float c : coefficients) p = fma(p, r, splat(c));
  return p * pow2(n);
}

inline Floats load_up_to_16(const float* from, int64_t n) {
  if (n >= 16) return load_floats(from);
  float some[16] = {};
  for (int64_t i = 0; i < n; ++i) some[i] = from[i];
  return load_floats(some);
}

void silu_mul_row(int64_t n, float* gate, const float* up) {
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t lanes = n - i < 16 ? n - i : 16;
    const Floats g = load_up_to_16(gate + i, lanes);
    const Floats sigmoid = splat(1.0f) / (splat(1.0f) + exponential(splat(0.0f) - g));
    store_floats(gate + i, g * sigmoid * load_up_to_16(up + i, lanes), lanes);
  }
}

void add_scaled_row(int64_t n, float weight, const float* x, float* y) {
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t lanes = n - i < 16 ? n - i : 16;
    const Floats sum = fma(splat(weight), load_up_to_16(x + i, lanes), load_up_to_16(y + i, lanes));
    store_floats(y + i, sum, lanes);
  }
}

inline void set_row_functions(MatmulKernels& kernels) {
  kernels.quantize = quantize_row;
  kernels.sum_groups = sum_groups;
  kernels.silu_mul = silu_mul_row;
  kernels.add_scaled = add_scaled_row;
}

}  // namespace
}  // namespace hotset::cpu
