// SPDX-License-Identifier: Apache-2.0
// gate·up·SwiGLU for few tokens: a block takes 32 rows of an expert, once for all tokens that chose
// it, and rounds the tokens while the tiles are on their way.
#include "kernels/cuda/moe_act.cuh"
#include "kernels/cuda/moe_staged.cuh"

namespace hotset::cuda {
namespace {

constexpr int kShares = 4;       // warps of a tile: (gate, up) × 2 tiles × 4 shares
constexpr int kRoundPieces = 4;  // of a warp, between two joins
constexpr int kMaxChunk = 4;     // tokens of one pass over an expert

// What a block finds to do: an expert, and the choices of it.
static_assert(kMaxFewChoices == kStagedThreads);
struct GateUpShared {
  alignas(16) int32_t ids[kMaxFewChoices];  // of choices that are here
  int16_t members[kMaxFewChoices];          // choices of this block's expert
  int leaders[kStagedWarps];                // of experts, in a warp's choices
  int num_members;
  Choice choice;
};

// One token: its choices are the experts. By warp 0.
__device__ inline void find_nth_choice(const ExpertArgs& args, int n, int lane,
                                       GateUpShared& shared) {
  const Choice mine = lane < args.top_k ? choice_at(args, lane) : no_choice();
  const unsigned here = __ballot_sync(kAllLanes, mine.expert >= 0);
  const bool is_nth = mine.expert >= 0 && __popc(here & lanes_below(lane)) == n;
  if (lane == 0) shared.num_members = __popc(here) > n ? 1 : 0;
  if (!is_nth) return;
  shared.choice = mine;
  shared.members[0] = static_cast<int16_t>(lane);
}

// Several tokens: the n-th expert in the order of first choices.
__device__ inline void find_nth_expert(const ExpertArgs& args, int n, int lane,
                                       GateUpShared& shared) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  const int num_pairs = args.num_tokens * args.top_k;
  const Choice mine = thread < num_pairs ? choice_at(args, thread) : no_choice();
  shared.ids[thread] = mine.expert;
  if (thread == 0) shared.num_members = 0;
  __syncthreads();
  const unsigned same = __match_any_sync(kAllLanes, mine.expert);
  bool is_first = mine.expert >= 0;
  if (is_first) {
    const auto* ids = reinterpret_cast<const int4*>(shared.ids);
    bool seen = (same & lanes_below(lane)) != 0;
    for (int i = 0; i < warp * kWarp / 4; ++i) {  // before this warp; all lanes read the same
      const int4 v = ids[i];
      seen |= v.x == mine.expert || v.y == mine.expert || v.z == mine.expert || v.w == mine.expert;
    }
    is_first = !seen;
  }
  const unsigned firsts = __ballot_sync(kAllLanes, is_first);
  if (lane == 0) shared.leaders[warp] = __popc(firsts);
  __syncthreads();
  int before = 0, total = 0;
  for (int w = 0; w < kStagedWarps; ++w) {
    before += w < warp ? shared.leaders[w] : 0;
    total += shared.leaders[w];
  }
  if (n >= total) return;
  if (is_first && before + __popc(firsts & lanes_below(lane)) == n) shared.choice = mine;
  __syncthreads();
  if (mine.expert >= 0 && mine.expert == shared.choice.expert) {
    shared.members[atomicAdd(&shared.num_members, 1)] = static_cast<int16_t>(thread);
  }
  __syncthreads();
}

// A block's dynamic shared memory: the rings, rounded tokens, parts [4][slots][chunk][16] with
// their scales [4][slots][16], y [gate, up][chunk][32].
struct GateUpPlan {
  int32_t ring_bytes = 0;   // of a warp
  int32_t slots = 0;        // groups of a tile whose parts wait to be joined
  int32_t chunk = 1;        // tokens at once
  int32_t x_subs = 0;       // of a rounded token
  int32_t reads_ahead = 0;  // of down's tiles, into the L2 cache
  PieceCut gate[kMaxExpertGroups];
  PieceCut up[kMaxExpertGroups];

  HS_BOTH int parts_floats() const { return 4 * slots * chunk * kTileRows; }
  HS_BOTH int scales_floats() const { return 4 * slots * kTileRows; }
  HS_BOTH int64_t shared_bytes() const {
    return int64_t{kStagedWarps} * ring_bytes + int64_t{chunk} * x_subs * (kSubBlock + 8) +
           4 * (int64_t{parts_floats()} + scales_floats() + 4 * chunk * kTileRows);
  }
};

// What a warp multiplies: a share of the pieces of one tile.
struct WarpShare {
  const TileLayout& f;
  const PieceCut& cut;
  const std::byte* tile;  // null: past the last
  std::byte* ring;
  int share;

  // To the ring's place `place`; no copy past the last piece.
  __device__ void fetch(int piece, int place, int lane) const {
    if (tile != nullptr && piece < cut.count) {
      const int at = cut.begin + piece * cut.bytes;
      copy_to_shared(ring + place * cut.bytes, tile + at,
                     min(cut.bytes, static_cast<int>(f.tile_bytes) - at), lane);
    }
    end_of_copies();
  }
};

// Parts of the groups of this warp's pieces of the round that begins with first_piece.
template <CodeKind kCode, int kTokens, int kSubs, bool kLong>
__device__ inline void multiply_pieces(const WarpShare& w, int first_piece, int& place,
                                       const CodebookTables& tables,
                                       const TokenInputs<kTokens>& inputs, int num_tokens,
                                       int chunk, int lane, float* parts, float* scales) {
  const int row = 2 * (lane / 4), c = lane % 4;
  const int end = min(first_piece + kShares * kRoundPieces, w.cut.count);
  // Rows 2r, 2r+1 of a slot, of the tokens that this lane has.
  const auto keep = [&](int slot, const float(&values)[4]) {
#pragma unroll
    for (int i = 0; i < kLaneTokens<kTokens>; ++i) {
      if (2 * c + i >= num_tokens) continue;
      *reinterpret_cast<float2*>(parts + (slot * chunk + 2 * c + i) * kTileRows + row) = {
          values[i], values[2 + i]};
    }
  };
  const int first_group = first_piece * w.cut.groups;
#pragma unroll 1
  for (int piece = first_piece + w.share; piece < end; piece += kShares) {
    wait_for_copies(w.cut.stages - 1);
    __syncwarp();
    const std::byte* block = w.ring + place * w.cut.bytes;
    if constexpr (kLong && kCode != CodeKind::kCodebook4) {
      if (w.cut.subs != 0) {
        const int sub = piece * w.cut.subs;
        staged_dots<kCode, kTokens>(
            block, tables, inputs, sub, min(sub + w.cut.subs, w.f.subs_per_group), lane,
            [&](int s, const float(&dots)[4]) { keep(s - first_piece * w.cut.subs, dots); });
      }
    }
    const int end_group = min((piece + 1) * w.cut.groups, w.f.num_groups);
#pragma unroll 1
    for (int g = piece * w.cut.groups; g < end_group; ++g, block += w.f.group_bytes) {
      staged_group<kCode, kTokens, kSubs>(
          w.f, block, tables, inputs, g, lane,
          [&](const GroupRows& rows, const GroupPart<kTokens>& part) {
            const int slot = g - first_group;
            if (c == 0) {
              *reinterpret_cast<float2*>(scales + slot * kTileRows + row) = {rows.scale[0],
                                                                             rows.scale[1]};
            }
            keep(slot, part.sum[0]);
          });
    }
    __syncwarp();
    w.fetch(piece + kShares * w.cut.stages, place, lane);
    if (++place == w.cut.stages) place = 0;
  }
}

// Who joins: a thread a row of a token, of gate's two tiles or up's.
struct Joined {
  int row, tile, token;
  __device__ Joined() {
    const int thread = static_cast<int>(threadIdx.x);
    row = thread % kTileRows, tile = thread / kTileRows % 4, token = thread / (4 * kTileRows);
  }
};

// The chain of a row of a token, which goes on from round to round.
template <bool kLong>
struct RowChain {
  float y = 0;
  LongGroup group;

  // By what lies in shared memory of the pieces from `base` on.
  __device__ void add(const TileLayout& f, const PieceCut& cut, int base, int chunk,
                      const float* parts, const float* scales, const float* meta) {
    if (kLong && cut.subs != 0) {
      const int first = base * cut.subs;
      const int end = min(first + kShares * kRoundPieces * cut.subs, f.subs_per_group);
      group.add(parts, chunk * kTileRows, meta + 2 * first, end - first);
      return;
    }
    const int groups = min(cut.groups * kShares * kRoundPieces, f.num_groups - base * cut.groups);
#pragma unroll 8
    for (int g = 0; g < groups; ++g) {
      y = __fmaf_rn(parts[g * chunk * kTileRows], scales[g * kTileRows], y);
    }
  }
};

// kTokens is 1, or 8 where several tokens may choose one expert.
template <int kTokens, int kSubs, bool kLong>
__global__ void __launch_bounds__(kStagedThreads, 2)
    staged_gate_up_kernel(const __grid_constant__ ExpertArgs args,
                          const __grid_constant__ GateUpPlan plan) {
  __shared__ GateUpShared shared;
  extern __shared__ __align__(16) std::byte dynamic[];
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp, lane = thread % kWarp;
  const int chunk = kTokens == 1 ? 1 : plan.chunk;
  auto* q = reinterpret_cast<int8_t*>(dynamic + kStagedWarps * plan.ring_bytes);
  auto* meta = reinterpret_cast<float*>(q + chunk * plan.x_subs * kSubBlock);
  float* parts = meta + chunk * plan.x_subs * 2;
  float* scales = parts + plan.parts_floats();
  float* y_area = scales + plan.scales_floats();
  const auto round_token = [&](int t, int64_t token) {
    round_whole_row(args.x + token * args.hidden, args.hidden, plan.x_subs, warp, kStagedWarps,
                    lane, q + t * plan.x_subs * kSubBlock, meta + t * plan.x_subs * 2);
  };
  wait_for_earlier();
  start_next();
  const int n = static_cast<int>(blockIdx.y);
  if constexpr (kTokens == 1) {
    // The others round meanwhile.
    if (warp == 0) find_nth_choice(args, n, lane, shared);
    round_token(0, 0);
    __syncthreads();
  } else {
    find_nth_expert(args, n, lane, shared);
  }
  const int count = kTokens == 1 ? min(shared.num_members, 1) : shared.num_members;
  if (count == 0) return;
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
  for (int first = 0; first < count; first += chunk) {
    const int num_tokens = kTokens == 1 ? 1 : min(chunk, count - first);
#pragma unroll 1
    for (int i = 0; i < mine.cut.stages; ++i) mine.fetch(mine.share + kShares * i, i, lane);
    if (plan.reads_ahead != 0 && first == 0) {
      const int64_t part = job.down.num_tiles() * job.down.tile_bytes / (gridDim.x * kStagedWarps);
      prefetch_bytes(shared.choice.down + (blockIdx.x * kStagedWarps + warp) * part, part, lane);
    }
    if constexpr (kTokens > 1) {
#pragma unroll 1
      for (int t = 0; t < num_tokens; ++t) {
        round_token(t, shared.members[first + t] / args.top_k);
      }
      __syncthreads();
    }
    const auto inputs = token_inputs<kTokens>(
        RoundedInput{q, meta, plan.x_subs}, [&](int t) { return min(t, num_tokens - 1); }, lane);
    const Joined at;
    const bool joins = at.token < num_tokens;
    RowChain<kLong> chain;
    with_integer_code<kIntegerKinds>(f.code, [&]<CodeKind kCode>() {
      const CodebookTables tables = load_tables<kCode>(f, lane);
      int place = 0;
#pragma unroll 1
      for (int base = 0; base < num_pieces; base += kShares * kRoundPieces) {
        multiply_pieces<kCode, kTokens, kSubs, kLong>(
            mine, base, place, tables, inputs, num_tokens, chunk, lane,
            parts + slot * plan.slots * chunk * kTileRows, scales + slot * plan.slots * kTileRows);
        __syncthreads();
        if (joins) {
          chain.add(at.tile >= 2 ? job.up : job.gate,
                    at.tile >= 2 ? plan.up[job_index] : plan.gate[job_index], base, chunk,
                    parts + (at.tile * plan.slots * chunk + at.token) * kTileRows + at.row,
                    scales + at.tile * plan.slots * kTileRows + at.row,
                    meta + at.token * plan.x_subs * 2);
        }
        if (base + kShares * kRoundPieces < num_pieces) __syncthreads();
      }
    });
    if (joins) {
      if constexpr (kLong) {
        const TileLayout& joined = at.tile >= 2 ? job.up : job.gate;
        const int joined_tile = 2 * static_cast<int>(blockIdx.x) + at.tile % 2;
        if ((at.tile >= 2 ? plan.up[job_index] : plan.gate[job_index]).subs != 0 &&
            joined_tile < joined.num_tiles()) {
          const std::byte* of = at.tile >= 2 ? shared.choice.up : shared.choice.gate;
          chain.y = chain.group.result(joined, of + joined_tile * joined.tile_bytes, at.row);
        }
      }
      y_area[((at.tile / 2 * chunk + at.token) * 2 + at.tile % 2) * kTileRows + at.row] = chain.y;
    }
    __syncthreads();
    if (warp < num_tokens) {
      finish_rows(args, job, y_area + warp * 2 * kTileRows, y_area + (chunk + warp) * 2 * kTileRows,
                  shared.members[first + warp], first_row, lane);
    }
  }
}

// With `stages` pieces in the largest ring.
GateUpPlan gate_up_plan(const ExpertArgs& args, int stages) {
  GateUpPlan plan;
  plan.chunk = std::min(args.num_tokens, kMaxChunk);
  for (int i = 0; i < args.num_jobs; ++i) {
    const ExpertJob& job = args.jobs[i];
    plan.gate[i] = cut_of(job.gate);
    plan.up[i] = cut_of(job.up);
    for (const PieceCut* cut : {&plan.gate[i], &plan.up[i]}) {
      plan.ring_bytes = std::max(plan.ring_bytes, stages * cut->bytes);
      plan.slots = std::max(plan.slots, kShares * kRoundPieces * slots_of(*cut));
    }
    plan.x_subs = std::max({plan.x_subs, job.gate.num_subs(), job.up.num_subs()});
  }
  plan.x_subs = (plan.x_subs + 1) / 2 * 2;
  for (int i = 0; i < args.num_jobs; ++i) {
    for (PieceCut* cut : {&plan.gate[i], &plan.up[i]}) {
      cut->stages = std::min(kMaxStages, plan.ring_bytes / cut->bytes);
    }
  }
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
  const Grid grid{blocks_for(rows, kSubBlock), static_cast<unsigned>(args.num_tokens * args.top_k),
                  1};
  const auto pick = [&]<int kSubs, bool kLong>() {
    const auto kernel = args.num_tokens == 1 ? staged_gate_up_kernel<1, kSubs, kLong>
                                             : staged_gate_up_kernel<8, kSubs, kLong>;
    HS_LAUNCH_EARLY(queue, grid, Grid{kStagedThreads}, plan.shared_bytes(), kernel, args, plan);
  };
  with_subs(subs, pick);
}

}  // namespace hotset::cuda
