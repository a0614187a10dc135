// SPDX-License-Identifier: Apache-2.0
// Rows are shared out among the workers; see row_kernels_body.h for the arithmetic.
#include "kernels/rms_norm.h"

#include "base/check.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"

namespace hotset {

void rms_norm(cpu::Queue& queue, const RmsNormParams& params, const float* x, const float* weight,
              float* out) {
  HS_CHECK(params.cols > 0, "rms_norm over {} columns", params.cols);
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  const int64_t cols = params.cols;
  cpu::for_shares(queue, params.num_rows, cols, 1, [&](int64_t begin, int64_t end) {
    kernels.rms_norm(end - begin, cols, params.eps, 1.0f, x + begin * cols, weight,
                     out + begin * cols);
  });
}

void add_rms_norm(cpu::Queue& queue, const RmsNormParams& params, const float* x, float* residual,
                  const float* weight, float* out) {
  HS_CHECK(params.cols > 0, "add_rms_norm over {} columns", params.cols);
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  const int64_t cols = params.cols;
  cpu::for_shares(queue, params.num_rows, 2 * cols, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      kernels.add(cols, x + row * cols, residual + row * cols);
      kernels.rms_norm(1, cols, params.eps, 1.0f, residual + row * cols, weight, out + row * cols);
    }
  });
}

void gated_rms_norm(cpu::Queue& queue, const RmsNormParams& params, const float* x, const float* z,
                    const float* weight, float* out) {
  HS_CHECK(params.cols > 0, "gated_rms_norm over {} columns", params.cols);
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  const int64_t cols = params.cols;
  cpu::for_shares(queue, params.num_rows, 4 * cols, 1, [&](int64_t begin, int64_t end) {
    kernels.gated_rms_norm(end - begin, cols, params.eps, x + begin * cols, z + begin * cols,
                           weight, out + begin * cols);
  });
}

}  // namespace hotset
