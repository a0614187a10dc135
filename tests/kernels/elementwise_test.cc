// SPDX-License-Identifier: Apache-2.0
// Gates and sums against double precision, at the ends of fp32 too; the scans over logits.
#include "kernels/elementwise.h"

#include <limits>

#include "kernels/op_testing.h"

namespace hotset {
namespace {

using testing::expect_close;
using testing::for_each_isa;
using testing::Numbers;

double sigmoid_reference(double x) {
  return 1.0 / (1.0 + std::exp(-x));
}

TEST(Elementwise, SwigluMatchesDoublePrecision) {
  for (const int64_t n : {1, 5, 8, 16, 17, 512, 40000}) {
    Numbers numbers(n);
    const auto gate = numbers.normal(n, 6.0f), up = numbers.normal(n);
    std::vector<double> expected(gate.size());
    for (size_t i = 0; i < gate.size(); ++i) {
      expected[i] = gate[i] * sigmoid_reference(gate[i]) * up[i];
    }
    for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
      std::vector<float> out(gate.size());
      swiglu(queue, n, gate.data(), up.data(), out.data());
      expect_close(out, expected, 1e-6, isa);
    });
  }
}

TEST(Elementwise, SwigluOfExtremesIsFinite) {
  const std::vector<float> gate = {-1e30f, -200.0f, -88.0f, -87.0f, 0.0f,
                                   87.0f,  88.5f,   1e4f,   3e30f};
  const std::vector<float> up(gate.size(), 1.0f);
  for_each_isa([&](cpu::Queue& queue, const std::string&) {
    std::vector<float> out(gate.size());
    swiglu(queue, std::ssize(gate), gate.data(), up.data(), out.data());
    EXPECT_EQ(find_non_finite(out), -1);
    EXPECT_NEAR(out[0], 0.0f, 1e-6f);
    EXPECT_NEAR(out[1], 0.0f, 1e-30f);
    EXPECT_FLOAT_EQ(out[7], 1e4f);
    EXPECT_FLOAT_EQ(out[8], 3e30f);
  });
}

TEST(Elementwise, NanComesThrough) {
  std::vector<float> gate(19, 1.0f), up(19, 1.0f);
  gate[3] = std::numeric_limits<float>::quiet_NaN();
  gate[17] = std::numeric_limits<float>::quiet_NaN();
  for_each_isa([&](cpu::Queue& queue, const std::string&) {
    std::vector<float> out(gate.size());
    swiglu(queue, std::ssize(gate), gate.data(), up.data(), out.data());
    EXPECT_TRUE(std::isnan(out[3]));
    EXPECT_TRUE(std::isnan(out[17]));
    EXPECT_FALSE(std::isnan(out[4]));
  });
}

TEST(Elementwise, SwigluRowsSplitsEachRow) {
  Numbers numbers(5);
  const int64_t rows = 7, width = 21;
  const auto both = numbers.normal(rows * 2 * width, 2.0f);
  for_each_isa([&](cpu::Queue& queue, const std::string&) {
    std::vector<float> out(rows * width), expected(rows * width);
    swiglu_rows(queue, rows, width, both.data(), out.data());
    for (int64_t r = 0; r < rows; ++r) {
      swiglu(queue, width, &both[r * 2 * width], &both[(r * 2 + 1) * width], &expected[r * width]);
    }
    testing::expect_same_bits(out, expected, "rows");
  });
}

TEST(Elementwise, GatesAndSumsMatchDoublePrecision) {
  Numbers numbers(6);
  const int64_t rows = 11, cols = 83, n = rows * cols;
  const auto x = numbers.normal(n), start = numbers.normal(n), gate = numbers.normal(n, 5.0f);
  std::vector<double> sum(x.size()), gated(x.size()), scaled(x.size());
  for (int64_t i = 0; i < n; ++i) {
    sum[i] = static_cast<double>(x[i]) + start[i];
    gated[i] = start[i] * sigmoid_reference(gate[i]);
    scaled[i] = start[i] + sigmoid_reference(gate[i / cols]) * x[i];
  }
  for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
    auto y = start;
    add(queue, n, x.data(), y.data());
    expect_close(y, sum, 1e-6, isa + " add");
    y = start;
    sigmoid_gate(queue, n, gate.data(), y.data());
    expect_close(y, gated, 1e-6, isa + " sigmoid_gate");
    y = start;
    add_sigmoid_scaled(queue, rows, cols, gate.data(), x.data(), y.data());
    expect_close(y, scaled, 1e-6, isa + " add_sigmoid_scaled");
  });
}

TEST(Elementwise, ThreadsDoNotChangeIt) {
  Numbers numbers(7);
  const int64_t n = 100003;
  const auto gate = numbers.normal(n), up = numbers.normal(n);
  testing::expect_thread_invariance(
      [&](cpu::Queue& queue) {
        std::vector<float> out(gate.size());
        swiglu(queue, n, gate.data(), up.data(), out.data());
        return out;
      },
      "swiglu");
}

TEST(Elementwise, ArgmaxTakesTheFirstOfEquals) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(argmax(std::vector<float>{1.0f, 3.0f, 3.0f, 2.0f}), 1);
  EXPECT_EQ(argmax(std::vector<float>{nan, -5.0f, nan, -4.0f}), 3);
  EXPECT_EQ(argmax(std::vector<float>{nan, nan}), 0);
  EXPECT_EQ(argmax(std::vector<float>{-INFINITY, -INFINITY}), 0);
}

TEST(Elementwise, FindsTheFirstNonFinite) {
  std::vector<float> values(10000, 3e38f);
  EXPECT_EQ(find_non_finite(values), -1);
  values[9999] = INFINITY;
  EXPECT_EQ(find_non_finite(values), 9999);
  values[4095] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(find_non_finite(values), 4095);
  EXPECT_EQ(find_non_finite({}), -1);
}

}  // namespace
}  // namespace hotset
