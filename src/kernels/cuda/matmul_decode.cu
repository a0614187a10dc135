// SPDX-License-Identifier: Apache-2.0
// Products with up to 16 tokens: one launch over the tiles of all outputs. Eight warps share a tile
// and read each of its bytes once; matrices with few groups give a warp a tile.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_launch.h"
#include "kernels/cuda/tile_products.cuh"

namespace hotset::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarp * kWarps;
constexpr int kGroupsAtOnce = 4 * kWarps;  // whose parts wait in shared memory
constexpr int kTokenStride = 20;           // floats between tokens there, against bank conflicts
constexpr int kFloatTokens = 4;            // of one pass over a tile in floats

struct TilePlace {
  const DecodeJob* job;
  int tile;
};

// What a warp computed of group `slot`, to shared memory: parts[slot][token][row],
// scales[slot][row].
template <int kN>
__device__ inline void keep_part(const GroupPart<kN>& part, const GroupRows& rows, int slot,
                                 int num_tokens, int lane, float* parts, float* scales) {
  const int row = 2 * (lane / 4), c = lane % 4;
#pragma unroll
  for (int n = 0; n < kN; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = 8 * n + 2 * c + i % 2;
      if (token < num_tokens) {
        parts[(slot * num_tokens + token) * kTokenStride + row + i / 2] = part.sum[n][i];
      }
    }
  }
  if (c == 0) {
    scales[slot * kTileRows + row] = rows.scale[0];
    scales[slot * kTileRows + row + 1] = rows.scale[1];
  }
}

// Eight warps, one tile.
template <CodeKind kCode, int kN>
__device__ void shared_tile(const DecodeArgs& args, const DecodeJob& job, int tile, float* parts) {
  const TileLayout& f = job.weight;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row = static_cast<int>(threadIdx.x) % kTileRows;
  const int token = static_cast<int>(threadIdx.x) / kTileRows;
  float* scales = parts + kGroupsAtOnce * args.num_tokens * kTokenStride;
  const auto inputs = token_inputs<kN>(
      job.input, [&](int t) { return min(t, args.num_tokens - 1); }, lane);
  const std::byte* data = f.data + tile * f.tile_bytes;
  float y = 0;
  for (int base = 0; base < f.num_groups; base += kGroupsAtOnce) {
    const int end = min(base + kGroupsAtOnce, f.num_groups);
    for_groups<kCode, kN>(f, data, inputs, base + warp, end, kWarps, lane,
                          [&](int g, const GroupRows& rows, const GroupPart<kN>& part) {
                            keep_part(part, rows, g - base, args.num_tokens, lane, parts, scales);
                          });
    __syncthreads();
    if (token < args.num_tokens) {
#pragma unroll 4
      for (int slot = 0; slot < end - base; ++slot) {
        y = __fmaf_rn(parts[(slot * args.num_tokens + token) * kTokenStride + row],
                      scales[slot * kTileRows + row], y);
      }
    }
    __syncthreads();
  }
  if (token < args.num_tokens && kTileRows * tile + row < f.rows) {
    job.y[token * job.ldy + kTileRows * tile + row] = y;
  }
}

// One warp, one tile.
template <CodeKind kCode, int kN>
__device__ void own_tile(const DecodeArgs& args, const DecodeJob& job, int tile) {
  const TileLayout& f = job.weight;
  if (tile >= f.num_tiles()) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto inputs = token_inputs<kN>(
      job.input, [&](int t) { return min(t, args.num_tokens - 1); }, lane);
  float y[kN][4] = {};
  for_groups<kCode, kN>(f, f.data + tile * f.tile_bytes, inputs, 0, f.num_groups, 1, lane,
                        [&](int, const GroupRows& rows, const GroupPart<kN>& part) {
#pragma unroll
                          for (int n = 0; n < kN; ++n) {
#pragma unroll
                            for (int i = 0; i < 4; ++i) {
                              y[n][i] = __fmaf_rn(part.sum[n][i], rows.scale[i / 2], y[n][i]);
                            }
                          }
                        });
#pragma unroll
  for (int n = 0; n < kN; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = 8 * n + 2 * (lane % 4) + i % 2;
      const int row = kTileRows * tile + 2 * (lane / 4) + i / 2;
      if (token < args.num_tokens && row < f.rows) job.y[token * job.ldy + row] = y[n][i];
    }
  }
}

template <int kT>
__device__ void float_tile(const DecodeArgs& args, const DecodeJob& job, int tile, int first_token,
                           float* sums) {
  const TileLayout& f = job.weight;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const float* x[kT];
#pragma unroll
  for (int t = 0; t < kT; ++t) x[t] = args.x + min(first_token + t, args.num_tokens - 1) * args.ldx;
  float_share<kT>(f, f.data + tile * f.tile_bytes, warp, kWarps, x, f.order,
                  static_cast<int>(threadIdx.x) % kWarp, sums + warp * kT * kTileRows);
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x) % kTileRows;
  const int t = static_cast<int>(threadIdx.x) / kTileRows;
  if (t < kT && first_token + t < args.num_tokens && kTileRows * tile + row < f.rows) {
    float y = 0;
    for (int w = 0; w < kWarps; ++w) y += sums[(w * kT + t) * kTileRows + row];
    job.y[(first_token + t) * job.ldy + kTileRows * tile + row] = y;
  }
  __syncthreads();
}

template <int kN>
__global__ void __launch_bounds__(kThreads) decode_kernel(const __grid_constant__ DecodeArgs args) {
  extern __shared__ float shared[];
  const int block = static_cast<int>(blockIdx.x);
  int which = 0;
  while (which + 1 < args.num_jobs && block >= args.jobs[which + 1].first_block) ++which;
  const DecodeJob& job = args.jobs[which];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int index = block - job.first_block;
  if (!job.weight.integer) {
    if (args.num_tokens == 1) {
      float_tile<1>(args, job, index, 0, shared);
    } else {
      for (int t = 0; t < args.num_tokens; t += kFloatTokens) {
        float_tile<kFloatTokens>(args, job, index, t, shared);
      }
    }
    return;
  }
  with_integer_code(job.weight.code, [&]<CodeKind kCode>() {
    if (job.warps_per_tile == 1) {
      own_tile<kCode, kN>(args, job, index * kWarps + warp);
    } else {
      shared_tile<kCode, kN>(args, job, index, shared);
    }
  });
}

}  // namespace

void decode_products(Queue& queue, DecodeArgs& args) {
  unsigned blocks = 0;
  for (int i = 0; i < args.num_jobs; ++i) {
    DecodeJob& job = args.jobs[i];
    job.first_block = static_cast<int32_t>(blocks);
    job.warps_per_tile = job.weight.integer && job.weight.num_groups < kWarps ? 1 : kWarps;
    blocks += blocks_for(job.weight.num_tiles(), kWarps / job.warps_per_tile);
  }
  const int64_t integer_floats =
      kGroupsAtOnce * (args.num_tokens * kTokenStride + int64_t{kTileRows});
  const int64_t float_floats = kWarps * kFloatTokens * kTileRows;
  const int64_t shared = 4 * std::max(integer_floats, float_floats);
  if (args.num_tokens <= 8) {
    HS_LAUNCH(queue, Grid{blocks}, Grid{kThreads}, shared, decode_kernel<1>, args);
  } else {
    HS_LAUNCH(queue, Grid{blocks}, Grid{kThreads}, shared, decode_kernel<2>, args);
  }
}

}  // namespace hotset::cuda
