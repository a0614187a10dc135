// SPDX-License-Identifier: Apache-2.0
// gate·up·SwiGLU of items: a block takes 32 rows of an expert for the tokens of an item, then those
// of another.
#include "kernels/cuda/moe_gate_up.cuh"
#include "kernels/cuda/moe_items.cuh"

namespace hotset::cuda {
namespace {

struct ItemsShared {
  ExpertItem items[2];                          // this one and the next
  CodebookTables tables[2 * kMaxExpertGroups];  // of each job's gate and up
};

// What a block's threads know all along.
struct GateUpBlock {
  const ExpertArgs& args;
  const GateUpPlan& plan;
  ItemsShared& shared;
  std::byte* rings;
  int8_t* q;
  float* meta;
  float* parts;
  float* scales;
  float* y;  // [gate, up][chunk][32]

  __device__ int first_row() const { return kSubBlock * static_cast<int>(blockIdx.x); }
  // Jobs may differ in rows.
  __device__ bool has_rows(const ExpertItem& item) const {
    return first_row() < args.jobs[item.job].covered_rows();
  }
  __device__ WarpShare share_of(const ExpertItem& item, int warp) const {
    const bool is_up = warp >= kStagedWarps / 2;
    const ExpertJob& job = args.jobs[item.job];
    const TileLayout& f = is_up ? job.up : job.gate;
    const std::byte* matrix = is_up ? item.up : item.gate;
    const int tile = 2 * static_cast<int>(blockIdx.x) + warp / kShares % 2;
    return {f, is_up ? plan.up[item.job] : plan.gate[item.job],
            tile < f.num_tiles() ? matrix + tile * f.tile_bytes : nullptr,
            rings + warp * plan.ring_bytes, warp % kShares};
  }
  __device__ void begin(const ExpertItem& item, int warp, int lane) const {
    if (!has_rows(item)) return;
    const WarpShare mine = share_of(item, warp);
#pragma unroll 1
    for (int i = 0; i < mine.cut.stages; ++i) mine.fetch(mine.share + kShares * i, i, lane);
  }
  __device__ void copy_tokens(const ExpertItem& item) const {
    copy_rows(
        args.x_in, [&](int t) { return item.pairs[t] / args.top_k; }, item.count, plan.x_subs, q,
        meta);
  }
  // gate and up of an item's tokens, to y.
  template <int kSubs, bool kLong>
  __device__ void multiply(const ExpertItem& item, int warp, int lane) const;
  __device__ void finish(const ExpertItem& item, int warp, int lane) const {
    if (warp >= item.count) return;
    finish_rows(args, args.jobs[item.job], y + warp * kSubBlock,
                y + (plan.chunk + warp) * kSubBlock, item.pairs[warp], first_row(), lane);
  }
};

template <int kSubs, bool kLong>
__device__ void GateUpBlock::multiply(const ExpertItem& item, int warp, int lane) const {
  const WarpShare mine = share_of(item, warp);
  const ExpertJob& job = args.jobs[item.job];
  const PieceCut &gate_cut = plan.gate[item.job], &up_cut = plan.up[item.job];
  const int count = item.count, chunk = plan.chunk, slot = warp / kShares;
  const auto inputs = token_inputs<kItemTokens>(
      RoundedInput{q, meta, plan.x_subs}, [&](int t) { return min(t, count - 1); }, lane);
  const Joined at;
  const bool joins = at.token < count, joins_up = at.tile >= 2;
  const int num_pieces = max(gate_cut.count, up_cut.count);
  RowChain<kLong> chain;
  with_integer_code<kIntegerKinds>(mine.f.code, [&]<CodeKind kCode>() {
    const CodebookTables tables = shared.tables[2 * item.job + (warp >= kStagedWarps / 2 ? 1 : 0)];
    int place = 0;
#pragma unroll 1
    for (int base = 0; base < num_pieces; base += kShares * kRoundPieces) {
      multiply_pieces<kCode, kItemTokens, kSubs, kLong>(
          mine, base, place, tables, inputs, count, chunk, lane,
          parts + slot * plan.slots * chunk * kTileRows, scales + slot * plan.slots * kTileRows);
      __syncthreads();
      if (joins) {
        chain.add(joins_up ? job.up : job.gate, joins_up ? up_cut : gate_cut, base, chunk,
                  parts + (at.tile * plan.slots * chunk + at.token) * kTileRows + at.row,
                  scales + at.tile * plan.slots * kTileRows + at.row,
                  meta + at.token * plan.x_subs * 2);
      }
      if (base + kShares * kRoundPieces < num_pieces) __syncthreads();
    }
  });
  if (!joins) return;
  if constexpr (kLong) {
    const TileLayout& joined = joins_up ? job.up : job.gate;
    const int tile = 2 * static_cast<int>(blockIdx.x) + at.tile % 2;
    if ((joins_up ? up_cut : gate_cut).subs != 0 && tile < joined.num_tiles()) {
      const std::byte* matrix = joins_up ? item.up : item.gate;
      chain.y = chain.group.result(joined, matrix + tile * joined.tile_bytes, at.row);
    }
  }
  y[((at.tile / 2 * chunk + at.token) * 2 + at.tile % 2) * kTileRows + at.row] = chain.y;
}

template <int kSubs, bool kLong>
__global__ void __launch_bounds__(kStagedThreads, 2)
    items_gate_up_kernel(const __grid_constant__ ExpertArgs args,
                         const __grid_constant__ GateUpPlan plan) {
  __shared__ ItemsShared shared;
  extern __shared__ __align__(16) std::byte dynamic[];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  auto* q = reinterpret_cast<int8_t*>(dynamic + kStagedWarps * plan.ring_bytes);
  auto* meta = reinterpret_cast<float*>(q + plan.chunk * plan.x_subs * kSubBlock);
  float* parts = meta + plan.chunk * plan.x_subs * 2;
  float* scales = parts + plan.parts_floats();
  const GateUpBlock block{
      args, plan, shared, dynamic, q, meta, parts, scales, scales + plan.scales_floats()};
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
  const int num_items = __ldcg(args.num_items), step = static_cast<int>(gridDim.y);
  int n = static_cast<int>(blockIdx.y);
  if (n >= num_items) return;
  load_item(args.items + n, shared.items[0]);
  __syncthreads();
  block.begin(shared.items[0], warp, lane);
#pragma unroll 1
  for (int which = 0; n < num_items; n += step, which ^= 1) {
    const ExpertItem& item = shared.items[which];
    ExpertItem& next = shared.items[which ^ 1];
    const bool has_rows = block.has_rows(item);
    if (has_rows) block.copy_tokens(item);
    __syncthreads();
    if (n + step < num_items) load_item(args.items + n + step, next);
    if (has_rows) block.multiply<kSubs, kLong>(item, warp, lane);
    __syncthreads();
    if (n + step < num_items) block.begin(next, warp, lane);
    if (has_rows) block.finish(item, warp, lane);
  }
}

// Pieces' ring, with `stages` of the smallest kind's.
GateUpPlan items_plan(const ExpertArgs& args, int stages) {
  GateUpPlan plan;
  plan.chunk = std::min(args.num_tokens, kItemTokens);
  const PieceBytes bytes = cut_matrices(args, plan);
  plan.x_subs |= 1;
  set_rings(std::max(stages * bytes.least, bytes.most), args.num_jobs, plan);
  return plan;
}

// Two blocks a multiprocessor if that leaves two pieces under way, or as many pieces as fit.
GateUpPlan fitting_items_plan(const ExpertArgs& args, int64_t most) {
  for (int stages = kMaxStages; stages > 1; --stages) {
    const GateUpPlan plan = items_plan(args, stages);
    if (plan.shared_bytes() <= most / 2 - kSharedReserve) return plan;
  }
  for (int stages = kMaxStages; stages > 1; --stages) {
    const GateUpPlan plan = items_plan(args, stages);
    if (plan.shared_bytes() <= most - kSharedReserve) return plan;
  }
  return items_plan(args, 1);
}

}  // namespace

bool fits_items_gate_up(const ExpertArgs& args, int64_t most) {
  return fitting_items_plan(args, most).shared_bytes() <= most - kSharedReserve;
}

void items_gate_up(Queue& queue, const ExpertArgs& args, int subs) {
  const GateUpPlan plan = fitting_items_plan(args, queue.runtime.info().max_shared_bytes);
  int rows = 0;
  for (int i = 0; i < args.num_jobs; ++i) rows = std::max(rows, args.jobs[i].covered_rows());
  const unsigned strips = blocks_for(rows, kSubBlock);
  const Grid grid{strips, items_at_once(queue, args, plan.shared_bytes(), strips), 1};
  with_subs(subs, [&]<int kSubs, bool kLong>() {
    HS_LAUNCH_EARLY(queue, grid, Grid{kStagedThreads}, plan.shared_bytes(),
                    (items_gate_up_kernel<kSubs, kLong>), args, plan);
  });
}

}  // namespace hotset::cuda
