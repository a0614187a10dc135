// SPDX-License-Identifier: Apache-2.0
// Products with up to 16 tokens: one launch over the tiles of all outputs. A block's warps share a
// tile and read each of its bytes once; matrices of few groups give a warp a tile. Weights are on
// their way before the input is waited for, rounded and multiplied.
#include <algorithm>

#include "kernels/cuda/decode_floats.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_launch.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tile_products.cuh"

namespace hotset::cuda {
namespace {

constexpr int kTokenStride = 20;  // floats between tokens in shared memory, against bank conflicts
constexpr int64_t kDriverShared = 1 << 10;
// Of a shared tile, whose parts wait in shared memory until they are added up: twice, so that one
// half is added up while the other is written. A warp's share are whole turns of its CodeStream.
HS_BOTH constexpr int groups_at_once(int tokens, CodeKind code) {
  return tokens == 1 ? 64 : tokens <= 8 || code == CodeKind::kCodebook4 ? 32 : 16;
}
HS_BOTH constexpr int part_floats(int groups, int num_tokens) {
  return groups * (num_tokens * kTokenStride + kTileRows);
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
  constexpr int kAtOnce = groups_at_once(kTokens, kCode);
  using Stream = CodeStream<kCode, kUsual>;
  const TileLayout& f = job.weight;
  const int num_tokens = min(kTokens, args.num_tokens);
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
      input, [&](int t) { return min(t, num_tokens - 1); }, lane);
  const int turns_at_once = kAtOnce / kWarps * Stream::batches_per_group(f) / Stream::kDepth;
  const int stride = num_tokens * kTokenStride;
  int which = 0;
  for (int tile = first; tile < end; ++tile) {
    float y = 0;
    for (int base = 0, turn = 0; base < f.num_groups; base += kAtOnce, turn += turns_at_once) {
      float* parts = buffers + which * part_floats(kAtOnce, num_tokens);
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
      job.y[token * job.ldy + kTileRows * tile + row] = y;
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
  const int num_tokens = min(kTokens, args.num_tokens);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int own = first + static_cast<int>(threadIdx.x) / kWarp;
  const int count = own < end ? (end - own + kWarps - 1) / kWarps : 0;
  Stream stream(f, f.data + own * f.tile_bytes, kWarps * f.tile_bytes, count, 0, f.num_groups, 1,
                lane);
  const CodebookTables tables = load_tables<kCode>(f, lane);
  float* unused = nullptr;
  const RoundedInput input = input_of(unused);
  const auto inputs = token_inputs<kTokens>(
      input, [&](int t) { return min(t, num_tokens - 1); }, lane);
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
          job.y[token * job.ldy + row] = y[n][i];
        }
      }
    }
  }
}

// Rows of the rounded input to shared memory, all under way at once.
__device__ inline void copy_input(const RoundedInput& from, int num_rows, const RoundedInput& to) {
  const int subs = from.sub_stride, threads = static_cast<int>(blockDim.x);
  for (int i = static_cast<int>(threadIdx.x); i < 2 * num_rows * subs; i += threads) {
    const int row = i / (2 * subs), at = i - row * 2 * subs;
    copy_async(shared_address(to.q + row * to.sub_stride * kSubBlock + 16 * at),
               from.q_row(row) + 16 * at, true);
  }
  for (int i = static_cast<int>(threadIdx.x); i < num_rows * subs; i += threads) {
    const int row = i / subs, at = i - row * subs;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(
                     shared_address(to.meta + (row * to.sub_stride + at) * 2)),
                 "l"(from.meta_row(row) + 2 * at)
                 : "memory");
  }
  commit_async();
  wait_async<0>();
}

// By all warps of a block: where rows are read in order, loads of several tokens are under way at
// once.
template <int kTokens, int kWarps>
__device__ inline void round_input(const DecodeArgs& args, int num_tokens, const RoundedInput& to) {
  constexpr int kAtOnce = 8;
  const RoundedCut& cut = args.cut;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto q = [&](int t) { return to.q + t * to.sub_stride * kSubBlock; };
  const auto meta = [&](int t) { return to.meta + t * to.sub_stride * 2; };
  const bool plain = cut.order == nullptr && cut.group % kSubBlock == 0 && cut.cols % 4 == 0 &&
                     args.ldx % 4 == 0 && reinterpret_cast<uintptr_t>(args.x) % 16 == 0;
  if (kTokens == 1 || !plain) {
    for (int t = 0; t < num_tokens; ++t) {
      round_row(cut, cut.order, args.x + t * args.ldx, nullptr, warp, kWarps, lane, q(t), meta(t));
    }
    return;
  }
  const int quads = (cut.num_subs() + 3) / 4;
  for (int first = warp; first < num_tokens * quads; first += kAtOnce * kWarps) {
    float4 values[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int t = (first + i * kWarps) / quads, quad = first + i * kWarps - t * quads;
      const int col = 4 * (kWarp * quad + lane);
      values[i] = {0, 0, 0, 0};
      if (t < num_tokens && col < cut.cols) {
        values[i] = *reinterpret_cast<const float4*>(args.x + t * args.ldx + col);
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int t = (first + i * kWarps) / quads, quad = first + i * kWarps - t * quads;
      if (t < num_tokens) round_quad(cut, values[i], quad, lane, q(t), meta(t));
    }
  }
}

// Waits for what x is made of, and takes it to shared memory: what few tokens' blocks round for
// themselves needs no launch, and loads of all warps go there. An odd number of sub-blocks from
// token to token keeps these apart.
template <int kTokens, int kWarps>
__device__ __forceinline__ RoundedInput take_input(const DecodeArgs& args, const DecodeJob& job,
                                                   float* shared, float*& left) {
  start_next();
  wait_for_earlier();
  left = shared;
  if (kTokens > 1 && !args.rounds && !args.copies_input) return job.input;
  const int num_tokens = kTokens == 1 ? 1 : args.num_tokens;
  const int subs = args.rounds ? args.cut.num_subs() : job.input.sub_stride;
  RoundedInput input = {reinterpret_cast<int8_t*>(shared), nullptr, subs | 1};
  input.meta = shared + num_tokens * input.sub_stride * (kSubBlock / 4);
  left = input.meta + num_tokens * input.sub_stride * 2;
  if (kTokens == 1 || args.rounds) {
    round_input<kTokens, kWarps>(args, num_tokens, input);
  } else {
    copy_input(job.input, num_tokens, input);
  }
  __syncthreads();
  return input;
}

// Blocks that a multiprocessor has to have registers for.
template <Kinds kKinds, int kTokens, int kWarps>
inline constexpr int kBlocksAtOnce = kWarps > 8 ? 1
                                     : kTokens > 1 ||
                                             (kKinds & kind_bit(CodeKind::kInt8, true)) != 0
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
  const int in_job = (block - job.first_block) / job.token_parts;
  const int first = in_job * job.tiles_per_block;
  const int end = min(first + job.tiles_per_block, job.weight.num_tiles());
  if (!job.weight.integer) {
    if constexpr (kHasFloats<kKinds>) {
      if constexpr ((kKinds & kind_bit(CodeKind::kBF16, false)) != 0) {
        if (fits_matrix_units(job.weight)) {
          return bf16_tiles<kTokens, kWarps>(args, job, first, end, shared);
        }
      }
      const int part = block - job.first_block - in_job * job.token_parts;
      float_tiles<kKinds, kTokens, kWarps>(args, job, part, first, end, shared);
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
  const auto kernel = how.one_token          ? decode_kernel<kKinds, 1, kWarps>
                      : args.num_tokens <= 8 ? decode_kernel<kKinds, 8, kWarps>
                                             : decode_kernel<kKinds, 16, kWarps>;
  HS_LAUNCH_EARLY(queue, Grid{how.blocks}, Grid{kWarp * kWarps}, how.shared, kernel, args);
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

// Tiles for the blocks of each job, about as many blocks as there is room for at once. Floats come
// first, for they take longest: few tiles of theirs get a block each, or (but on matrix units)
// several that share the tokens, whose sums do not depend on who computes the others.
void share_out(const Queue& queue, DecodeArgs& args, int64_t tiles, int64_t blocks_per_sm,
               DecodeLaunch& how) {
  const auto each = static_cast<int32_t>(blocks_for(tiles, blocks_per_sm * queue.num_sms()));
  std::stable_partition(args.jobs, args.jobs + args.num_jobs,
                        [](const DecodeJob& job) { return !job.weight.integer; });
  int32_t float_tiles = 0;
  for (int i = 0; i < args.num_jobs; ++i) {
    if (!args.jobs[i].weight.integer) float_tiles += args.jobs[i].weight.num_tiles();
  }
  const int32_t room = queue.num_sms() / std::max(float_tiles, 1);
  const int32_t least = float_tiles == tiles ? 1 : kMostFloatTokens;
  for (int i = 0; i < args.num_jobs; ++i) {
    DecodeJob& job = args.jobs[i];
    job.first_block = static_cast<int32_t>(how.blocks);
    job.tile_a_warp = job.weight.integer && job.weight.num_groups < how.warps;
    job.tiles_per_block = job.tile_a_warp ? std::max(each, how.warps) : each;
    if (!job.weight.integer && room > 0) {
      const auto tokens = static_cast<int32_t>(blocks_for(args.num_tokens, room));
      job.tiles_per_block = 1;
      if (!fits_matrix_units(job.weight)) {
        job.token_parts =
            static_cast<int32_t>(blocks_for(args.num_tokens, std::max(tokens, least)));
      }
    }
    how.blocks += blocks_for(job.weight.num_tiles(), job.tiles_per_block) *
                  static_cast<unsigned>(job.token_parts);
  }
}

// Whether no block has more than one token.
bool has_one_token(const DecodeArgs& args, bool only_floats) {
  if (!only_floats) return args.num_tokens == 1 && args.rounds;
  return std::all_of(args.jobs, args.jobs + args.num_jobs,
                     [&](const DecodeJob& job) { return job.token_parts == args.num_tokens; });
}

// Bytes of a block; decides whether the input goes there.
int64_t shared_bytes(const Queue& queue, DecodeArgs& args, const DecodeLaunch& how, Kinds kinds) {
  const int64_t float_floats = int64_t{how.warps} * kKept;
  if ((kinds & ~kAllFloats) == 0) return 4 * float_floats;
  const int tokens = how.one_token ? 1 : std::max(2, args.num_tokens);
  const CodeKind code = (kinds & kCodebook) != 0 ? CodeKind::kCodebook4 : CodeKind::kAffine4;
  const int64_t parts = 2 * part_floats(groups_at_once(tokens, code), args.num_tokens);
  int64_t subs = args.rounds ? args.cut.num_subs() : 0;
  for (int i = 0; i < args.num_jobs && !args.rounds; ++i) {
    if (args.jobs[i].weight.integer) {
      subs = std::max<int64_t>(subs, args.jobs[i].input.sub_stride);
    }
  }
  const int64_t bytes = 4 * std::max(parts, float_floats);
  const int64_t input = args.num_tokens * (subs | 1) * (kSubBlock + 8);
  args.copies_input = bytes + input + kDriverShared <= queue.runtime.info().max_shared_bytes;
  return args.rounds || args.copies_input ? bytes + input : bytes;
}

}  // namespace

void decode_products(Queue& queue, DecodeArgs& args) {
  Kinds kinds = 0;
  int64_t tiles = 0;
  int most_groups = 0, most_tiles = 0;
  for (int i = 0; i < args.num_jobs; ++i) {
    tiles += args.jobs[i].weight.num_tiles();
    most_groups = std::max(most_groups, args.jobs[i].weight.num_groups);
    most_tiles = std::max(most_tiles, args.jobs[i].weight.num_tiles());
    kinds |= kind_bit(args.jobs[i].weight.code, args.jobs[i].weight.integer);
  }
  const auto only = [&](Kinds set) { return (kinds & ~set) == 0; };
  DecodeLaunch how;
  // By the largest output: the number of warps decides in which order floats are added up.
  if (only(kBf16) && most_tiles <= queue.num_sms()) how.warps = kManyWarps;
  if (tiles <= queue.num_sms()) {  // a tile a block: more warps for it
    const bool one_kind = only(kFour) || only(kEight) || only(kCodebook);
    if (one_kind && args.num_tokens == 1 && args.rounds && most_groups > 16) how.warps = 16;
  }
  const bool three = args.num_tokens == 1 && (kinds & kEight) == 0;
  share_out(queue, args, tiles, three ? 3 : 2, how);
  how.one_token = has_one_token(args, only(kAllFloats));
  how.shared = shared_bytes(queue, args, how, kinds);
  if (only(kFour)) return launch_integer<kFour>(queue, args, how);
  if (only(kEight)) return launch_integer<kEight>(queue, args, how);
  if (only(kCodebook)) return launch_integer<kCodebook>(queue, args, how);
  if (how.warps == kManyWarps) return launch_decode<kBf16, kManyWarps>(queue, args, how);
  if (only(kBf16)) return launch_decode<kBf16, 8>(queue, args, how);
  if (only(kFour | kBf16)) return launch_decode<kFour | kBf16, 8>(queue, args, how);
  if (only(kCodebook | kBf16)) return launch_decode<kCodebook | kBf16, 8>(queue, args, how);
  if (only(kEight | kBf16)) return launch_decode<kEight | kBf16, 8>(queue, args, how);
  launch_decode<kAllKinds, 8>(queue, args, how);
}

}  // namespace hotset::cuda
