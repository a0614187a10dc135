// SPDX-License-Identifier: Apache-2.0
// The list of items, see moe_items.cuh, and the rounded tokens that gate·up reads.
#include "kernels/cuda/moe_items.cuh"

namespace hotset::cuda {
namespace {

static_assert(kMaxFewChoices == kStagedThreads);  // a thread a choice

struct ListShared {
  alignas(16) int32_t ids[kMaxFewChoices];  // of choices that are here
  int32_t counts[kMaxFewChoices];           // of items, by the choice that leads each
  int32_t items[kMaxFewChoices];            // likewise
  int32_t leaders[kStagedWarps];            // in a warp's choices
};

// One choice among those of the same expert, in their order.
struct ItemPlace {
  int rank = 0;
  int leader = 0;  // the first choice of its item
};

__device__ inline ItemPlace place_of(const int32_t* ids, int choice, int expert) {
  ItemPlace place;
  const auto* fours = reinterpret_cast<const int4*>(ids);
  for (int j = 0; j < choice; j += 4) {
    const int4 v = fours[j / 4];
    const int four[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      if (j + u >= choice || four[u] != expert) continue;
      if (place.rank % kItemTokens == 0) place.leader = j + u;
      ++place.rank;
    }
  }
  if (place.rank % kItemTokens == 0) place.leader = choice;
  return place;
}

__device__ inline void list_items(const ExpertArgs& args) {
  __shared__ ListShared shared;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp, lane = thread % kWarp;
  const bool is_choice = thread < args.num_tokens * args.top_k;
  const Choice mine = is_choice ? choice_at(args, thread) : no_choice();
  const bool here = mine.expert >= 0;
  shared.ids[thread] = mine.expert;
  shared.counts[thread] = 0;
  __syncthreads();
  ItemPlace place;
  if (here) {
    place = place_of(shared.ids, thread, mine.expert);
    atomicAdd(&shared.counts[place.leader], 1);
  }
  const bool leads = here && place.leader == thread;
  const unsigned leaders = __ballot_sync(kAllLanes, leads);
  if (lane == 0) shared.leaders[warp] = __popc(leaders);
  __syncthreads();
  int before = 0, total = 0;
  for (int w = 0; w < kStagedWarps; ++w) {
    before += w < warp ? shared.leaders[w] : 0;
    total += shared.leaders[w];
  }
  if (leads) shared.items[thread] = before + __popc(leaders & lanes_below(lane));
  __syncthreads();
  if (thread == 0) *args.num_items = total;
  if (!here) return;
  ExpertItem& item = args.items[shared.items[place.leader]];
  item.pairs[place.rank % kItemTokens] = thread;
  if (!leads) return;
  item.gate = mine.gate;
  item.up = mine.up;
  item.down = mine.down;
  item.job = mine.job;
  item.count = shared.counts[thread];
}

// Block 0 lists, the others round a token each.
__global__ void __launch_bounds__(kStagedThreads)
    list_items_kernel(const __grid_constant__ ExpertArgs args) {
  start_next();
  wait_for_earlier();
  if (blockIdx.x == 0) return list_items(args);
  const int64_t token = blockIdx.x - 1;
  const RoundedInput& to = args.x_in;
  round_whole_row(args.x + token * args.hidden, args.hidden, to.sub_stride,
                  static_cast<int>(threadIdx.x) / kWarp, kStagedWarps,
                  static_cast<int>(threadIdx.x) % kWarp, to.q + token * to.sub_stride * kSubBlock,
                  to.meta + token * to.sub_stride * 2);
}

}  // namespace

bool can_take_items(const Queue& queue, const ExpertArgs& args) {
  const int64_t most = queue.runtime.info().max_shared_bytes;
  return can_stage(queue, args) && fits_items_gate_up(args, most) && fits_items_down(args, most);
}

void item_products(Queue& queue, const ExpertArgs& args) {
  HS_LAUNCH_EARLY(queue, Grid{static_cast<unsigned>(args.num_tokens) + 1}, Grid{kStagedThreads}, 0,
                  list_items_kernel, args);
  const int subs = common_subs(args);
  items_gate_up(queue, args, subs);
  items_down(queue, args, subs);
}

}  // namespace hotset::cuda
