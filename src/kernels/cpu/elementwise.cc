// SPDX-License-Identifier: Apache-2.0
// Element ranges are shared out in whole cache lines; the scans run on the calling thread.
#include "kernels/elementwise.h"

#include <cmath>

#include "base/check.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"

namespace hotset {
namespace {

constexpr int64_t kLine = 16;  // floats per cache line

}  // namespace

void add(cpu::Queue& queue, int64_t n, const float* x, float* y) {
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  cpu::for_shares(queue, n, 1, kLine, [&](int64_t begin, int64_t end) {
    kernels.add(end - begin, x + begin, y + begin);
  });
}

void swiglu(cpu::Queue& queue, int64_t n, const float* gate, const float* up, float* out) {
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  cpu::for_shares(queue, n, 2, kLine, [&](int64_t begin, int64_t end) {
    kernels.swiglu(end - begin, gate + begin, up + begin, out + begin);
  });
}

void swiglu_rows(cpu::Queue& queue, int64_t num_rows, int64_t width, const float* gate_up,
                 float* out) {
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  cpu::for_shares(queue, num_rows, 2 * width, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* gate = gate_up + row * 2 * width;
      kernels.swiglu(width, gate, gate + width, out + row * width);
    }
  });
}

void sigmoid_gate(cpu::Queue& queue, int64_t n, const float* gate, float* y) {
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  cpu::for_shares(queue, n, 2, kLine, [&](int64_t begin, int64_t end) {
    kernels.sigmoid_gate(end - begin, gate + begin, y + begin);
  });
}

void add_sigmoid_scaled(cpu::Queue& queue, int64_t num_rows, int64_t cols, const float* gate_logit,
                        const float* x, float* y) {
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  cpu::for_shares(queue, num_rows, cols, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float scale = 1.0f / (1.0f + std::exp(-gate_logit[row]));
      kernels.axpy(cols, scale, x + row * cols, y + row * cols);
    }
  });
}

int64_t argmax(std::span<const float> values) {
  HS_CHECK(!values.empty(), "argmax of nothing");
  size_t best = 0;
  for (size_t i = 1; i < values.size(); ++i) {
    if (values[i] > values[best] || (std::isnan(values[best]) && !std::isnan(values[i]))) best = i;
  }
  return static_cast<int64_t>(best);
}

int64_t find_non_finite(std::span<const float> values) {
  // x − x is 0 for finite x and NaN else: a sum without branches answers for whole pieces.
  constexpr size_t kPiece = 4096;
  for (size_t begin = 0; begin < values.size(); begin += kPiece) {
    const size_t end = std::min(values.size(), begin + kPiece);
    float poison[8] = {};
    for (size_t i = begin; i < end; ++i) poison[i % 8] += values[i] - values[i];
    float total = 0.0f;
    for (float p : poison) total += p;
    if (total == 0.0f) continue;
    for (size_t i = begin; i < end; ++i) {
      if (!std::isfinite(values[i])) return static_cast<int64_t>(i);
    }
  }
  return -1;
}

}  // namespace hotset
