// SPDX-License-Identifier: Apache-2.0
// What the gate·up kernels of few tokens have in common: 32 rows of gate and of up by 16 warps,
// four to a tile, and the joining of their parts.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/moe_act.cuh"
#include "kernels/cuda/moe_staged.cuh"

namespace hotset::cuda {

inline constexpr int kShares = 4;       // warps of a tile: (gate, up) × 2 tiles × 4 shares
inline constexpr int kRoundPieces = 4;  // of a warp, between two joins

// A block's dynamic shared memory: the rings, rounded tokens, parts [4][slots][chunk][16] with
// their scales [4][slots][16], y [gate, up][chunk][32].
struct GateUpPlan {
  int32_t ring_bytes = 0;   // of a warp
  int32_t slots = 0;        // groups of a tile whose parts wait to be joined
  int32_t chunk = 1;        // tokens at once
  int32_t x_subs = 0;       // from a rounded token to the next
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

// Cuts of all kinds of experts and what they need, but for the rings, whose size depends on whether
// many may be under way.
struct PieceBytes {
  int32_t least = INT32_MAX;
  int32_t most = 0;
};
inline PieceBytes cut_matrices(const ExpertArgs& args, GateUpPlan& plan) {
  PieceBytes bytes;
  for (int i = 0; i < args.num_jobs; ++i) {
    const ExpertJob& job = args.jobs[i];
    plan.gate[i] = cut_of(job.gate);
    plan.up[i] = cut_of(job.up);
    for (const PieceCut* cut : {&plan.gate[i], &plan.up[i]}) {
      bytes.least = std::min(bytes.least, cut->bytes);
      bytes.most = std::max(bytes.most, cut->bytes);
      plan.slots = std::max(plan.slots, kShares * kRoundPieces * slots_of(*cut));
    }
    plan.x_subs = std::max({plan.x_subs, job.gate.num_subs(), job.up.num_subs()});
  }
  return bytes;
}
// As many pieces of each kind as rings of this size hold.
inline void set_rings(int32_t bytes, int num_jobs, GateUpPlan& plan) {
  plan.ring_bytes = bytes;
  for (int i = 0; i < num_jobs; ++i) {
    for (PieceCut* cut : {&plan.gate[i], &plan.up[i]}) {
      cut->stages = std::min(kMaxStages, bytes / cut->bytes);
    }
  }
}

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

}  // namespace hotset::cuda
