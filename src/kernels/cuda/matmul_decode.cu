// SPDX-License-Identifier: Apache-2.0
// Products with up to 16 tokens: one launch over the tiles of all outputs. A block's warps share a
// tile and read each of its bytes once; matrices of few groups give a warp a tile. Weights are on
// their way before the input is waited for, rounded and multiplied.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_launch.h"
#include "kernels/cuda/tile_products.cuh"

namespace hotset::cuda {
namespace {

constexpr int kTokenStride = 20;  // floats between tokens in shared memory, against bank conflicts
constexpr int kManyWarps = 32;    // for a tile in floats that has a multiprocessor to itself

// Of one pass over a tile in floats, as registers allow.
template <int kTokens, int kWarps>
inline constexpr int kFloatTokens = kTokens == 1           ? 1
                                    : kWarps == kManyWarps ? 2
                                                           : 4;

// Of a shared tile, whose parts wait in shared memory until they are added up: twice, so that one
// half is added up while the other is written.
template <int kTokens>
inline constexpr int kGroupsAtOnce = kTokens == 1 ? 64 : 32;
template <int kTokens>
HS_BOTH constexpr int part_floats(int num_tokens) {
  return kGroupsAtOnce<kTokens> * (num_tokens * kTokenStride + kTileRows);
}

// More than eight tokens are multiplied eight by eight, each eight by blocks of its own: the second
// ones find the weights in the L2 cache.
constexpr int kTokensAtOnce = 8;
__device__ inline int first_token() {
  return kTokensAtOnce * static_cast<int>(blockIdx.y);
}

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

// A row of a tile goes on by `count` groups.
__device__ inline float add_groups(const float* parts, const float* scales, int stride, int count,
                                   float y) {
#pragma unroll 8
  for (int slot = 0; slot < count; ++slot) {
    y = __fmaf_rn(parts[slot * stride], scales[slot * kTileRows], y);
  }
  return y;
}

// All warps, one tile after the other. `input_of` gives the input, and where free shared memory
// begins.
template <CodeKind kCode, bool kUsual, int kTokens, int kWarps, typename InputOf>
__device__ void shared_tiles(const DecodeArgs& args, const DecodeJob& job, int first, int end,
                             InputOf input_of) {
  constexpr int kAtOnce = kGroupsAtOnce<kTokens>;
  using Stream = CodeStream<kCode, kUsual>;
  const TileLayout& f = job.weight;
  const int num_tokens = min(kTokens, args.num_tokens - first_token());
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row = static_cast<int>(threadIdx.x) % kTileRows;
  const int token = static_cast<int>(threadIdx.x) / kTileRows;
  Stream stream(f, f.data + first * f.tile_bytes, f.tile_bytes, end - first, warp, f.num_groups,
                kWarps, lane);
  const CodebookTables tables = load_tables<kCode>(f, lane);
  float* buffers = nullptr;
  const RoundedInput input = input_of(buffers);
  const auto inputs = token_inputs<kTokens>(
      input, [&](int t) { return first_token() + min(t, num_tokens - 1); }, lane);
  const int turns_at_once = kAtOnce / kWarps * Stream::batches_per_group(f) / Stream::kDepth;
  const int stride = num_tokens * kTokenStride;
  int which = 0;
  for (int tile = first; tile < end; ++tile) {
    float y = 0;
    for (int base = 0, turn = 0; base < f.num_groups; base += kAtOnce, turn += turns_at_once) {
      float* parts = buffers + which * part_floats<kTokens>(num_tokens);
      float* scales = parts + kAtOnce * stride;
      stream.run(turn, min(turn + turns_at_once, stream.num_turns()), inputs, tables,
                 [&](int g, const GroupRows& rows, const GroupPart<kTokens>& part) {
                   keep_part(part, rows, g - base, num_tokens, lane, parts, scales);
                 });
      __syncthreads();
      if (token < num_tokens) {
        y = add_groups(parts + token * kTokenStride + row, scales + row, stride,
                       min(kAtOnce, f.num_groups - base), y);
      }
      which ^= 1;
    }
    if (token < num_tokens && kTileRows * tile + row < f.rows) {
      job.y[(first_token() + token) * job.ldy + kTileRows * tile + row] = y;
    }
  }
}

// A tile a warp, one after the other: each warp the tiles `warp`, `warp` + kWarps, … of the
// block's.
template <CodeKind kCode, bool kUsual, int kTokens, int kWarps, typename InputOf>
__device__ void own_tiles(const DecodeArgs& args, const DecodeJob& job, int first, int end,
                          InputOf input_of) {
  using Stream = CodeStream<kCode, kUsual>;
  const TileLayout& f = job.weight;
  const int num_tokens = min(kTokens, args.num_tokens - first_token());
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int own = first + static_cast<int>(threadIdx.x) / kWarp;
  const int count = own < end ? (end - own + kWarps - 1) / kWarps : 0;
  Stream stream(f, f.data + own * f.tile_bytes, kWarps * f.tile_bytes, count, 0, f.num_groups, 1,
                lane);
  const CodebookTables tables = load_tables<kCode>(f, lane);
  float* unused = nullptr;
  const RoundedInput input = input_of(unused);
  const auto inputs = token_inputs<kTokens>(
      input, [&](int t) { return first_token() + min(t, num_tokens - 1); }, lane);
  for (int tile = own; tile < end; tile += kWarps) {
    float y[kFragments<kTokens>][4] = {};
    stream.run(0, stream.num_turns(), inputs, tables,
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
        if (token < num_tokens && row < f.rows) {
          job.y[(first_token() + token) * job.ldy + row] = y[n][i];
        }
      }
    }
  }
}

// Each warp a share of the columns: the number of warps must not depend on that of tokens.
template <Kinds kKinds, int kT, int kWarps>
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

template <Kinds kKinds, int kTokens, int kWarps>
__device__ inline void float_tiles(const DecodeArgs& args, const DecodeJob& job, int first, int end,
                                   float* shared) {
  prefetch_tiles<kWarps>(job.weight, first, min(first + 2, end));
  start_next();
  wait_for_earlier();
  if (blockIdx.y > 0) return;
  constexpr int kAtOnce = kFloatTokens<kTokens, kWarps>;
  for (int tile = first; tile < end; ++tile) {
    for (int t = 0; t < args.num_tokens; t += kAtOnce) {
      float_tile<kKinds, kAtOnce, kWarps>(args, job, tile, t, shared);
    }
  }
}

// Waits for what x is made of. One token's kernel rounds it into shared memory: what a block rounds
// for itself needs no launch.
template <int kTokens, int kWarps>
__device__ __forceinline__ RoundedInput take_input(const DecodeArgs& args, const DecodeJob& job,
                                                   float* shared, float*& left) {
  start_next();
  wait_for_earlier();
  left = shared;
  if constexpr (kTokens > 1) return job.input;
  RoundedInput input = {reinterpret_cast<int8_t*>(shared), nullptr, args.cut.num_subs()};
  input.meta = shared + input.sub_stride * (kSubBlock / 4);
  round_row(args.cut, args.cut.order, args.x, nullptr, static_cast<int>(threadIdx.x) / kWarp,
            kWarps, static_cast<int>(threadIdx.x) % kWarp, input.q, input.meta);
  left = input.meta + 2 * input.sub_stride;
  __syncthreads();
  return input;
}

// Blocks that a multiprocessor has to have registers for.
template <Kinds kKinds, int kTokens, int kWarps>
inline constexpr int kBlocksAtOnce = kWarps > 8 ? 1
                                     : kTokens > 1 || kKinds == kAllKinds ||
                                             kKinds == kind_bit(CodeKind::kInt8, true)
                                         ? 2
                                         : 3;

template <Kinds kKinds, int kTokens, int kWarps>
__global__ void __launch_bounds__(kWarp* kWarps, (kBlocksAtOnce<kKinds, kTokens, kWarps>))
    decode_kernel(const __grid_constant__ DecodeArgs args) {
  extern __shared__ __align__(16) float shared[];
  const int block = static_cast<int>(blockIdx.x);
  int which = 0;
  while (which + 1 < args.num_jobs && block >= args.jobs[which + 1].first_block) ++which;
  const DecodeJob& job = args.jobs[which];
  const int first = (block - job.first_block) * job.tiles_per_block;
  const int end = min(first + job.tiles_per_block, job.weight.num_tiles());
  if (!job.weight.integer) {
    if constexpr (kHasFloats<kKinds>) {
      float_tiles<kKinds, kTokens, kWarps>(args, job, first, end, shared);
    }
    return;
  }
  with_integer_code<kKinds>(job.weight.code, [&]<CodeKind kCode>() {
    const auto input_of = [&](float*& left) {
      return take_input<kTokens, kWarps>(args, job, shared, left);
    };
    with_usual<kCode>(job.weight, [&]<bool kUsual>() {
      if (job.tile_a_warp) {
        own_tiles<kCode, kUsual, kTokens, kWarps>(args, job, first, end, input_of);
      } else {
        prefetch_tiles<kWarps>(job.weight, first, min(first + 2, end));
        shared_tiles<kCode, kUsual, kTokens, kWarps>(args, job, first, end, input_of);
      }
    });
  });
}

constexpr Kinds kFour = kind_bit(CodeKind::kAffine4, true);
constexpr Kinds kEight = kind_bit(CodeKind::kInt8, true);
constexpr Kinds kCodebook = kind_bit(CodeKind::kCodebook4, true);
constexpr Kinds kBf16 = kind_bit(CodeKind::kBF16, false);
constexpr Kinds kAllFloats = 0xff;

struct DecodeLaunch {
  unsigned blocks = 0;
  int warps = 8;
  int64_t shared = 0;
  bool one_token = false;  // whose row blocks round for themselves, where it is rounded
};

template <Kinds kKinds, int kWarps>
void launch_decode(Queue& queue, const DecodeArgs& args, const DecodeLaunch& how) {
  const auto kernel = how.one_token ? decode_kernel<kKinds, 1, kWarps>
                                    : decode_kernel<kKinds, kTokensAtOnce, kWarps>;
  // Products of floats go through all tokens themselves.
  const bool only_floats = (kKinds & ~kAllFloats) == 0;
  const unsigned eights = only_floats ? 1 : blocks_for(args.num_tokens, kTokensAtOnce);
  HS_LAUNCH_EARLY(queue, (Grid{how.blocks, eights}), Grid{kWarp * kWarps}, how.shared, kernel,
                  args);
}

template <Kinds kKinds>
void launch_integer(Queue& queue, const DecodeArgs& args, const DecodeLaunch& how) {
  if (how.warps == 16) {
    HS_LAUNCH_EARLY(queue, Grid{how.blocks}, Grid{kWarp * 16}, how.shared,
                    (decode_kernel<kKinds, 1, 16>), args);
  } else {
    launch_decode<kKinds, 8>(queue, args, how);
  }
}

// Tiles for the blocks of each job, about as many blocks as there is room for at once.
void share_out(const Queue& queue, DecodeArgs& args, int64_t tiles, int64_t blocks_per_sm,
               DecodeLaunch& how) {
  const auto each = static_cast<int32_t>(blocks_for(tiles, blocks_per_sm * queue.num_sms()));
  for (int i = 0; i < args.num_jobs; ++i) {
    DecodeJob& job = args.jobs[i];
    job.first_block = static_cast<int32_t>(how.blocks);
    job.tile_a_warp = job.weight.integer && job.weight.num_groups < how.warps;
    job.tiles_per_block = job.tile_a_warp ? std::max(each, how.warps) : each;
    how.blocks += blocks_for(job.weight.num_tiles(), job.tiles_per_block);
  }
}

}  // namespace

void decode_products(Queue& queue, DecodeArgs& args) {
  Kinds kinds = 0;
  int64_t tiles = 0;
  int most_groups = 0;
  for (int i = 0; i < args.num_jobs; ++i) {
    tiles += args.jobs[i].weight.num_tiles();
    most_groups = std::max(most_groups, args.jobs[i].weight.num_groups);
    kinds |= kind_bit(args.jobs[i].weight.code, args.jobs[i].weight.integer);
  }
  const auto only = [&](Kinds set) { return (kinds & ~set) == 0; };
  DecodeLaunch how;
  how.one_token = args.num_tokens == 1 && (args.rounds || only(kAllFloats));
  if (tiles <= queue.num_sms()) {  // a tile a block: more warps for it
    if (only(kBf16)) how.warps = kManyWarps;
    if ((only(kFour) || only(kEight) || only(kCodebook)) && how.one_token && most_groups > 16)
      how.warps = 16;
  }
  share_out(queue, args, tiles, only(kEight) ? 2 : 3, how);
  const int tokens = std::min(args.num_tokens, kTokensAtOnce);
  const int64_t integer_floats = only(kAllFloats) ? 0
                                 : how.one_token  ? 2 * part_floats<1>(1)
                                                  : 2 * part_floats<kTokensAtOnce>(tokens);
  const int64_t float_floats = int64_t{how.warps} * 4 * kTileRows;
  how.shared =
      4 * std::max(integer_floats, float_floats) + (args.rounds ? rounded_row_bytes(args.cut) : 0);
  if (only(kFour)) return launch_integer<kFour>(queue, args, how);
  if (only(kEight)) return launch_integer<kEight>(queue, args, how);
  if (only(kCodebook)) return launch_integer<kCodebook>(queue, args, how);
  if (how.warps == kManyWarps) return launch_decode<kBf16, kManyWarps>(queue, args, how);
  if (only(kBf16)) return launch_decode<kBf16, 8>(queue, args, how);
  if (only(kFour | kBf16)) return launch_decode<kFour | kBf16, 8>(queue, args, how);
  if (only(kCodebook | kBf16)) return launch_decode<kCodebook | kBf16, 8>(queue, args, how);
  launch_decode<kAllKinds, 8>(queue, args, how);
}

}  // namespace hotset::cuda
