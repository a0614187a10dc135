// SPDX-License-Identifier: Apache-2.0
// Which table of row-wise loops a queue uses.
#include "kernels/cpu/row_kernels.h"

#include "kernels/cpu/parallel.h"

namespace hotset::cpu {

const RowKernels& row_kernels(Isa isa) {
  return table_for(isa, row_kernels_scalar(), row_kernels_avx2(), row_kernels_avx512());
}

}  // namespace hotset::cpu
