// SPDX-License-Identifier: Apache-2.0
// See group_gemm.cuh: 8-bit codes with the zero in the middle.
#include "kernels/cuda/group_gemm.cuh"

namespace hotset::cuda {

void group_gemm_int8(Queue& queue, const GateUpArgs& args, bool gate_up) {
  if (gate_up) return launch_by_group<CodeKind::kInt8, true>(queue, args);
  launch_by_group<CodeKind::kInt8, false>(queue, args);
}

}  // namespace hotset::cuda
