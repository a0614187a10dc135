// SPDX-License-Identifier: Apache-2.0
// Sixteen rows at once: the vectors that the matrix kernels are written in, chosen by the flags of
// the including file. The operations and their order are the same for all, so results are bitwise
// the same; only multiply-adds named fma are fused.
//
//   Floats, Ints    16 lanes of fp32, of int32
//   dot_block<kCode, kTokens>   integer dot products of 16 rows and up to 32 columns
//
// Everything here has internal linkage: the same name means different code in different files.
#pragma once

#if defined(__AVX512VNNI__)
#include "kernels/cpu/matmul_lanes_avx512.h"
#elif defined(__AVX2__)
#include "kernels/cpu/matmul_lanes_avx2.h"
#if defined(__AVXVNNI__)
#include "kernels/cpu/matmul_dot_avxvnni.h"
#else
#include "kernels/cpu/matmul_dot_avx2.h"
#endif
#else
#include "kernels/cpu/matmul_lanes_scalar.h"
#endif

namespace hotset::cpu {
namespace {

// 0 … n−1 as a parameter pack, without std::integer_sequence's company of shared inline functions.
template <int... kValues>
struct IntList {};
template <int kCount, int... kValues>
struct CountTo : CountTo<kCount - 1, kCount - 1, kValues...> {};
template <int... kValues>
struct CountTo<0, kValues...> {
  using List = IntList<kValues...>;
};

inline Floats load_scales(const std::byte* at, ScaleKind kind) {
  switch (kind) {
    case ScaleKind::kF16:
      return load_halves(at);
    case ScaleKind::kBF16:
      return load_bf16s(at);
    case ScaleKind::kF32:
      return load_floats(at);
    case ScaleKind::kNone:
      break;
  }
  return splat(1.0f);
}

}  // namespace
}  // namespace hotset::cpu
