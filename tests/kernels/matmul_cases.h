// SPDX-License-Identifier: Apache-2.0
// Random packed matrices of any kind and shape, made with the scalar codec, and comparison with
// sums in double precision. Shared by the tests of matmul and moe.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/checked_math.h"
#include "kernels/cpu/queue.h"
#include "quant/packed_matrix.h"

namespace hotset {

// A matrix and the memory behind it.
struct OwnedMatrix {
  PackedMatrix view;
  std::vector<std::byte> data;
  std::vector<float> codebook;
  std::vector<int32_t> order;

  void settle() {  // after a copy or a move
    view.data = data.data();
    view.codebook = codebook.empty() ? nullptr : codebook.data();
    view.input_order = order.empty() ? nullptr : order.data();
  }
};

inline uint32_t random_code(CodeKind code, std::mt19937& rng) {
  std::normal_distribution<float> normal(0.0f, 0.05f);
  switch (code) {
    case CodeKind::kF32:
      return std::bit_cast<uint32_t>(normal(rng));
    case CodeKind::kF16:
    case CodeKind::kBF16:  // exponents around 1 of either encoding
      return (rng() & 0x83ffu) | (code == CodeKind::kF16 ? 0x3000u : 0x3c00u);
    case CodeKind::kFp8: {
      const uint32_t byte = rng() & 0xffu;
      return (byte & 0x7fu) == 0x7fu ? byte ^ 1u : byte;  // no NaN
    }
    case CodeKind::kInt8:
      return rng() & 0xffu;
    default:
      return rng() & 15u;
  }
}

inline OwnedMatrix random_matrix(const PackedShape& shape, uint32_t seed, bool ordered = false) {
  std::mt19937 rng(seed);
  OwnedMatrix m;
  static_cast<PackedShape&>(m.view) = shape;
  m.data.resize(static_cast<size_t>(shape.bytes()));
  std::uniform_real_distribution<float> scale(0.01f, 0.1f);
  for (int64_t r = 0; r < shape.rows; ++r) {
    for (int64_t c = 0; c < shape.cols; ++c) {
      set_code(shape, m.data.data(), r, c, random_code(shape.code, rng));
    }
    for (int64_t g = 0; g < shape.num_groups(); ++g) {
      const bool negative = rng() % 8 == 0;
      set_scale(shape, m.data.data(), r, g, negative ? -scale(rng) : scale(rng));
      if (shape.has_zeros) {
        set_zero(shape, m.data.data(), r, g,
                 static_cast<uint8_t>(shape.code == CodeKind::kInt8 ? rng() % 256 : rng() % 16));
      }
    }
  }
  if (shape.code == CodeKind::kCodebook4) {
    for (int i = 0; i < 16; ++i) m.codebook.push_back(std::sin(0.7f * static_cast<float>(i)));
  }
  if (ordered) {
    m.order.resize(static_cast<size_t>(shape.cols));
    std::iota(m.order.begin(), m.order.end(), 0);
    std::shuffle(m.order.begin(), m.order.end(), rng);
  }
  m.settle();
  return m;
}

inline std::vector<float> random_floats(int64_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = normal(rng);
  return values;
}

inline std::vector<double> dequantized(const PackedMatrix& m) {
  std::vector<double> all;
  std::vector<float> row(static_cast<size_t>(m.cols));
  for (int64_t r = 0; r < m.rows; ++r) {
    dequantize_row(m, r, row);
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

// y[t, r] = Σ_c x[t, c] · w[r, c] in double precision, and per element ‖x_t‖²·‖w_r‖²: the square of
// what the sum would be of all terms pointed the same way times chance, the scale for errors.
struct Reference {
  std::vector<double> y;
  std::vector<double> scale;
};

template <typename T>
Reference reference_matmul(const PackedMatrix& m, const std::vector<T>& x, int64_t num_tokens) {
  const std::vector<double> w = dequantized(m);
  Reference ref;
  for (int64_t t = 0; t < num_tokens; ++t) {
    const T* xt = x.data() + t * m.cols;
    for (int64_t r = 0; r < m.rows; ++r) {
      const double* wr = w.data() + r * m.cols;
      double sum = 0, xx = 0, ww = 0;
      for (int64_t c = 0; c < m.cols; ++c) {
        const double xc = static_cast<double>(xt[c]);
        sum += xc * wr[c];
        xx += xc * xc;
        ww += wr[c] * wr[c];
      }
      ref.y.push_back(sum);
      ref.scale.push_back(xx * ww);
    }
  }
  return ref;
}

// Mean of squared errors over mean of scales must stay below `limit`; else the worst is printed.
inline void expect_close(const std::vector<float>& y, const Reference& ref, int64_t rows,
                         double limit, const std::string& what) {
  ASSERT_EQ(y.size(), ref.y.size());
  double error = 0, scale = 0, worst = -1;
  size_t at = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const double e = std::pow(static_cast<double>(y[i]) - ref.y[i], 2);
    error += e;
    scale += ref.scale[i];
    if (!(e / ref.scale[i] <= worst)) {
      worst = e / ref.scale[i];
      at = i;
    }
  }
  EXPECT_TRUE(error <= limit * scale)
      << what << ": NMSE " << error / scale << " > " << limit << "; worst at token "
      << at / static_cast<size_t>(rows) << " row " << at % static_cast<size_t>(rows) << ": "
      << y[at] << " for " << ref.y[at];
}

inline std::string describe(const PackedShape& s) {
  return fmt::format("{} scale {} zeros {} zero {} [{}, {}] group {}", code_kind_name(s.code),
                     static_cast<int>(s.scale), s.has_zeros, s.zero, s.rows, s.cols, s.group);
}

// Every kind of code with every kind of scale and zero.
inline std::vector<PackedShape> all_encodings() {
  std::vector<PackedShape> shapes;
  for (const CodeKind code : {CodeKind::kF32, CodeKind::kF16, CodeKind::kBF16}) {
    shapes.push_back({.code = code});
  }
  for (const ScaleKind scale :
       {ScaleKind::kNone, ScaleKind::kF16, ScaleKind::kBF16, ScaleKind::kF32}) {
    shapes.push_back({.code = CodeKind::kFp8, .scale = scale});
    shapes.push_back({.code = CodeKind::kCodebook4, .scale = scale});
    for (const CodeKind code : {CodeKind::kInt8, CodeKind::kAffine4}) {
      const uint8_t middle = code == CodeKind::kInt8 ? 128 : 8;
      shapes.push_back({.code = code, .scale = scale, .has_zeros = true});
      shapes.push_back({.code = code, .scale = scale, .zero = middle});
      shapes.push_back({.code = code, .scale = scale, .zero = 3});
    }
  }
  return shapes;
}

// NMSE against dequantised weights. fp32: rounding only. Integer: int8 activations per 32 columns
// of normal variates give 2·10^-5 to 4·10^-5.
inline constexpr double kExactLimit = 1e-11;
inline constexpr double kFastLimit = 1e-4;

}  // namespace hotset
