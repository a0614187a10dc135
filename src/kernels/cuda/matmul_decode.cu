// SPDX-License-Identifier: Apache-2.0
// Products with up to 16 tokens: one launch over the tiles of all outputs. Eight warps share a tile
// and read each of its bytes once; matrices with few groups give a warp a tile.
#include <algorithm>

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

// What a warp computed of group `slot`, to shared memory: parts[slot][token][row],
// scales[slot][row].
template <int kTokens>
__device__ inline void keep_part(const GroupPart<kTokens>& part, const GroupRows& rows, int slot,
                                 int num_tokens, int lane, float* parts, float* scales) {
  const int row = 2 * (lane / 4), c = lane % 4;
#pragma unroll
  for (int n = 0; n < kFragments<kTokens>; ++n) {
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
template <CodeKind kCode, int kTokens>
__device__ void shared_tile(const DecodeArgs& args, const DecodeJob& job, const RoundedInput& input,
                            int tile, float* parts) {
  const TileLayout& f = job.weight;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row = static_cast<int>(threadIdx.x) % kTileRows;
  const int token = static_cast<int>(threadIdx.x) / kTileRows;
  float* scales = parts + kGroupsAtOnce * args.num_tokens * kTokenStride;
  const auto inputs = token_inputs<kTokens>(
      input, [&](int t) { return min(t, args.num_tokens - 1); }, lane);
  const std::byte* data = f.data + tile * f.tile_bytes;
  float y = 0;
  for (int base = 0; base < f.num_groups; base += kGroupsAtOnce) {
    const int end = min(base + kGroupsAtOnce, f.num_groups);
    for_groups<kCode, kTokens>(f, data, inputs, base + warp, end, kWarps, lane,
                               [&](int g, const GroupRows& rows, const GroupPart<kTokens>& part) {
                                 keep_part(part, rows, g - base, args.num_tokens, lane, parts,
                                           scales);
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
template <CodeKind kCode, int kTokens>
__device__ void own_tile(const DecodeArgs& args, const DecodeJob& job, const RoundedInput& input,
                         int tile) {
  const TileLayout& f = job.weight;
  if (tile >= f.num_tiles()) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto inputs = token_inputs<kTokens>(
      input, [&](int t) { return min(t, args.num_tokens - 1); }, lane);
  float y[kFragments<kTokens>][4] = {};
  for_groups<kCode, kTokens>(f, f.data + tile * f.tile_bytes, inputs, 0, f.num_groups, 1, lane,
                             [&](int, const GroupRows& rows, const GroupPart<kTokens>& part) {
#pragma unroll
                               for (int n = 0; n < kFragments<kTokens>; ++n) {
#pragma unroll
                                 for (int i = 0; i < 4; ++i) {
                                   y[n][i] = __fmaf_rn(part.sum[n][i], rows.scale[i / 2], y[n][i]);
                                 }
                               }
                             });
#pragma unroll
  for (int n = 0; n < kFragments<kTokens>; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = 8 * n + 2 * (lane % 4) + i % 2;
      const int row = kTileRows * tile + 2 * (lane / 4) + i / 2;
      if (token < args.num_tokens && row < f.rows) job.y[token * job.ldy + row] = y[n][i];
    }
  }
}

template <Kinds kKinds, int kT>
__device__ void float_tile(const DecodeArgs& args, const DecodeJob& job, int tile, int first_token,
                           float* sums) {
  const TileLayout& f = job.weight;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const float* x[kT];
#pragma unroll
  for (int t = 0; t < kT; ++t) x[t] = args.x + min(first_token + t, args.num_tokens - 1) * args.ldx;
  float_share<kKinds, kT>(f, f.data + tile * f.tile_bytes, warp, kWarps, x, f.order,
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

// Its tile, or a warp's part of it, to the L2 cache.
__device__ inline void prefetch_unit(const DecodeJob& job, int unit, int warp, int lane) {
  const TileLayout& f = job.weight;
  const int tile = job.warps_per_tile == 1 ? unit * kWarps + warp : unit;
  if (tile >= f.num_tiles()) return;
  const int64_t part = f.tile_bytes / kWarps;
  const int64_t begin = job.warps_per_tile == 1 ? 0 : warp * part;
  prefetch_bytes(f.data + tile * f.tile_bytes + begin,
                 job.warps_per_tile == 1 ? f.tile_bytes : part, lane);
}

// Blocks that a multiprocessor has to have registers for.
template <Kinds kKinds, int kTokens>
inline constexpr int kBlocksAtOnce = kKinds == kAllKinds || kTokens > 8             ? 2
                                     : kKinds == kind_bit(CodeKind::kAffine4, true) ? 4
                                                                                    : 3;

template <Kinds kKinds, int kTokens>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce<kKinds, kTokens>)
    decode_kernel(const __grid_constant__ DecodeArgs args) {
  extern __shared__ __align__(16) float dynamic[];
  float* shared = dynamic;
  const int block = static_cast<int>(blockIdx.x);
  int which = 0;
  while (which + 1 < args.num_jobs && block >= args.jobs[which + 1].first_block) ++which;
  const DecodeJob& job = args.jobs[which];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int units = (job.weight.num_tiles() * job.warps_per_tile + kWarps - 1) / kWarps;
  const int first = (block - job.first_block) * job.tiles_per_block;
  const int end = min(first + job.tiles_per_block, units);
  if (!job.weight.integer) {
    if constexpr (kHasFloats<kKinds>) {
      for (int tile = first; tile < end; ++tile) {
        if constexpr (kTokens == 1) {
          float_tile<kKinds, 1>(args, job, tile, 0, shared);
        } else {
          for (int t = 0; t < args.num_tokens; t += kFloatTokens) {
            float_tile<kKinds, kFloatTokens>(args, job, tile, t, shared);
          }
        }
      }
    }
    return;
  }
  RoundedInput input = job.input;
  if constexpr (kTokens == 1) {
    if (args.rounds) {
      prefetch_unit(job, first, warp, lane);
      input = {reinterpret_cast<int8_t*>(shared), nullptr, args.cut.num_subs()};
      input.meta = shared + input.sub_stride * (kSubBlock / 4);
      round_row(args.cut, args.cut.order, args.x, nullptr, warp, kWarps, lane, input.q, input.meta);
      shared = input.meta + 2 * input.sub_stride;
      __syncthreads();
    }
  }
  with_integer_code<kKinds>(job.weight.code, [&]<CodeKind kCode>() {
    for (int unit = first; unit < end; ++unit) {
      if (unit + 1 < end) prefetch_unit(job, unit + 1, warp, lane);
      if (job.warps_per_tile == 1) {
        own_tile<kCode, kTokens>(args, job, input, unit * kWarps + warp);
      } else {
        shared_tile<kCode, kTokens>(args, job, input, unit, shared);
      }
    }
  });
}

constexpr Kinds kFour = kind_bit(CodeKind::kAffine4, true);
constexpr Kinds kEight = kind_bit(CodeKind::kInt8, true);
constexpr Kinds kBf16 = kind_bit(CodeKind::kBF16, false);

template <Kinds kKinds>
void launch_decode(Queue& queue, const DecodeArgs& args, unsigned blocks, int64_t shared) {
  const auto kernel = args.num_tokens == 1   ? decode_kernel<kKinds, 1>
                      : args.num_tokens <= 8 ? decode_kernel<kKinds, 8>
                                             : decode_kernel<kKinds, 16>;
  HS_LAUNCH(queue, Grid{blocks}, Grid{kThreads}, shared, kernel, args);
}

}  // namespace

void decode_products(Queue& queue, DecodeArgs& args) {
  unsigned blocks = 0;
  Kinds kinds = 0;
  int64_t tiles = 0;
  for (int i = 0; i < args.num_jobs; ++i) tiles += args.jobs[i].weight.num_tiles();
  // Where blocks round, fewer of them do it less often.
  const int64_t each = args.rounds ? std::max<int64_t>(1, tiles / (4 * queue.num_sms())) : 1;
  for (int i = 0; i < args.num_jobs; ++i) {
    DecodeJob& job = args.jobs[i];
    job.first_block = static_cast<int32_t>(blocks);
    job.warps_per_tile = job.weight.integer && job.weight.num_groups < kWarps ? 1 : kWarps;
    kinds |= kind_bit(job.weight.code, job.weight.integer);
    job.tiles_per_block = static_cast<int32_t>(each);
    const int64_t units = blocks_for(job.weight.num_tiles(), kWarps / job.warps_per_tile);
    blocks += blocks_for(units, each);
  }
  const int64_t integer_floats =
      kGroupsAtOnce * (args.num_tokens * kTokenStride + int64_t{kTileRows});
  const int64_t float_floats = kWarps * kFloatTokens * kTileRows;
  const int64_t shared =
      4 * std::max(integer_floats, float_floats) + (args.rounds ? rounded_row_bytes(args.cut) : 0);
  const auto only = [&](Kinds set) { return (kinds & ~set) == 0; };
  if (only(kFour)) return launch_decode<kFour>(queue, args, blocks, shared);
  if (only(kEight)) return launch_decode<kEight>(queue, args, blocks, shared);
  if (only(kBf16)) return launch_decode<kBf16>(queue, args, blocks, shared);
  if (only(kFour | kBf16)) return launch_decode<kFour | kBf16>(queue, args, blocks, shared);
  launch_decode<kAllKinds>(queue, args, blocks, shared);
}

}  // namespace hotset::cuda
