// SPDX-License-Identifier: Apache-2.0
// The delta rule's inner loops for one instruction set; the build gives this file its compiler
// flags.
#include "kernels/cpu/delta_rule_kernels_body.h"

namespace hotset::cpu {

const DeltaRuleKernels& delta_rule_kernels_avx2() {
  return kDeltaRuleKernels;
}

}  // namespace hotset::cpu
