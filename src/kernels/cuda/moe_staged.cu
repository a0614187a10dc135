// SPDX-License-Identifier: Apache-2.0
// Experts for few tokens where all products are integer. Two launches, as in moe_decode.cu, whose
// blocks stage their tiles through shared memory: all of a block's loads are under way before it
// rounds its tokens. gate·up takes an expert once for all tokens that chose it; down takes a token
// and finds its choices' tiles in the L2 cache where other tokens want the same. Choices that are
// not here cost nothing: a block takes the n-th of those that are.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe_launch.h"
#include "kernels/cuda/staged_tiles.cuh"

namespace hotset::cuda {
namespace {

constexpr int kWarps = 16;
constexpr int kThreads = kWarp * kWarps;
constexpr int kShares = 4;       // warps of a tile in gate·up: (gate, up) × 2 tiles × 4 shares
constexpr int kRoundPieces = 4;  // of a warp, between two joins
constexpr int kDownStages = 2;
constexpr int kMaxStagedJobs = 2;
constexpr int kMaxChunk = 4;  // tokens of one pass over an expert
constexpr int kMaxSubsPerGroup = 8;
constexpr Kinds kIntegerKinds = kind_bit(CodeKind::kAffine4, true) |
                                kind_bit(CodeKind::kInt8, true) |
                                kind_bit(CodeKind::kCodebook4, true);

__device__ inline int job_index(const ExpertArgs& args, int expert) {
  const auto has = [&](const ExpertJob& job) {
    return expert >= job.first_expert && expert < job.end_expert;
  };
  if (has(args.jobs[0])) return 0;
  return args.num_jobs > 1 && has(args.jobs[1]) ? 1 : -1;
}

// One choice, by one lane or thread.
struct Choice {
  int expert;  // −1: not here
  int job;
  const std::byte* gate;
  const std::byte* up;
  const std::byte* down;
};

__device__ inline Choice no_choice() {
  return {-1, -1, nullptr, nullptr, nullptr};
}

// Past the L1 cache: down looks before it has waited for the kernels before it, and a
// multiprocessor may still have what the same buffers held for another layer.
__device__ inline const std::byte* pointer_at(const std::byte* const* from) {
  return reinterpret_cast<const std::byte*>(
      __ldcg(reinterpret_cast<const unsigned long long*>(from)));
}

__device__ inline Choice choice_at(const ExpertArgs& args, int64_t pair) {
  Choice choice = no_choice();
  const int expert = __ldcg(args.ids + pair);
  if (expert < 0) return choice;
  choice.job = job_index(args, expert);
  if (choice.job < 0) return choice;
  const ExpertAddress& address = args.address_of(pair, expert);
  choice.gate = pointer_at(&address.gate);
  choice.up = pointer_at(&address.up);
  choice.down = pointer_at(&address.down);
  if (choice.gate != nullptr) choice.expert = expert;
  return choice;
}

// Brings a kernel's parameters to the constant cache, while there is something else to wait for:
// they are some dozens of lines, and taken one after the other each would cost a trip to the L2.
// What comes out is of no use, but somebody has to take it.
template <typename Params>
__device__ inline int touch(const Params& params, int warp) {
  constexpr int kLine = 64;
  const auto* words = reinterpret_cast<const int*>(&params);
  int sum = 0;
  for (int i = warp; i < static_cast<int>(sizeof(Params)) / kLine; i += kWarps) {
    sum += words[kLine / 4 * i];
  }
  return sum;
}

__device__ inline unsigned lanes_below(int lane) {
  return (1u << lane) - 1;
}

// ── gate·up ─────────────────────────────────────────────────────────────────────────────────────

// What a block finds to do: an expert, and the choices of it.
static_assert(kMaxFewChoices == kThreads);
struct GateUpShared {
  alignas(16) int32_t ids[kMaxFewChoices];  // of choices that are here
  int16_t members[kMaxFewChoices];          // choices of this block's expert
  int leaders[kWarps];                      // of experts, in a warp's choices
  int num_members;
  int touched[kWarps];
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
  for (int w = 0; w < kWarps; ++w) {
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
  int32_t ring_bytes = 0;        // of a warp
  int32_t slots = 0;             // groups of a tile whose parts wait to be joined
  int32_t chunk = 1;             // tokens at once
  int32_t x_subs = 0;            // of a rounded token
  int32_t reads_ahead = 0;       // of down's tiles, into the L2 cache
  PieceCut cut[kMaxStagedJobs];  // of gates and ups alike

  HS_BOTH int parts_floats() const { return 4 * slots * chunk * kTileRows; }
  HS_BOTH int scales_floats() const { return 4 * slots * kTileRows; }
  HS_BOTH int64_t shared_bytes() const {
    return int64_t{kWarps} * ring_bytes + int64_t{chunk} * x_subs * (kSubBlock + 8) +
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
template <CodeKind kCode, int kTokens, int kSubs>
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
#pragma unroll 1
  for (int piece = first_piece + w.share; piece < end; piece += kShares) {
    wait_for_copies(w.cut.stages - 1);
    __syncwarp();
    const std::byte* block = w.ring + place * w.cut.bytes;
    if (w.cut.subs != 0) {
      if constexpr (kCode != CodeKind::kCodebook4) {
        const int sub = piece * w.cut.subs;
        staged_dots<kCode, kTokens>(
            block, tables, inputs, sub, min(sub + w.cut.subs, w.f.subs_per_group), lane,
            [&](int s, const float(&dots)[4]) { keep(s - first_piece * w.cut.subs, dots); });
      }
    } else {
      const int end_group = min((piece + 1) * w.cut.groups, w.f.num_groups);
#pragma unroll 1
      for (int g = piece * w.cut.groups; g < end_group; ++g, block += w.f.group_bytes) {
        staged_group<kCode, kTokens, kSubs>(
            w.f, block, tables, inputs, g, lane,
            [&](const GroupRows& rows, const GroupPart<kTokens>& part) {
              const int slot = g - first_piece * w.cut.groups;
              if (c == 0) {
                *reinterpret_cast<float2*>(scales + slot * kTileRows + row) = {rows.scale[0],
                                                                               rows.scale[1]};
              }
              keep(slot, part.sum[0]);
            });
      }
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
struct RowChain {
  float y = 0;
  LongGroup group;

  // By what lies in shared memory of the pieces from `base` on.
  __device__ void add(const TileLayout& f, const PieceCut& cut, int base, int chunk,
                      const float* parts, const float* scales, const float* meta) {
    const int pieces = min(kShares * kRoundPieces, cut.count - base);
    if (pieces <= 0) return;
    if (cut.subs != 0) {
      const int first = base * cut.subs, end = min(first + pieces * cut.subs, f.subs_per_group);
      group.add(parts, chunk * kTileRows, meta + 2 * first, end - first);
      return;
    }
    const int groups = min(pieces * cut.groups, f.num_groups - base * cut.groups);
#pragma unroll 8
    for (int g = 0; g < groups; ++g) {
      y = __fmaf_rn(parts[g * chunk * kTileRows], scales[g * kTileRows], y);
    }
  }
};

// One warp: SwiGLU of 32 rows of one choice, and their rounding.
__device__ inline void finish_rows(const ExpertArgs& args, const ExpertJob& job, const float* gate,
                                   const float* up, int64_t pair, int first_row, int lane) {
  const int row = first_row + lane;
  const float value = row < job.gate.rows ? silu_mul(gate[lane], up[lane]) : 0.0f;
  if (!job.rounds_act) {
    if (row < job.gate.rows) args.act[pair * args.max_width + row] = value;
    return;
  }
  const RoundedValue rounded = round_sub_block(value);
  const RoundedInput& to = args.act_in;
  to.q[pair * to.sub_stride * kSubBlock + row] = static_cast<int8_t>(rounded.q);
  if (lane == 0) {
    float* meta = to.meta + (pair * to.sub_stride + first_row / kSubBlock) * 2;
    *reinterpret_cast<float2*>(meta) = {rounded.scale, static_cast<float>(rounded.sum)};
  }
}

// Where what is in a block's dynamic shared memory.
struct GateUpAreas {
  std::byte* ring;  // of this warp
  int8_t* q;
  float* meta;
  float* parts;
  float* scales;
  float* y;

  __device__ GateUpAreas(const GateUpPlan& plan, std::byte* dynamic, int chunk, int warp) {
    ring = dynamic + warp * plan.ring_bytes;
    q = reinterpret_cast<int8_t*>(dynamic + kWarps * plan.ring_bytes);
    meta = reinterpret_cast<float*>(q + chunk * plan.x_subs * kSubBlock);
    parts = meta + chunk * plan.x_subs * 2;
    scales = parts + plan.parts_floats();
    y = scales + plan.scales_floats();
  }
};

// All warps; token `slot` of those at work.
__device__ inline void round_token(const ExpertArgs& args, const GateUpPlan& plan,
                                   const GateUpAreas& areas, int slot, int64_t token, int warp,
                                   int lane) {
  round_whole_row(args.x + token * args.hidden, args.hidden, plan.x_subs, warp, kWarps, lane,
                  areas.q + slot * plan.x_subs * kSubBlock, areas.meta + slot * plan.x_subs * 2);
}

// What a block does for an expert of job kJob: a constant, so that what is known of the job are
// operands of instructions.
template <int kTokens, int kSubs, int kJob>
__device__ inline void gate_up_block(const ExpertArgs& args, const GateUpPlan& plan,
                                     const GateUpShared& shared, const GateUpAreas& areas) {
  const ExpertJob& job = args.jobs[kJob];
  const TileLayout& f = job.gate;  // and up's
  const PieceCut& cut = plan.cut[kJob];
  const int first_row = kSubBlock * static_cast<int>(blockIdx.x);
  if (first_row >= job.covered_rows()) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp, lane = thread % kWarp;
  const int chunk = kTokens == 1 ? 1 : plan.chunk;
  const int count = kTokens == 1 ? 1 : shared.num_members;
  const bool is_up = warp >= kWarps / 2;
  const int slot = warp / kShares;  // (gate, up) × 2 tiles
  const int tile = 2 * static_cast<int>(blockIdx.x) + slot % 2;
  const std::byte* matrix = is_up ? shared.choice.up : shared.choice.gate;
  const WarpShare mine{f, cut, tile < f.num_tiles() ? matrix + tile * f.tile_bytes : nullptr,
                       areas.ring, warp % kShares};
#pragma unroll 1
  for (int first = 0; first < count; first += chunk) {
    const int num_tokens = kTokens == 1 ? 1 : min(chunk, count - first);
#pragma unroll 1
    for (int i = 0; i < cut.stages; ++i) mine.fetch(mine.share + kShares * i, i, lane);
    if (plan.reads_ahead != 0 && first == 0) {
      const int64_t part = job.down.num_tiles() * job.down.tile_bytes / (gridDim.x * kWarps);
      prefetch_bytes(shared.choice.down + (blockIdx.x * kWarps + warp) * part, part, lane);
    }
    if constexpr (kTokens > 1) {
#pragma unroll 1
      for (int t = 0; t < num_tokens; ++t) {
        round_token(args, plan, areas, t, shared.members[first + t] / args.top_k, warp, lane);
      }
      __syncthreads();
    }
    const auto inputs = token_inputs<kTokens>(
        RoundedInput{areas.q, areas.meta, plan.x_subs},
        [&](int t) { return min(t, num_tokens - 1); }, lane);
    const Joined at;
    const bool joins = at.token < num_tokens;
    RowChain chain;
    with_integer_code<kIntegerKinds>(f.code, [&]<CodeKind kCode>() {
      const CodebookTables tables = load_tables<kCode>(is_up ? job.up : job.gate, lane);
      int place = 0;
#pragma unroll 1
      for (int base = 0; base < cut.count; base += kShares * kRoundPieces) {
        multiply_pieces<kCode, kTokens, kSubs>(mine, base, place, tables, inputs, num_tokens, chunk,
                                               lane,
                                               areas.parts + slot * plan.slots * chunk * kTileRows,
                                               areas.scales + slot * plan.slots * kTileRows);
        __syncthreads();
        if (joins) {
          chain.add(f, cut, base, chunk,
                    areas.parts + (at.tile * plan.slots * chunk + at.token) * kTileRows + at.row,
                    areas.scales + at.tile * plan.slots * kTileRows + at.row,
                    areas.meta + at.token * plan.x_subs * 2);
        }
        if (base + kShares * kRoundPieces < cut.count) __syncthreads();
      }
    });
    if (joins) {
      const int joined = 2 * static_cast<int>(blockIdx.x) + at.tile % 2;
      if (cut.subs != 0 && joined < f.num_tiles()) {
        const std::byte* of = at.tile >= 2 ? shared.choice.up : shared.choice.gate;
        chain.y = chain.group.result(f, of + joined * f.tile_bytes, at.row);
      }
      areas.y[((at.tile / 2 * chunk + at.token) * 2 + at.tile % 2) * kTileRows + at.row] = chain.y;
    }
    __syncthreads();
    if (warp < num_tokens) {
      finish_rows(args, job, areas.y + warp * 2 * kTileRows,
                  areas.y + (chunk + warp) * 2 * kTileRows, shared.members[first + warp], first_row,
                  lane);
    }
  }
}

// kTokens is 1, or 8 where several tokens may choose one expert.
template <int kTokens, int kSubs>
__global__ void __launch_bounds__(kThreads, 2)
    staged_gate_up_kernel(const __grid_constant__ ExpertArgs args,
                          const __grid_constant__ GateUpPlan plan) {
  __shared__ GateUpShared shared;
  extern __shared__ __align__(16) std::byte dynamic[];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const GateUpAreas areas(plan, dynamic, kTokens == 1 ? 1 : plan.chunk, warp);
  shared.touched[warp] = touch(args, warp) + touch(plan, warp);
  wait_for_earlier();
  start_next();
  const int n = static_cast<int>(blockIdx.y);
  if constexpr (kTokens == 1) {
    // The others round meanwhile.
    if (warp == 0) find_nth_choice(args, n, lane, shared);
    round_token(args, plan, areas, 0, 0, warp, lane);
    __syncthreads();
  } else {
    find_nth_expert(args, n, lane, shared);
  }
  if (shared.num_members == 0) return;
  if (shared.choice.job == 0) {
    gate_up_block<kTokens, kSubs, 0>(args, plan, shared, areas);
  } else {
    gate_up_block<kTokens, kSubs, 1>(args, plan, shared, areas);
  }
}

// ── down ────────────────────────────────────────────────────────────────────────────────────────

// A block's dynamic shared memory: the rings, parts [top_k][slots][16], as many scales, and the
// choices' outputs [top_k][16].
struct DownPlan {
  int32_t piece_bytes = 0;  // the largest
  int32_t pieces = 0;       // of a tile, the most of any expert
  int32_t slots = 0;        // groups, or sub-blocks of the only one, likewise
  PieceCut cut[kMaxStagedJobs];

  HS_BOTH int64_t shared_bytes(int top_k) const {
    return int64_t{kWarps} * kDownStages * piece_bytes +
           int64_t{4} * top_k * kTileRows * (2 * slots + 1);
  }
};

struct DownShared {
  CodebookTables tables[kMaxStagedJobs];
  Choice choices[kMaxStagedTopK];
  int32_t rank[kMaxStagedTopK];  // which of the token's choices
  int num_here;
  int touched[kWarps];
};

// Where a warp is among the pieces of the choices: as many warps as a tile has pieces go on
// together from choice to choice.
struct DownPlace {
  int choice, piece, choice_step, first_piece, piece_step;

  __device__ DownPlace(int warp, int pieces) {
    piece_step = min(pieces, kWarps);
    choice_step = kWarps / piece_step;
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

// One piece of a tile: its parts and scales, or dot products.
template <int kSubs, int kJob>
__device__ inline void multiply_down(const ExpertArgs& args, const DownPlan& plan,
                                     const std::byte* block, int piece,
                                     const CodebookTables& tables, int64_t pair, int lane,
                                     float* parts, float* scales) {
  const TileLayout& f = args.jobs[kJob].down;
  const PieceCut& cut = plan.cut[kJob];
  const int row = 2 * (lane / 4);
  const auto inputs = token_inputs<1>(
      args.act_in, [&](int) { return pair; }, lane);
  const auto keep = [&](float* to, int slot, float first, float second) {
    if (lane % 4 == 0) *reinterpret_cast<float2*>(to + slot * kTileRows + row) = {first, second};
  };
  with_integer_code<kIntegerKinds>(f.code, [&]<CodeKind kCode>() {
    if (cut.subs != 0) {
      if constexpr (kCode != CodeKind::kCodebook4) {
        const int sub = piece * cut.subs;
        staged_dots<kCode, 1>(
            block, tables, inputs, sub, min(sub + cut.subs, f.subs_per_group), lane,
            [&](int s, const float(&dots)[4]) { keep(parts, s, dots[0], dots[2]); });
      }
      return;
    }
    const int end_group = min((piece + 1) * cut.groups, f.num_groups);
#pragma unroll 1
    for (int g = piece * cut.groups; g < end_group; ++g, block += f.group_bytes) {
      staged_group<kCode, 1, kSubs>(f, block, tables, inputs, g, lane,
                                    [&](const GroupRows& rows, const GroupPart<1>& part) {
                                      keep(parts, g, part.sum[0][0], part.sum[0][2]);
                                      keep(scales, g, rows.scale[0], rows.scale[1]);
                                    });
    }
  });
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

template <int kSubs>
__global__ void __launch_bounds__(kThreads, 2)
    staged_down_kernel(const __grid_constant__ ExpertArgs args,
                       const __grid_constant__ DownPlan plan) {
  __shared__ DownShared shared;
  extern __shared__ __align__(16) std::byte dynamic[];
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp, lane = thread % kWarp;
  const int64_t token = blockIdx.x;
  const int tile = static_cast<int>(blockIdx.y);
  std::byte* ring = dynamic + warp * kDownStages * plan.piece_bytes;
  auto* parts = reinterpret_cast<float*>(dynamic + kWarps * kDownStages * plan.piece_bytes);
  float* scales = parts + args.top_k * plan.slots * kTileRows;
  float* outs = scales + args.top_k * plan.slots * kTileRows;
  start_next();
  shared.touched[warp] = touch(args, warp) + touch(plan, warp);
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
    if (now.piece < plan.cut[job].count) {
      const int64_t pair = token * args.top_k + shared.rank[now.choice];
      const std::byte* block = ring + place * plan.piece_bytes;
      const int at = now.choice * plan.slots * kTileRows;
      if (job == 0) {
        multiply_down<kSubs, 0>(args, plan, block, now.piece, shared.tables[0], pair, lane,
                                parts + at, scales + at);
      } else {
        multiply_down<kSubs, 1>(args, plan, block, now.piece, shared.tables[1], pair, lane,
                                parts + at, scales + at);
      }
    }
    __syncwarp();
    fetch_next(place);
    if (++place == kDownStages) place = 0;
  }
  __syncthreads();
  for (int i = thread; i < num_here * kTileRows; i += kThreads) {
    const int k = i / kTileRows, row = i % kTileRows;
    const int job = shared.choices[k].job;
    const TileLayout& f = args.jobs[job].down;
    const int at = k * plan.slots * kTileRows + row;
    float y = 0;
    if (plan.cut[job].subs != 0) {
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

// ── What fits ───────────────────────────────────────────────────────────────────────────────────

constexpr int64_t kPieceBytes = 1024;
constexpr int64_t kStaticBytes = 8 << 10;  // of shared memory, and the driver's

// The only group of a row, when that is long.
bool has_long_group(const TileLayout& f) {
  return f.num_groups == 1 && f.subs_per_group > kMaxSubsPerGroup;
}

int slots_of(const PieceCut& cut) {
  return cut.subs != 0 ? cut.subs : cut.groups;
}

PieceCut cut_of(const TileLayout& f) {
  PieceCut cut;
  if (has_long_group(f)) {
    const int sub_bytes =
        f.code == CodeKind::kInt8 ? kSubBytes<CodeKind::kInt8> : kSubBytes<CodeKind::kAffine4>;
    cut.subs = 4;
    cut.begin = f.codes_offset;
    cut.bytes = cut.subs * sub_bytes;
    cut.count = (f.subs_per_group + cut.subs - 1) / cut.subs;
    return cut;
  }
  cut.groups = static_cast<int32_t>(std::max<int64_t>(1, (kPieceBytes + 255) / f.group_bytes));
  cut.groups = std::min(cut.groups, f.num_groups);
  cut.bytes = cut.groups * f.group_bytes;
  cut.count = (f.num_groups + cut.groups - 1) / cut.groups;
  return cut;
}

// With `stages` pieces in the largest ring.
GateUpPlan gate_up_plan(const ExpertArgs& args, int stages) {
  GateUpPlan plan;
  plan.chunk = std::min(args.num_tokens, kMaxChunk);
  for (int i = 0; i < args.num_jobs; ++i) {
    const ExpertJob& job = args.jobs[i];
    plan.cut[i] = cut_of(job.gate);
    plan.ring_bytes = std::max(plan.ring_bytes, stages * plan.cut[i].bytes);
    plan.slots = std::max(plan.slots, kShares * kRoundPieces * slots_of(plan.cut[i]));
    plan.x_subs = std::max(plan.x_subs, job.gate.num_subs());
  }
  plan.x_subs = (plan.x_subs + 1) / 2 * 2;
  for (int i = 0; i < args.num_jobs; ++i) {
    plan.cut[i].stages = std::min(kMaxStages, plan.ring_bytes / plan.cut[i].bytes);
  }
  return plan;
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

bool is_stageable(const TileLayout& f) {
  return f.integer && f.group % kSubBlock == 0 && f.order == nullptr && f.cols % 4 == 0 &&
         (f.subs_per_group <= kMaxSubsPerGroup ||
          (has_long_group(f) && f.code != CodeKind::kCodebook4));
}

// Equal in all but where they lie.
bool are_alike(const TileLayout& a, const TileLayout& b) {
  return a.code == b.code && a.scale == b.scale && a.rows == b.rows && a.cols == b.cols &&
         a.group == b.group && a.has_zeros == b.has_zeros && a.zero == b.zero;
}

// Of what all groups have a whole number: 4, 2 or 1 sub-blocks.
int common_subs(const ExpertArgs& args) {
  int subs = 4;
  for (int i = 0; i < args.num_jobs; ++i) {
    const ExpertJob& job = args.jobs[i];
    for (const TileLayout* f : {&job.gate, &job.up, &job.down}) {
      while (!has_long_group(*f) && f->subs_per_group % subs != 0) subs /= 2;
    }
  }
  return subs;
}

template <int kSubs>
void launch_gate_up(Queue& queue, const ExpertArgs& args, Grid grid, const GateUpPlan& plan) {
  const auto kernel =
      args.num_tokens == 1 ? staged_gate_up_kernel<1, kSubs> : staged_gate_up_kernel<8, kSubs>;
  HS_LAUNCH_EARLY(queue, grid, Grid{kThreads}, plan.shared_bytes(), kernel, args, plan);
}

}  // namespace

// One token: with more, the kernels of moe_decode.cu were measured to be faster.
bool can_stage(const Queue& queue, const ExpertArgs& args) {
  if (args.num_tokens != 1) return false;
  if (args.num_jobs > kMaxStagedJobs || args.top_k > kMaxStagedTopK) return false;
  if (args.num_tokens * args.top_k > kMaxFewChoices) return false;
  if (!is_aligned(args.x, 16)) return false;
  for (int i = 0; i < args.num_jobs; ++i) {
    const ExpertJob& job = args.jobs[i];
    if (!job.rounds_act || job.orders != nullptr || !are_alike(job.gate, job.up)) return false;
    if (!is_stageable(job.gate) || !is_stageable(job.up) || !is_stageable(job.down)) return false;
  }
  const int64_t most = queue.runtime.info().max_shared_bytes;
  return fitting_plan(args, most).shared_bytes() <= most - kStaticBytes &&
         down_plan(args).shared_bytes(args.top_k) <= most - kStaticBytes;
}

void staged_products(Queue& queue, const ExpertArgs& args) {
  int rows = 0;
  for (int i = 0; i < args.num_jobs; ++i) rows = std::max(rows, args.jobs[i].covered_rows());
  const auto tokens = static_cast<unsigned>(args.num_tokens);
  const Grid up_grid{blocks_for(rows, kSubBlock), tokens * static_cast<unsigned>(args.top_k), 1};
  GateUpPlan up = fitting_plan(args, queue.runtime.info().max_shared_bytes);
  up.reads_ahead = args.prefetches_down ? 1 : 0;
  const int subs = common_subs(args);
  const auto gate_up = subs == 4   ? launch_gate_up<4>
                       : subs == 2 ? launch_gate_up<2>
                                   : launch_gate_up<1>;
  gate_up(queue, args, up_grid, up);
  const DownPlan down = down_plan(args);
  const Grid down_grid{tokens, blocks_for(args.hidden, kTileRows), 1};
  const auto kernel = subs == 4   ? staged_down_kernel<4>
                      : subs == 2 ? staged_down_kernel<2>
                                  : staged_down_kernel<1>;
  HS_LAUNCH_EARLY(queue, down_grid, Grid{kThreads}, down.shared_bytes(args.top_k), kernel, args,
                  down);
}

}  // namespace hotset::cuda
