// SPDX-License-Identifier: Apache-2.0
// What the staged kernels of moe_staged.cu and moe_items.cu have in common: choices and where their
// experts lie, how a matrix is cut into pieces, and what the launchers of the two answer.
#pragma once

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe_launch.h"
#include "kernels/cuda/staged_tiles.cuh"

namespace hotset::cuda {

inline constexpr int kStagedWarps = 16;
inline constexpr int kStagedThreads = kWarp * kStagedWarps;
inline constexpr int kMaxSubsPerGroup = 8;          // of a group that is staged whole
inline constexpr int64_t kStaticBytes = 8 << 10;    // of shared memory, and the driver's
inline constexpr int64_t kSharedReserve = 2 << 10;  // the same of kernels with items
inline constexpr Kinds kIntegerKinds = kind_bit(CodeKind::kAffine4, true) |
                                       kind_bit(CodeKind::kInt8, true) |
                                       kind_bit(CodeKind::kCodebook4, true);

__device__ inline int job_index(const ExpertArgs& args, int expert) {
  int found = -1;
  for (int i = 0; i < args.num_jobs; ++i) {
    if (expert >= args.jobs[i].first_expert && expert < args.jobs[i].end_expert) found = i;
  }
  return found;
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

__device__ inline unsigned lanes_below(int lane) {
  return (1u << lane) - 1;
}

// ── Of the host ─────────────────────────────────────────────────────────────────────────────────

// The only group of a row, when that is long.
inline bool has_long_group(const TileLayout& f) {
  return f.num_groups == 1 && f.subs_per_group > kMaxSubsPerGroup;
}

inline int slots_of(const PieceCut& cut) {
  return cut.subs != 0 ? cut.subs : cut.groups;
}

inline PieceCut cut_of(const TileLayout& f) {
  constexpr int64_t kPieceBytes = 1024;
  PieceCut cut;
  if (has_long_group(f)) {
    const int sub_bytes =
        f.code == CodeKind::kInt8 ? kSubBytes<CodeKind::kInt8> : kSubBytes<CodeKind::kAffine4>;
    cut.groups = 0;
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

// pick.operator()<kSubs, kLong>() of the instance for `subs`, see staged_gate_up.
template <typename Pick>
void with_subs(int subs, const Pick& pick) {
  switch (subs) {
    case 4:
      return pick.template operator()<4, false>();
    case 2:
      return pick.template operator()<2, false>();
    case 1:
      return pick.template operator()<1, false>();
    default:
      return pick.template operator()<1, true>();
  }
}

// Of what all groups have a whole number: 4, 2 or 1 sub-blocks; 0 where there are long groups.
[[nodiscard]] int common_subs(const ExpertArgs& args);
// Do the blocks' pieces fit `most` bytes of shared memory?
[[nodiscard]] bool fits_staged_gate_up(const ExpertArgs& args, int64_t most);
[[nodiscard]] bool fits_staged_down(const ExpertArgs& args, int64_t most);
// `subs`: what all groups have a whole number of: 4, 2 or 1 sub-blocks; 0 where there are long
// ones. The second starts with the first: no kernel may come between.
void staged_gate_up(Queue& queue, const ExpertArgs& args, int subs, int64_t most);
void staged_down(Queue& queue, const ExpertArgs& args, int subs);

}  // namespace hotset::cuda
