// SPDX-License-Identifier: Apache-2.0
// down for few tokens: a block takes 16 rows of the output of a token, its warps the pieces of its
// choices' tiles; tiles that several tokens want come from the L2 cache. It asks for them while
// gate·up still runs.
#include "kernels/cuda/moe_staged.cuh"

namespace hotset::cuda {
namespace {

constexpr int kDownStages = 2;

// A block's dynamic shared memory: the rings, parts [top_k][slots][16], as many scales, and the
// choices' outputs [top_k][16].
struct DownPlan {
  int32_t piece_bytes = 0;  // the largest
  int32_t pieces = 0;       // of a tile, the most of any expert
  int32_t slots = 0;        // groups, or sub-blocks of the only one, likewise
  PieceCut cut[kMaxExpertGroups];

  HS_BOTH int64_t shared_bytes(int top_k) const {
    return int64_t{kStagedWarps} * kDownStages * piece_bytes +
           int64_t{4} * top_k * kTileRows * (2 * slots + 1);
  }
};

struct DownShared {
  CodebookTables tables[kMaxExpertGroups];
  Choice choices[kMaxStagedTopK];
  int32_t rank[kMaxStagedTopK];  // which of the token's choices
  int num_here;
};

// Where a warp is among the pieces of the choices: as many warps as a tile has pieces go on
// together from choice to choice.
struct DownPlace {
  int choice, piece, choice_step, first_piece, piece_step;

  __device__ DownPlace(int warp, int pieces) {
    piece_step = min(pieces, kStagedWarps);
    choice_step = kStagedWarps / piece_step;
    choice = warp / piece_step;
    piece = first_piece = warp - choice * piece_step;
    if (choice >= choice_step) choice = kMaxStagedTopK;  // idle
  }
  __device__ void advance(int pieces) {
    piece += piece_step;
    if (piece < pieces) return;
    piece = first_piece;
    choice += choice_step;
  }
};

__device__ inline void find_choices(const ExpertArgs& args, int64_t token, int lane,
                                    DownShared& shared) {
  const Choice mine = lane < args.top_k ? choice_at(args, token * args.top_k + lane) : no_choice();
  const unsigned here = __ballot_sync(kAllLanes, mine.expert >= 0);
  if (lane == 0) shared.num_here = __popc(here);
  if (mine.expert < 0) return;
  const int at = __popc(here & lanes_below(lane));
  shared.choices[at] = mine;
  shared.rank[at] = lane;
}

template <CodeKind kCode, int kSubs, bool kLong>
__device__ inline void multiply_down(const TileLayout& f, const PieceCut& cut,
                                     const std::byte* block, int piece,
                                     const CodebookTables& tables, const TokenInputs<1>& inputs,
                                     int lane, float* parts, float* scales) {
  if constexpr (kLong && kCode != CodeKind::kCodebook4) {
    if (cut.subs != 0) {
      const int sub = piece * cut.subs;
      staged_dots<kCode, 1>(
          block, tables, inputs, sub, min(sub + cut.subs, f.subs_per_group), lane,
          [&](int s, const float(&dots)[4]) {
            if (lane % 4 != 0) return;
            *reinterpret_cast<float2*>(parts + s * kTileRows + 2 * (lane / 4)) = {dots[0], dots[2]};
          });
      return;
    }
  }
  const int end_group = min((piece + 1) * cut.groups, f.num_groups);
#pragma unroll 1
  for (int g = piece * cut.groups; g < end_group; ++g, block += f.group_bytes) {
    staged_group<kCode, 1, kSubs>(
        f, block, tables, inputs, g, lane, [&](const GroupRows& rows, const GroupPart<1>& part) {
          if (lane % 4 != 0) return;
          const int at = g * kTileRows + 2 * (lane / 4);
          *reinterpret_cast<float2*>(parts + at) = {part.sum[0][0], part.sum[0][2]};
          *reinterpret_cast<float2*>(scales + at) = {rows.scale[0], rows.scale[1]};
        });
  }
}

// Row `row` of the tile, from the outputs of the choices that are here and others from elsewhere.
__device__ inline void join_row(const ExpertArgs& args, int64_t token, int row, const float* outs) {
  float y = 0;
#pragma unroll 4
  for (int k = 0; k < args.top_k; ++k) {
    const int64_t pair = token * args.top_k + k;
    const bool is_here = args.ids[pair] >= 0;
    if (!is_here && args.elsewhere == nullptr) continue;
    const float value = is_here ? outs[k * kTileRows] : args.elsewhere[pair * args.hidden + row];
    y = __fmaf_rn(args.weights[pair], value, y);
  }
  args.y[token * args.hidden + row] = y;
}

template <int kSubs, bool kLong>
__global__ void __launch_bounds__(kStagedThreads, 2)
    staged_down_kernel(const __grid_constant__ ExpertArgs args,
                       const __grid_constant__ DownPlan plan) {
  __shared__ DownShared shared;
  extern __shared__ __align__(16) std::byte dynamic[];
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp, lane = thread % kWarp;
  const int64_t token = blockIdx.x;
  const int tile = static_cast<int>(blockIdx.y);
  std::byte* ring = dynamic + warp * kDownStages * plan.piece_bytes;
  auto* parts = reinterpret_cast<float*>(dynamic + kStagedWarps * kDownStages * plan.piece_bytes);
  float* scales = parts + args.top_k * plan.slots * kTileRows;
  float* outs = scales + args.top_k * plan.slots * kTileRows;
  start_next();
  // The choices are older than gate·up, which had them before it let this kernel start.
  if (warp == 0) find_choices(args, token, lane, shared);
  if (warp > 0 && warp <= args.num_jobs) {
    const TileLayout& f = args.jobs[warp - 1].down;
    if (f.code == CodeKind::kCodebook4) {
      const CodebookTables tables = load_tables<CodeKind::kCodebook4>(f, lane);
      if (lane == 0) shared.tables[warp - 1] = tables;
    }
  }
  __syncthreads();
  const int num_here = shared.num_here;
  DownPlace next(warp, plan.pieces);
  DownPlace now = next;
  const auto fetch_next = [&](int place) {
    if (next.choice < num_here) {
      const Choice& choice = shared.choices[next.choice];
      const PieceCut& cut = plan.cut[choice.job];
      const TileLayout& f = args.jobs[choice.job].down;
      if (next.piece < cut.count) {
        const int at = cut.begin + next.piece * cut.bytes;
        copy_to_shared(ring + place * plan.piece_bytes, choice.down + tile * f.tile_bytes + at,
                       min(cut.bytes, static_cast<int>(f.tile_bytes) - at), lane);
      }
      next.advance(plan.pieces);
    }
    end_of_copies();
  };
#pragma unroll 1
  for (int i = 0; i < kDownStages; ++i) fetch_next(i);
  wait_for_earlier();
#pragma unroll 1
  for (int place = 0; now.choice < num_here; now.advance(plan.pieces)) {
    wait_for_copies(kDownStages - 1);
    __syncwarp();
    const int job = shared.choices[now.choice].job;
    const PieceCut& cut = plan.cut[job];
    const TileLayout& f = args.jobs[job].down;
    if (now.piece < cut.count) {
      const int64_t pair = token * args.top_k + shared.rank[now.choice];
      const auto inputs = token_inputs<1>(
          args.act_in, [&](int) { return pair; }, lane);
      with_integer_code<kIntegerKinds>(f.code, [&]<CodeKind kCode>() {
        const int at = now.choice * plan.slots * kTileRows;
        const CodebookTables tables = shared.tables[job];
        multiply_down<kCode, kSubs, kLong>(f, cut, ring + place * plan.piece_bytes, now.piece,
                                           tables, inputs, lane, parts + at, scales + at);
      });
    }
    __syncwarp();
    fetch_next(place);
    if (++place == kDownStages) place = 0;
  }
  __syncthreads();
  for (int i = thread; i < num_here * kTileRows; i += kStagedThreads) {
    const int k = i / kTileRows, row = i % kTileRows;
    const int job = shared.choices[k].job;
    const TileLayout& f = args.jobs[job].down;
    const int at = k * plan.slots * kTileRows + row;
    float y = 0;
    if (kLong && plan.cut[job].subs != 0) {
      LongGroup group;
      group.add(parts + at, kTileRows, args.act_in.meta_row(token * args.top_k + shared.rank[k]),
                f.subs_per_group);
      y = group.result(f, shared.choices[k].down + tile * f.tile_bytes, row);
    } else {
#pragma unroll 4
      for (int g = 0; g < f.num_groups; ++g) {
        y = __fmaf_rn(parts[at + g * kTileRows], scales[at + g * kTileRows], y);
      }
    }
    const int out_row = tile * kTileRows + row;
    if (args.rows == nullptr) {
      outs[shared.rank[k] * kTileRows + row] = y;
    } else if (out_row < args.hidden) {
      args.rows[(token * args.top_k + shared.rank[k]) * args.hidden + out_row] = y;
    }
  }
  if (args.rows != nullptr) return;
  __syncthreads();
  const int row = tile * kTileRows + thread;
  if (thread < kTileRows && row < args.hidden) join_row(args, token, row, outs + thread);
}

DownPlan down_plan(const ExpertArgs& args) {
  DownPlan plan;
  for (int i = 0; i < args.num_jobs; ++i) {
    const TileLayout& f = args.jobs[i].down;
    plan.cut[i] = cut_of(f);
    plan.piece_bytes = std::max(plan.piece_bytes, plan.cut[i].bytes);
    plan.pieces = std::max(plan.pieces, plan.cut[i].count);
    plan.slots = std::max(plan.slots, plan.cut[i].count * slots_of(plan.cut[i]));
  }
  return plan;
}

}  // namespace

bool fits_staged_down(const ExpertArgs& args, int64_t most) {
  return down_plan(args).shared_bytes(args.top_k) <= most - kStaticBytes;
}

void staged_down(Queue& queue, const ExpertArgs& args, int subs) {
  const DownPlan plan = down_plan(args);
  const Grid grid{static_cast<unsigned>(args.num_tokens), blocks_for(args.hidden, kTileRows), 1};
  const auto pick = [&]<int kSubs, bool kLong>() {
    HS_LAUNCH_EARLY(queue, grid, Grid{kStagedThreads}, plan.shared_bytes(args.top_k),
                    (staged_down_kernel<kSubs, kLong>), args, plan);
  };
  with_subs(subs, pick);
}

}  // namespace hotset::cuda
