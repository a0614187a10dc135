// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul_rows_body.h"

namespace hotset::cpu {

void add_row_functions_scalar(MatmulKernels& kernels) {
  set_row_functions(kernels);
}

}  // namespace hotset::cpu
