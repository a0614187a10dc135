// SPDX-License-Identifier: Apache-2.0
// The shapes of group_gemm.cuh's blocks, and how their stages come to shared memory.
#pragma once

#include "kernels/cuda/gemm_place.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_device.cuh"
#include "kernels/cuda/mma.cuh"

namespace hotset::cuda {

// Few warps with many registers each: what a tile or a token costs to fetch and unpack is spent on
// 4 × 4 products at once. Twice the warps with half the tokens took a third more instructions.
template <CodeKind kCodeKind, int kSubsPerGroup, bool kGateUp, bool kWide = false>
struct GroupBlock {
  static constexpr CodeKind kCode = kCodeKind;
  static constexpr int kGroupSubs = kSubsPerGroup;
  static constexpr bool kFused = kGateUp;
  static constexpr int kRowWarps = kWide ? 1 : 2;
  static constexpr int kTokenWarps = kWide ? 4 : 2;
  static constexpr int kWarpTiles = 4;
  static constexpr int kMostFragments = 4;  // of 8 tokens, a warp
  static constexpr int kThreads = kWarp * kRowWarps * kTokenWarps;
  static constexpr int kBlocks = 2;  // of a multiprocessor at once
  static constexpr int kTiles = kRowWarps * kWarpTiles;
  static constexpr int kLoadTiles = kTiles / (kRowWarps * kTokenWarps);  // by a warp
  static constexpr int kMatrices = kFused ? 2 : 1;
  static constexpr int kMatrixTiles = kTiles / kMatrices;  // of a block, of each matrix
  static constexpr int kTokens = 8 * kMostFragments * kTokenWarps;
  static constexpr int kSubs = 4;  // a stage
  static constexpr int kGroups = kSubs / kGroupSubs;
  static constexpr int kInputBytes = kSubs * kTokens * kSubBlock;
  static constexpr int kMetaBytes = kTokens * kSubs * 8;
  static constexpr int kMostHeader = kTileRows * 5;
  static constexpr int kMostChunks = (kGroups * kMostHeader + kSubs * kSubBytes<kCode>) / 16;
  static constexpr int kCopies = (kMostChunks + kWarp - 1) / kWarp;  // of a tile, a lane
  static constexpr bool kWidens = kCode == CodeKind::kCodebook4;
  static constexpr int kWideBytes = kWidens ? kTiles * kSubs * kWarp * 16 : 0;  // of a stage
  static constexpr int kStages = kCode == CodeKind::kAffine4 ? 4 : 3;
};

__device__ __forceinline__ void copy_16_async(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// Int8 codes lie so that the words a lane reads together (quads 2c and 2c+1) have no bank
// conflicts.
template <CodeKind kCode>
HS_BOTH constexpr int staged_code(int offset) {
  if (kCode != CodeKind::kInt8) return offset;
  const int quad = offset / 64 % 8;
  return offset / 512 * 512 + ((quad % 2) * 4 + quad / 2) * 64 + offset % 64;
}

// A stage in shared memory: [tile][groups of 128 columns], [sub-block][token][32 bytes],
// [token][sub-block]{scale, sum}.
template <typename B>
struct GroupLoader {
  const GemmArgs& args;
  const int32_t* rows;  // shared: input rows of the block's tokens
  int num_tokens;
  int tile_stage_bytes;
  const std::byte* from[B::kLoadTiles];  // this lane's part of the next stage
  uint32_t to_code[B::kCopies];

  __device__ GroupLoader(const GemmArgs& gemm, const std::byte* const (&matrices)[B::kMatrices],
                         const int32_t* shared_rows, int tokens, int first_tile)
      : args(gemm),
        rows(shared_rows),
        num_tokens(tokens),
        tile_stage_bytes(B::kGroups * gemm.weight.group_bytes) {
    const TileLayout& f = gemm.weight;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int first_slot = static_cast<int>(threadIdx.x) / kWarp * B::kLoadTiles;
#pragma unroll
    for (int i = 0; i < B::kLoadTiles; ++i) {
      const int slot = first_slot + i;
      int tile = first_tile + slot;
      const std::byte* matrix = matrices[0];
      if constexpr (B::kFused) {
        tile = first_tile + slot / 4 * 2 + slot % 2;
        if (slot % 4 >= 2) matrix = matrices[1];
      }
      tile = min(tile, f.num_tiles() - 1);
      from[i] = matrix + tile * f.tile_bytes + lane * 16;
    }
#pragma unroll
    for (int k = 0; k < B::kCopies; ++k) {
      const int offset = 16 * (lane + kWarp * k);
      const int group = offset / f.group_bytes, in_group = offset - group * f.group_bytes;
      int staged = in_group;
      if (in_group >= f.codes_offset)
        staged = f.codes_offset + staged_code<B::kCode>(in_group - f.codes_offset);
      to_code[k] =
          static_cast<uint32_t>(first_slot * tile_stage_bytes + group * f.group_bytes + staged);
    }
  }
  __device__ int stage_bytes() const {
    return B::kTiles * tile_stage_bytes + B::kInputBytes + B::kMetaBytes;
  }
  __device__ void load(uint32_t to, int stage) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int i = 0; i < B::kLoadTiles; ++i) {
#pragma unroll
      for (int k = 0; k < B::kCopies; ++k) {
        if (16 * (lane + kWarp * k) < tile_stage_bytes) {
          copy_16_async(to + to_code[k] + static_cast<uint32_t>(i * tile_stage_bytes),
                        from[i] + k * kWarp * 16);
        }
      }
      from[i] += tile_stage_bytes;
    }
    load_input(to + static_cast<uint32_t>(B::kTiles * tile_stage_bytes), stage);
  }
  __device__ void load_input(uint32_t to, int stage) const {
    const int thread = static_cast<int>(threadIdx.x);
    constexpr int kParts = 2 * B::kSubs;  // of 16 bytes, a token
    const int part = thread % kParts;
    const int row_bytes = args.input.sub_stride * kSubBlock;
#pragma unroll
    for (int k = 0; k < B::kTokens * kParts / B::kThreads; ++k) {
      const int token = thread / kParts + k * (B::kThreads / kParts);
      if (token < num_tokens) {
        const int8_t* q = args.input.q + static_cast<int64_t>(rows[token]) * row_bytes;
        copy_16_async(
            to + static_cast<uint32_t>((part / 2 * B::kTokens + token) * kSubBlock + part % 2 * 16),
            q + stage * (B::kSubs * kSubBlock) + part * 16);
      }
    }
#pragma unroll
    for (int at = thread; at < 2 * B::kTokens; at += B::kThreads) {
      const int token = at / 2, half = at % 2;
      if (token < num_tokens) {
        const float* meta =
            args.input.meta + static_cast<int64_t>(rows[token]) * (2 * args.input.sub_stride);
        copy_16_async(to + static_cast<uint32_t>(B::kInputBytes + at * 16),
                      meta + stage * (2 * B::kSubs) + half * 4);
      }
    }
  }
};

}  // namespace hotset::cuda
