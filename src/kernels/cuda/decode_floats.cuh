// SPDX-License-Identifier: Apache-2.0
// Float products of matmul_decode.cu: bf16 on the matrix units, all other kinds, and coded weights in
// exact arithmetic, in fp32. What a token gets does not depend on how many go with it.
#pragma once

#include "kernels/cuda/bf16_tiles.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_launch.h"

namespace hotset::cuda {

inline constexpr int kManyWarps = 16;  // for a tile in floats that has a multiprocessor to itself

inline constexpr int kKept = 16 * kTileRows;  // sums of a warp's share of a tile, at most

// Tokens of one pass over a tile in fp32, as registers allow.
inline constexpr int kMostFloatTokens = 4;
template <int kTokens, int kWarps>
inline constexpr int kFloatTokens = kTokens == 1           ? 1
                                    : kWarps == kManyWarps ? 2
                                                           : kMostFloatTokens;

// Each warp a share of the columns: the number of warps must not depend on that of tokens.
template <Kinds kKinds, int kT, int kWarps>
__device__ void float_tile(const DecodeArgs& args, const DecodeJob& job, int tile, int first_token,
                           int end_token, float* sums) {
  const TileLayout& f = job.weight;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const float* x[kT];
#pragma unroll
  for (int t = 0; t < kT; ++t) x[t] = args.x + min(first_token + t, end_token - 1) * args.ldx;
  float_share<kKinds, kT>(f, f.data + tile * f.tile_bytes, warp, kWarps, x, f.order,
                          static_cast<int>(threadIdx.x) % kWarp, sums + warp * kT * kTileRows);
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x) % kTileRows;
  const int t = static_cast<int>(threadIdx.x) / kTileRows;
  if (t < kT && first_token + t < end_token && kTileRows * tile + row < f.rows) {
    float y = 0;
#pragma unroll 8
    for (int w = 0; w < kWarps; ++w) y += sums[(w * kT + t) * kTileRows + row];
    job.y[(first_token + t) * job.ldy + kTileRows * tile + row] = y;
  }
  __syncthreads();
}

// A warp's part of tiles first … end−1 to the L2 cache.
template <int kWarps>
__device__ inline void prefetch_tiles(const TileLayout& f, int first, int end) {
  if (first >= end) return;
  const int64_t part = ((end - first) * f.tile_bytes + kWarps - 1) / kWarps;
  const int64_t begin = static_cast<int64_t>(threadIdx.x / kWarp) * part;
  const int64_t left = (end - first) * f.tile_bytes - begin;
  prefetch_bytes(f.data + first * f.tile_bytes + begin, min(part, left),
                 static_cast<int>(threadIdx.x) % kWarp);
}

// The same of bf16 on the matrix units, tile by tile and all tokens at once. The first weights are
// on their way before the input is waited for, later ones while those before them are multiplied.
template <int kTokens, int kWarps>
__device__ void bf16_tiles(const DecodeArgs& args, const DecodeJob& job, int first, int end,
                           float* shared) {
  constexpr int kHalves = kTokens > 8 ? 2 : 1;
  constexpr int kAhead = kTokens == 1 && kWarps == 8 ? 4 : 8;
  constexpr int kInputs = kHalves == 2 ? 2 : 4;  // steps whose input is loaded at once
  const TileLayout& f = job.weight;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int steps = f.cols / kMmaColumns;
  const int begin_step = steps * warp / kWarps, end_step = steps * (warp + 1) / kWarps;
  StepWeights weights[kAhead];
  const auto load = [&](StepWeights& to, int tile, int step) {
    if (tile < end && step < end_step) {
      to.load(f.data + tile * f.tile_bytes + f.codes_offset, step, lane);
    }
  };
#pragma unroll
  for (int i = 0; i < kAhead; ++i) load(weights[i], first, begin_step + i);
  start_next();
  wait_for_earlier();
  const bool fours =
      f.order == nullptr && args.ldx % 4 == 0 && reinterpret_cast<uintptr_t>(args.x) % 16 == 0;
  const float* x[kHalves];
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    x[h] = args.x + min(lane / 4 + 8 * h, args.num_tokens - 1) * args.ldx;
  }
  const int row = thread % kTileRows, token = thread / kTileRows;
  for (int tile = first; tile < end; ++tile) {
    Bf16Sums<kHalves> sums;
    for (int step = begin_step; step < end_step; step += kAhead) {
      const bool last = step + kAhead >= end_step;
      const int next_tile = last ? tile + 1 : tile;
      const int next_step = last ? begin_step : step + kAhead;
#pragma unroll
      for (int i = 0; i < kAhead; i += kInputs) {
        float4 inputs[kInputs][kHalves];
#pragma unroll
        for (int j = 0; j < kInputs; ++j) {
#pragma unroll
          for (int h = 0; h < kHalves; ++h) {
            if (step + i + j < end_step) {
              inputs[j][h] = step_input(f, x[h], fours, step + i + j, lane);
            }
          }
        }
#pragma unroll
        for (int j = 0; j < kInputs; ++j) {
          if (step + i + j < end_step) sums.add(weights[i + j], inputs[j]);
          load(weights[i + j], next_tile, next_step + i + j);
        }
      }
    }
    sums.keep(shared + warp * kKept, lane);
    __syncthreads();
    if (token < args.num_tokens && kTileRows * tile + row < f.rows) {
      float y = 0;
#pragma unroll 8
      for (int w = 0; w < kWarps; ++w) y += shared[w * kKept + token * kTileRows + row];
      job.y[token * job.ldy + kTileRows * tile + row] = y;
    }
    __syncthreads();
  }
}

// Of the tokens, share `part`.
template <Kinds kKinds, int kTokens, int kWarps>
__device__ inline void float_tiles(const DecodeArgs& args, const DecodeJob& job, int part,
                                   int first, int end, float* shared) {
  prefetch_tiles<kWarps>(job.weight, first, min(first + 2, end));
  start_next();
  wait_for_earlier();
  constexpr int kAtOnce = kFloatTokens<kTokens, kWarps>;
  const int begin_token = args.num_tokens * part / job.token_parts;
  const int end_token = args.num_tokens * (part + 1) / job.token_parts;
  for (int tile = first; tile < end; ++tile) {
    for (int t = begin_token; t < end_token; t += kAtOnce) {
      float_tile<kKinds, kAtOnce, kWarps>(args, job, tile, t, end_token, shared);
    }
  }
}

}  // namespace hotset::cuda
