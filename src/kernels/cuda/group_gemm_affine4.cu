// SPDX-License-Identifier: Apache-2.0
// See group_gemm.cuh: 4-bit codes with scales and zeros.
#include "kernels/cuda/group_gemm.cuh"

namespace hotset::cuda {

void group_gemm_affine4(Queue& queue, const GateUpArgs& args, bool gate_up) {
  if (gate_up) return launch_by_group<CodeKind::kAffine4, true>(queue, args);
  launch_by_group<CodeKind::kAffine4, false>(queue, args);
}

}  // namespace hotset::cuda
