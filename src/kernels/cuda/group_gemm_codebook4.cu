// SPDX-License-Identifier: Apache-2.0
// See group_gemm.cuh: codes of a codebook.
#include "kernels/cuda/group_gemm.cuh"

namespace hotset::cuda {

void group_gemm_codebook4(Queue& queue, const GateUpArgs& args, bool gate_up) {
  if (gate_up) return launch_by_group<CodeKind::kCodebook4, true>(queue, args);
  // Twice the tokens a block where there are as many: codes are looked up half as often.
  const GemmArgs& gemm = args.gate;
  if (gemm.weight.group == 64 && gemm.chunks == nullptr && gemm.num_tokens > kChunkTokens) {
    return launch_group_gemm<GroupBlock<CodeKind::kCodebook4, 2, false, true>>(queue, args);
  }
  launch_by_group<CodeKind::kCodebook4, false>(queue, args);
}

}  // namespace hotset::cuda
