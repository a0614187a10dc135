// SPDX-License-Identifier: Apache-2.0
// down of items: a warp takes a tile of an expert for the tokens of an item, then that of another.
// It asks for the first while gate·up still runs.
#include "kernels/cuda/moe_items.cuh"

namespace hotset::cuda {
namespace {

// A block's dynamic shared memory: the rings and the item's rounded rows.
struct DownItemsPlan {
  int32_t ring_bytes = 0;  // of a warp
  int32_t subs = 0;        // from a rounded row to the next
  int32_t chunk = 1;
  PieceCut cut[kMaxExpertGroups];

  HS_BOTH int64_t shared_bytes() const {
    return int64_t{kStagedWarps} * ring_bytes + int64_t{chunk} * subs * (kSubBlock + 8);
  }
};

struct DownItemsShared {
  ExpertItem items[2];  // this one and the next
  CodebookTables tables[kMaxExpertGroups];
};

// A warp's tile of one item.
struct DownTile {
  const TileLayout& f;
  const PieceCut& cut;
  const std::byte* tile;  // null: past the last
  std::byte* ring;

  __device__ void fetch(int piece, int place, int lane) const {
    if (piece < cut.count) {
      const int at = cut.begin + piece * cut.bytes;
      copy_to_shared(ring + place * cut.bytes, tile + at,
                     min(cut.bytes, static_cast<int>(f.tile_bytes) - at), lane);
    }
    end_of_copies();
  }
  __device__ void begin(int lane) const {
    if (tile == nullptr) return;
#pragma unroll 1
    for (int i = 0; i < cut.stages; ++i) fetch(i, i, lane);
  }
  // y: row 2r + i/2 of token 2c + i%2.
  template <CodeKind kCode, int kSubs, bool kLong>
  __device__ void multiply(const CodebookTables& tables, const TokenInputs<kItemTokens>& inputs,
                           int lane, float (&y)[4]) const;
};

template <CodeKind kCode, int kSubs, bool kLong>
__device__ void DownTile::multiply(const CodebookTables& tables,
                                   const TokenInputs<kItemTokens>& inputs, int lane,
                                   float (&y)[4]) const {
  const auto add = [&](const GroupRows& rows, const GroupPart<kItemTokens>& part) {
#pragma unroll
    for (int i = 0; i < 4; ++i) y[i] = __fmaf_rn(part.sum[0][i], rows.scale[i / 2], y[i]);
  };
  GroupPart<kItemTokens> whole;  // of a long group
#pragma unroll 1
  for (int piece = 0, place = 0; piece < cut.count; ++piece) {
    wait_for_copies(cut.stages - 1);
    __syncwarp();
    const std::byte* block = ring + place * cut.bytes;
    if (kLong && cut.subs != 0) {
      const int first = piece * cut.subs, end = min(first + cut.subs, f.subs_per_group);
#pragma unroll 1
      for (int sub = first; sub < end; ++sub, block += kSubBytes<kCode>) {
        whole.template add<kCode>(staged_codes<kCode>(block, lane), tables, inputs, sub);
      }
    }
    const int end_group = min((piece + 1) * cut.groups, f.num_groups);
#pragma unroll 1
    for (int g = piece * cut.groups; g < end_group; ++g, block += f.group_bytes) {
      staged_group<kCode, kItemTokens, kSubs>(f, block, tables, inputs, g, lane, add);
    }
    __syncwarp();
    fetch(piece + cut.stages, place, lane);
    if (++place == cut.stages) place = 0;
  }
  if (kLong && cut.subs != 0) {
    const GroupRows rows = group_rows<kCode>(f, load_rows(f, tile, lane), tables.step);
    if (needs_zero<kCode>(f)) whole.take_off_zeros(rows);
    add(rows, whole);
  }
}

__device__ inline void write_rows(const ExpertArgs& args, const ExpertItem& item, int tile,
                                  int lane, const float (&y)[4]) {
  const int row = kTileRows * tile + 2 * (lane / 4);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int token = 2 * (lane % 4) + i;
    if (token >= item.count) continue;
    float* to = args.rows + static_cast<int64_t>(item.pairs[token]) * args.hidden + row;
    if (row + 1 < args.hidden && args.hidden % 2 == 0) {
      *reinterpret_cast<float2*>(to) = {y[i], y[2 + i]};
      continue;
    }
    if (row < args.hidden) to[0] = y[i];
    if (row + 1 < args.hidden) to[1] = y[2 + i];
  }
}

template <int kSubs, bool kLong>
__global__ void __launch_bounds__(kStagedThreads, 2)
    items_down_kernel(const __grid_constant__ ExpertArgs args,
                      const __grid_constant__ DownItemsPlan plan) {
  __shared__ DownItemsShared shared;
  extern __shared__ __align__(16) std::byte dynamic[];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  auto* q = reinterpret_cast<int8_t*>(dynamic + kStagedWarps * plan.ring_bytes);
  auto* meta = reinterpret_cast<float*>(q + plan.chunk * plan.subs * kSubBlock);
  const int tile = static_cast<int>(blockIdx.x) * kStagedWarps + warp;
  const auto tile_of = [&](const ExpertItem& item) {
    const TileLayout& f = args.jobs[item.job].down;
    return DownTile{f, plan.cut[item.job],
                    tile < f.num_tiles() ? item.down + tile * f.tile_bytes : nullptr,
                    dynamic + warp * plan.ring_bytes};
  };
  start_next();
  // The list is older than gate·up, which had it before it let this kernel start.
  const int num_items = __ldcg(args.num_items), step = static_cast<int>(gridDim.y);
  int n = static_cast<int>(blockIdx.y);
  if (n < num_items) load_item(args.items + n, shared.items[0]);
  if (warp < args.num_jobs && args.jobs[warp].down.code == CodeKind::kCodebook4) {
    const CodebookTables tables = load_tables<CodeKind::kCodebook4>(args.jobs[warp].down, lane);
    if (lane == 0) shared.tables[warp] = tables;
  }
  __syncthreads();
  if (n < num_items) tile_of(shared.items[0]).begin(lane);
  wait_for_earlier();
#pragma unroll 1
  for (int which = 0; n < num_items; n += step, which ^= 1) {
    const ExpertItem& item = shared.items[which];
    ExpertItem& next = shared.items[which ^ 1];
    copy_rows(
        args.act_in, [&](int t) { return item.pairs[t]; }, item.count, plan.subs, q, meta);
    __syncthreads();
    if (n + step < num_items) load_item(args.items + n + step, next);
    const DownTile mine = tile_of(item);
    const auto inputs = token_inputs<kItemTokens>(
        RoundedInput{q, meta, plan.subs}, [&](int t) { return min(t, item.count - 1); }, lane);
    float y[4] = {};
    if (mine.tile != nullptr) {
      with_integer_code<kIntegerKinds>(mine.f.code, [&]<CodeKind kCode>() {
        const CodebookTables tables = shared.tables[item.job];
        mine.multiply<kCode, kSubs, kLong>(tables, inputs, lane, y);
      });
    }
    __syncthreads();
    if (n + step < num_items) tile_of(next).begin(lane);
    if (mine.tile != nullptr) write_rows(args, item, tile, lane, y);
  }
}

DownItemsPlan down_items_plan(const ExpertArgs& args) {
  DownItemsPlan plan;
  plan.chunk = std::min(args.num_tokens, kItemTokens);
  int32_t least = INT32_MAX, most = 0;
  for (int i = 0; i < args.num_jobs; ++i) {
    plan.cut[i] = cut_of(args.jobs[i].down);
    least = std::min(least, plan.cut[i].bytes);
    most = std::max(most, plan.cut[i].bytes);
  }
  plan.ring_bytes = std::max(kMaxStages * least, most);
  for (int i = 0; i < args.num_jobs; ++i) {
    plan.cut[i].stages = std::min(kMaxStages, plan.ring_bytes / plan.cut[i].bytes);
  }
  plan.subs = args.act_in.sub_stride | 1;
  return plan;
}

}  // namespace

bool fits_items_down(const ExpertArgs& args, int64_t most) {
  DownItemsPlan plan = down_items_plan(args);
  for (int i = 0; i < args.num_jobs; ++i) {
    plan.subs = std::max(plan.subs, args.jobs[i].down.num_subs() | 1);
  }
  return plan.shared_bytes() <= most - kSharedReserve;
}

void items_down(Queue& queue, const ExpertArgs& args, int subs) {
  const DownItemsPlan plan = down_items_plan(args);
  const unsigned strips = blocks_for(blocks_for(args.hidden, kTileRows), kStagedWarps);
  const Grid grid{strips, items_at_once(queue, args, plan.shared_bytes(), strips), 1};
  with_subs(subs, [&]<int kSubs, bool kLong>() {
    HS_LAUNCH_EARLY(queue, grid, Grid{kStagedThreads}, plan.shared_bytes(),
                    (items_down_kernel<kSubs, kLong>), args, plan);
  });
}

}  // namespace hotset::cuda
