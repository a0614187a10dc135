// SPDX-License-Identifier: Apache-2.0
// The row-wise loops for one instruction set; the build gives this file its compiler flags.
#include "kernels/cpu/row_kernels_body.h"

namespace hotset::cpu {

const RowKernels& row_kernels_avx512() {
  return kRowKernels;
}

}  // namespace hotset::cpu
