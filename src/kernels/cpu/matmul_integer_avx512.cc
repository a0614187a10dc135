// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul_integer_body.h"

namespace hotset::cpu {

void add_integer_panels_avx512(MatmulKernels& kernels) {
  set_integer_panels(kernels);
}

}  // namespace hotset::cpu
