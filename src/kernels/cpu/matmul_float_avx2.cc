// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul_float_body.h"

namespace hotset::cpu {

void add_float_panels_avx2(MatmulKernels& kernels) {
  set_all_float_panels(kernels);
}

}  // namespace hotset::cpu
