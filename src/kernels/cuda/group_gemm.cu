// SPDX-License-Identifier: Apache-2.0
// Which products the kernels of group_gemm.cuh take, and which of them.
#include "kernels/cuda/group_gemm.cuh"

namespace hotset::cuda {
namespace {

bool corrects_zeros(const TileLayout& f) {
  return f.has_zeros || f.zero != (f.code == CodeKind::kInt8 ? 128.0f : 0.0f);
}

void launch(Queue& queue, const GateUpArgs& args, bool gate_up) {
  switch (args.gate.weight.code) {
    case CodeKind::kAffine4:
      return group_gemm_affine4(queue, args, gate_up);
    case CodeKind::kInt8:
      return group_gemm_int8(queue, args, gate_up);
    default:
      return group_gemm_codebook4(queue, args, gate_up);
  }
}

}  // namespace

bool has_whole_groups(const TileLayout& f, const RoundedInput& input) {
  const bool length = f.group == 32 || f.group == 64 || f.group == 128;
  const bool corrects =
      f.code == CodeKind::kCodebook4 || corrects_zeros(f) == (f.code == CodeKind::kAffine4);
  return f.integer && length && corrects && f.num_subs() % 4 == 0 && input.sub_stride % 2 == 0;
}

void group_gemm(Queue& queue, const GemmArgs& args) {
  launch(queue, {.gate = args}, false);
}

void gate_up_gemm(Queue& queue, const GateUpArgs& args) {
  launch(queue, args, true);
}

}  // namespace hotset::cuda
