// SPDX-License-Identifier: Apache-2.0
// Attention's inner loops for one instruction set; the build gives this file its compiler flags.
#include "kernels/cpu/attention_kernels_body.h"

namespace hotset::cpu {

const AttentionKernels& attention_kernels_scalar() {
  return kAttentionKernels;
}

}  // namespace hotset::cpu
