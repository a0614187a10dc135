// SPDX-License-Identifier: Apache-2.0
// Experts for one token where all products are integer (moe_items.cu: for several). Two launches,
// as in moe_decode.cu, whose blocks stage their tiles through shared memory: all of a block's loads
// are under way before it computes. Choices that are not here cost nothing: a block takes the n-th
// of those that are.
#include "kernels/cuda/moe_staged.cuh"

namespace hotset::cuda {
namespace {

bool is_stageable(const TileLayout& f) {
  return f.integer && f.group % kSubBlock == 0 && f.order == nullptr && f.cols % 4 == 0 &&
         (f.subs_per_group <= kMaxSubsPerGroup ||
          (has_long_group(f) && f.code != CodeKind::kCodebook4));
}

}  // namespace

int common_subs(const ExpertArgs& args) {
  int subs = 4;
  for (int i = 0; i < args.num_jobs; ++i) {
    const ExpertJob& job = args.jobs[i];
    for (const TileLayout* f : {&job.gate, &job.up, &job.down}) {
      if (has_long_group(*f)) return 0;
      while (f->subs_per_group % subs != 0) subs /= 2;
    }
  }
  return subs;
}

bool can_stage(const Queue& queue, const ExpertArgs& args) {
  if (args.top_k > kMaxStagedTopK || args.num_tokens * args.top_k > kMaxFewChoices) return false;
  if (!is_aligned(args.x, 16)) return false;
  for (int i = 0; i < args.num_jobs; ++i) {
    const ExpertJob& job = args.jobs[i];
    if (!job.rounds_act || job.orders != nullptr) return false;
    if (!is_stageable(job.gate) || !is_stageable(job.up) || !is_stageable(job.down)) return false;
  }
  const int64_t most = queue.runtime.info().max_shared_bytes;
  return fits_staged_gate_up(args, most) && fits_staged_down(args, most);
}

void staged_products(Queue& queue, const ExpertArgs& args) {
  const int subs = common_subs(args);
  staged_gate_up(queue, args, subs, queue.runtime.info().max_shared_bytes);
  staged_down(queue, args, subs);
}

}  // namespace hotset::cuda
