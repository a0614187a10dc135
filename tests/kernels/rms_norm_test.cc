// SPDX-License-Identifier: Apache-2.0
// The norms against double precision, on rows that fill vectors and rows that don't.
#include "kernels/rms_norm.h"

#include "kernels/op_testing.h"

namespace hotset {
namespace {

using testing::expect_close;
using testing::for_each_isa;
using testing::Numbers;

constexpr double kTolerance = 2e-6;  // some units in the last place of fp32

std::vector<double> reference_norm(const std::vector<float>& x, const std::vector<float>& weight,
                                   int64_t rows, int64_t cols, double bias) {
  std::vector<double> out(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    double squares = 0.0;
    for (int64_t c = 0; c < cols; ++c) squares += std::pow(x[r * cols + c], 2.0);
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(cols) + 1e-6);
    for (int64_t c = 0; c < cols; ++c) {
      out[r * cols + c] = x[r * cols + c] * inverse * (bias + weight[c]);
    }
  }
  return out;
}

TEST(RmsNorm, MatchesDoublePrecision) {
  for (const int64_t cols : {1, 7, 16, 24, 33, 80, 256, 2048, 2051}) {
    Numbers numbers(cols);
    const int64_t rows = 5;
    const auto x = numbers.normal(rows * cols, 3.0f);
    const auto weight = numbers.normal(cols, 0.2f);
    const auto expected = reference_norm(x, weight, rows, cols, 1.0);
    for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
      std::vector<float> out(x.size());
      rms_norm(queue, {.num_rows = rows, .cols = cols}, x.data(), weight.data(), out.data());
      expect_close(out, expected, kTolerance, isa + ", cols " + std::to_string(cols));
      auto in_place = x;
      rms_norm(queue, {.num_rows = rows, .cols = cols}, in_place.data(), weight.data(),
               in_place.data());
      testing::expect_same_bits(in_place, out, "in place");
    });
  }
}

TEST(RmsNorm, WeightZeroIsUnitGain) {
  Numbers numbers(1);
  const auto x = numbers.normal(256, 5.0f);
  const std::vector<float> weight(256, 0.0f);
  for_each_isa([&](cpu::Queue& queue, const std::string&) {
    std::vector<float> out(256);
    rms_norm(queue, {.num_rows = 1, .cols = 256}, x.data(), weight.data(), out.data());
    double squares = 0.0;
    for (float v : out) squares += v * v;
    EXPECT_NEAR(std::sqrt(squares / 256.0), 1.0, 1e-5);
  });
}

TEST(RmsNorm, AddsTheResidualFirst) {
  Numbers numbers(2);
  const int64_t rows = 9, cols = 100;
  const auto x = numbers.normal(rows * cols), start = numbers.normal(rows * cols);
  const auto weight = numbers.normal(cols, 0.2f);
  std::vector<float> summed(x.size());
  for (size_t i = 0; i < x.size(); ++i) summed[i] = x[i] + start[i];
  const auto expected = reference_norm(summed, weight, rows, cols, 1.0);
  for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
    auto residual = start;
    auto out = x;
    add_rms_norm(queue, {.num_rows = rows, .cols = cols}, out.data(), residual.data(),
                 weight.data(), out.data());
    testing::expect_same_bits(residual, summed, "residual");
    expect_close(out, expected, kTolerance, isa);
  });
}

TEST(RmsNorm, GatesAfterNormalising) {
  Numbers numbers(3);
  const int64_t rows = 12, cols = 24;
  const auto x = numbers.normal(rows * cols, 0.1f), z = numbers.normal(rows * cols, 4.0f);
  const auto weight = numbers.normal(cols, 0.3f, 1.0f);
  auto expected = reference_norm(x, weight, rows, cols, 0.0);
  for (size_t i = 0; i < expected.size(); ++i)
    expected[i] *= z[i] / (1.0 + std::exp(-double{z[i]}));
  for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
    std::vector<float> out(x.size());
    gated_rms_norm(queue, {.num_rows = rows, .cols = cols}, x.data(), z.data(), weight.data(),
                   out.data());
    expect_close(out, expected, kTolerance, isa);
  });
}

TEST(RmsNorm, ThreadsDoNotChangeIt) {
  Numbers numbers(4);
  const int64_t rows = 37, cols = 2048;
  const auto x = numbers.normal(rows * cols);
  const auto weight = numbers.normal(cols, 0.2f);
  testing::expect_thread_invariance(
      [&](cpu::Queue& queue) {
        std::vector<float> out(x.size());
        rms_norm(queue, {.num_rows = rows, .cols = cols}, x.data(), weight.data(), out.data());
        return out;
      },
      "rms_norm");
}

}  // namespace
}  // namespace hotset
