// SPDX-License-Identifier: Apache-2.0
// gate·up·SwiGLU for one token: a block takes 32 rows of an expert, and rounds the token while the
// tiles are on their way.
#include "kernels/cuda/moe_gate_up.cuh"

namespace hotset::cuda {
namespace {

// What a block finds to do.
struct GateUpShared {
  bool exists;
  int pair;
  Choice choice;
  CodebookTables tables[2 * kMaxExpertGroups];  // of each job's gate and up
};

// The n-th choice that is here. By warp 0.
__device__ inline void find_nth_choice(const ExpertArgs& args, int n, int lane,
                                       GateUpShared& shared) {
  const Choice mine = lane < args.top_k ? choice_at(args, lane) : no_choice();
  const unsigned here = __ballot_sync(kAllLanes, mine.expert >= 0);
  const bool is_nth = mine.expert >= 0 && __popc(here & lanes_below(lane)) == n;
  if (lane == 0) shared.exists = __popc(here) > n;
  if (!is_nth) return;
  shared.choice = mine;
  shared.pair = lane;
}

template <int kSubs, bool kLong>
__global__ void __launch_bounds__(kStagedThreads, 2)
    staged_gate_up_kernel(const __grid_constant__ ExpertArgs args,
                          const __grid_constant__ GateUpPlan plan) {
  __shared__ GateUpShared shared;
  extern __shared__ __align__(16) std::byte dynamic[];
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp, lane = thread % kWarp;
  auto* q = reinterpret_cast<int8_t*>(dynamic + kStagedWarps * plan.ring_bytes);
  auto* meta = reinterpret_cast<float*>(q + plan.x_subs * kSubBlock);
  float* parts = meta + plan.x_subs * 2;
  float* scales = parts + plan.parts_floats();
  float* y_area = scales + plan.scales_floats();
  // Codebooks are there before the kernels that this one waits for.
  static_assert(2 * kMaxExpertGroups <= kStagedWarps);
  if (warp < 2 * args.num_jobs) {
    const ExpertJob& job = args.jobs[warp / 2];
    const TileLayout& f = warp % 2 == 0 ? job.gate : job.up;
    if (f.code == CodeKind::kCodebook4) {
      const CodebookTables tables = load_tables<CodeKind::kCodebook4>(f, lane);
      if (lane == 0) shared.tables[warp] = tables;
    }
  }
  wait_for_earlier();
  start_next();
  // The others round meanwhile.
  if (warp == 0) find_nth_choice(args, static_cast<int>(blockIdx.y), lane, shared);
  round_whole_row(args.x, args.hidden, plan.x_subs, warp, kStagedWarps, lane, q, meta);
  __syncthreads();
  if (!shared.exists) return;
  const int job_index = shared.choice.job;
  const ExpertJob& job = args.jobs[job_index];
  const int first_row = kSubBlock * static_cast<int>(blockIdx.x);
  if (first_row >= job.covered_rows()) return;

  const bool is_up = warp >= kStagedWarps / 2;
  const int slot = warp / kShares;  // (gate, up) × 2 tiles
  const int tile = 2 * static_cast<int>(blockIdx.x) + slot % 2;
  const TileLayout& f = is_up ? job.up : job.gate;
  const std::byte* matrix = is_up ? shared.choice.up : shared.choice.gate;
  const WarpShare mine{f, is_up ? plan.up[job_index] : plan.gate[job_index],
                       tile < f.num_tiles() ? matrix + tile * f.tile_bytes : nullptr,
                       dynamic + warp * plan.ring_bytes, warp % kShares};
  const int num_pieces = max(plan.gate[job_index].count, plan.up[job_index].count);
#pragma unroll 1
  for (int i = 0; i < mine.cut.stages; ++i) mine.fetch(mine.share + kShares * i, i, lane);
  if (plan.reads_ahead != 0) {
    const int64_t part = job.down.num_tiles() * job.down.tile_bytes / (gridDim.x * kStagedWarps);
    prefetch_bytes(shared.choice.down + (blockIdx.x * kStagedWarps + warp) * part, part, lane);
  }
  const auto inputs = token_inputs<1>(
      RoundedInput{q, meta, plan.x_subs}, [](int) { return 0; }, lane);
  const Joined at;
  const bool joins = at.token == 0, joins_up = at.tile >= 2;
  const PieceCut& joined_cut = joins_up ? plan.up[job_index] : plan.gate[job_index];
  const TileLayout& joined = joins_up ? job.up : job.gate;
  RowChain<kLong> chain;
  with_integer_code<kIntegerKinds>(f.code, [&]<CodeKind kCode>() {
    const CodebookTables tables = shared.tables[2 * job_index + (is_up ? 1 : 0)];
    int place = 0;
#pragma unroll 1
    for (int base = 0; base < num_pieces; base += kShares * kRoundPieces) {
      multiply_pieces<kCode, 1, kSubs, kLong>(mine, base, place, tables, inputs, 1, 1, lane,
                                              parts + slot * plan.slots * kTileRows,
                                              scales + slot * plan.slots * kTileRows);
      __syncthreads();
      if (joins) {
        const int from = at.tile * plan.slots * kTileRows + at.row;
        chain.add(joined, joined_cut, base, 1, parts + from, scales + from, meta);
      }
      if (base + kShares * kRoundPieces < num_pieces) __syncthreads();
    }
  });
  if (joins) {
    if constexpr (kLong) {
      const int joined_tile = 2 * static_cast<int>(blockIdx.x) + at.tile % 2;
      if (joined_cut.subs != 0 && joined_tile < joined.num_tiles()) {
        const std::byte* of = joins_up ? shared.choice.up : shared.choice.gate;
        chain.y = chain.group.result(joined, of + joined_tile * joined.tile_bytes, at.row);
      }
    }
    y_area[at.tile * kTileRows + at.row] = chain.y;
  }
  __syncthreads();
  if (warp == 0) {
    finish_rows(args, job, y_area, y_area + kSubBlock, shared.pair, first_row, lane);
  }
}

// With `stages` pieces in the largest ring.
GateUpPlan gate_up_plan(const ExpertArgs& args, int stages) {
  GateUpPlan plan;
  const PieceBytes bytes = cut_matrices(args, plan);
  plan.x_subs = (plan.x_subs + 1) / 2 * 2;
  set_rings(stages * bytes.most, args.num_jobs, plan);
  return plan;
}

// Two blocks a multiprocessor if that leaves three pieces under way, or as many pieces as fit.
GateUpPlan fitting_plan(const ExpertArgs& args, int64_t most) {
  for (int stages = kMaxStages; stages >= kMaxStages - 1; --stages) {
    const GateUpPlan plan = gate_up_plan(args, stages);
    if (plan.shared_bytes() <= most / 2 - kStaticBytes) return plan;
  }
  for (int stages = kMaxStages; stages > 1; --stages) {
    const GateUpPlan plan = gate_up_plan(args, stages);
    if (plan.shared_bytes() <= most - kStaticBytes) return plan;
  }
  return gate_up_plan(args, 1);
}

}  // namespace

bool fits_staged_gate_up(const ExpertArgs& args, int64_t most) {
  return fitting_plan(args, most).shared_bytes() <= most - kStaticBytes;
}

void staged_gate_up(Queue& queue, const ExpertArgs& args, int subs, int64_t most) {
  GateUpPlan plan = fitting_plan(args, most);
  plan.reads_ahead = args.prefetches_down ? 1 : 0;
  int rows = 0;
  for (int i = 0; i < args.num_jobs; ++i) rows = std::max(rows, args.jobs[i].covered_rows());
  const Grid grid{blocks_for(rows, kSubBlock), static_cast<unsigned>(args.top_k), 1};
  const auto pick = [&]<int kSubs, bool kLong>() {
    HS_LAUNCH_EARLY(queue, grid, Grid{kStagedThreads}, plan.shared_bytes(),
                    (staged_gate_up_kernel<kSubs, kLong>), args, plan);
  };
  with_subs(subs, pick);
}

}  // namespace hotset::cuda
