// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul_kernels.h"

namespace hotset::cpu {
namespace {

using AddFn = void (*)(MatmulKernels&);

MatmulKernels table_of(AddFn integer, AddFn floats, AddFn rows) {
  MatmulKernels kernels;
  integer(kernels);
  floats(kernels);
  rows(kernels);
  return kernels;
}

}  // namespace

const MatmulKernels& matmul_kernels(Isa isa) {
  static const MatmulKernels kTables[kNumIsas] = {
      table_of(add_integer_panels_scalar, add_float_panels_scalar, add_row_functions_scalar),
      table_of(add_integer_panels_avx2, add_float_panels_avx2, add_row_functions_avx2),
      table_of(add_integer_panels_avxvnni, add_float_panels_avx2, add_row_functions_avx2),
      table_of(add_integer_panels_avx512, add_float_panels_avx512, add_row_functions_avx512),
      table_of(add_integer_panels_amx, add_float_panels_avx512, add_row_functions_avx512),
  };
  return kTables[static_cast<int>(isa)];
}

}  // namespace hotset::cpu
