// SPDX-License-Identifier: Apache-2.0
#include "kernels/matmul.h"

#include <cstring>

#include "kernels/matmul_cases.h"

namespace hotset {
namespace {

using cpu::Arithmetic;
using cpu::Isa;

std::vector<float> multiply(const PackedMatrix& m, const std::vector<float>& x, int64_t num_tokens,
                            Isa isa, Arithmetic arithmetic, cpu::WorkerPool& pool) {
  std::vector<float> y(static_cast<size_t>(num_tokens * m.rows), -777.0f);
  cpu::Queue queue{pool, isa, arithmetic};
  const MatmulOutput output{&m, y.data(), m.rows};
  matmul(queue, {&output, 1}, x.data(), m.cols, num_tokens);
  return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_matrix(const OwnedMatrix& m, int64_t num_tokens, cpu::WorkerPool& pool) {
  const std::vector<float> x = random_floats(num_tokens * m.view.cols, 11);
  const Reference ref = reference_matmul(m.view, x, num_tokens);
  const bool plain = m.view.code == CodeKind::kF32 || m.view.code == CodeKind::kF16 ||
                     m.view.code == CodeKind::kBF16 || m.view.code == CodeKind::kFp8;
  for (const Arithmetic arithmetic : {Arithmetic::kExact, Arithmetic::kFast}) {
    const double limit = arithmetic == Arithmetic::kExact || plain ? kExactLimit : kFastLimit;
    const std::vector<float> oracle =
        multiply(m.view, x, num_tokens, Isa::kScalar, arithmetic, pool);
    expect_close(oracle, ref, m.view.rows, limit, describe(m.view));
    for (const Isa isa : cpu::available_isas()) {
      const std::vector<float> y = multiply(m.view, x, num_tokens, isa, arithmetic, pool);
      EXPECT_TRUE(same_bits(y, oracle))
          << describe(m.view) << " tokens " << num_tokens << " on " << cpu::isa_name(isa)
          << " fast " << (arithmetic == Arithmetic::kFast) << " differs from scalar; NMSE check:";
      if (!same_bits(y, oracle)) expect_close(y, ref, m.view.rows, limit, cpu::isa_name(isa));
    }
  }
}

constexpr int64_t kRows[] = {1, 15, 16, 17, 40, 200};
constexpr int64_t kCols[] = {8, 13, 40, 96, 128, 200, 2048};
constexpr int64_t kTokens[] = {1, 2, 3, 7, 17, 64};
constexpr int64_t kGroups[] = {8, 24, 32, 64, 128, 0};  // 0: the whole row

// Every encoding with every group; rows, columns and tokens run through all their values beside, at
// paces without common divisors.
TEST(Matmul, AgreesWithDoubleSumsOnEveryEncodingAndIsa) {
  cpu::WorkerPool pool(2);
  size_t i = 0;
  for (PackedShape shape : all_encodings()) {
    for (const int64_t group : kGroups) {
      if (shape.scale == ScaleKind::kNone && !shape.has_zeros && group != 0) continue;
      for (int repeat = 0; repeat < 2; ++repeat, ++i) {
        shape.rows = kRows[i % 6];
        shape.cols = kCols[(i + i / 6) % 7];
        shape.group = group == 0 ? round_up(shape.cols, 8) : group;
        const int64_t tokens = kTokens[(i / 7 + i) % 6];
        check_matrix(random_matrix(shape, static_cast<uint32_t>(i)),
                     shape.rows * shape.cols > 50000 ? std::min<int64_t>(tokens, 7) : tokens, pool);
      }
    }
  }
}

TEST(Matmul, ReadsInputInThePackedOrder) {
  cpu::WorkerPool pool(2);
  for (const CodeKind code : {CodeKind::kAffine4, CodeKind::kInt8, CodeKind::kBF16}) {
    const PackedShape shape{.code = code,
                            .scale = code == CodeKind::kBF16 ? ScaleKind::kNone : ScaleKind::kF16,
                            .zero = 8,
                            .rows = 40,
                            .cols = 200,
                            .group = code == CodeKind::kBF16 ? 200 : 64};
    check_matrix(random_matrix(shape, 5, true), 9, pool);
  }
}

std::vector<OwnedMatrix> mixed_matrices() {
  std::vector<OwnedMatrix> all;
  const auto add = [&](PackedShape shape, bool ordered) {
    shape.cols = 192;
    all.push_back(random_matrix(shape, static_cast<uint32_t>(all.size() + 1), ordered));
  };
  add({.code = CodeKind::kAffine4, .scale = ScaleKind::kF16, .zero = 8, .rows = 70, .group = 64},
      false);
  add({.code = CodeKind::kAffine4,
       .scale = ScaleKind::kBF16,
       .has_zeros = true,
       .rows = 33,
       .group = 32},
      true);
  add({.code = CodeKind::kInt8, .scale = ScaleKind::kF16, .zero = 128, .rows = 5, .group = 64},
      false);
  add({.code = CodeKind::kBF16, .rows = 100, .group = 192}, false);
  add({.code = CodeKind::kCodebook4, .scale = ScaleKind::kF16, .rows = 48, .group = 64}, false);
  for (OwnedMatrix& m : all) m.settle();
  return all;
}

// A token's bits must not depend on its neighbours, the other outputs, the threads or the stride.
TEST(Matmul, BitsDoNotDependOnTheCompany) {
  const std::vector<OwnedMatrix> matrices = mixed_matrices();
  const int64_t tokens = 70, cols = 192, stride = 120;
  const std::vector<float> x = random_floats(tokens * cols, 3);
  cpu::WorkerPool one(1);
  for (const Isa isa : cpu::available_isas()) {
    for (const Arithmetic arithmetic : {Arithmetic::kExact, Arithmetic::kFast}) {
      for (const int threads : {1, 2, 3, 5}) {
        cpu::WorkerPool pool(threads);
        cpu::Queue queue{pool, isa, arithmetic};
        queue.reserve(tokens, cols);
        const int64_t allocations = queue.scratch.num_allocations();
        std::vector<std::vector<float>> y(matrices.size(),
                                          std::vector<float>(static_cast<size_t>(tokens * stride)));
        std::vector<MatmulOutput> outputs;
        for (size_t i = 0; i < matrices.size(); ++i) {
          outputs.push_back({&matrices[i].view, y[i].data(), stride});
        }
        matmul(queue, outputs, x.data(), cols, tokens);
        EXPECT_EQ(queue.scratch.num_allocations(), allocations);
        for (const int64_t t : {0, 1, 33, 69}) {
          const std::vector<float> xt(x.begin() + t * cols, x.begin() + (t + 1) * cols);
          for (size_t i = 0; i < matrices.size(); ++i) {
            const std::vector<float> alone =
                multiply(matrices[i].view, xt, 1, isa, arithmetic, one);
            EXPECT_EQ(0, std::memcmp(alone.data(), y[i].data() + t * stride,
                                     alone.size() * sizeof(float)))
                << describe(matrices[i].view) << " token " << t << " threads " << threads << " on "
                << cpu::isa_name(isa);
          }
        }
      }
    }
  }
}

TEST(Matmul, NotANumberShowsInItsTokenOnly) {
  cpu::WorkerPool pool(1);
  const PackedShape shape{.code = CodeKind::kAffine4,
                          .scale = ScaleKind::kF16,
                          .zero = 8,
                          .rows = 20,
                          .cols = 96,
                          .group = 32};
  const OwnedMatrix m = random_matrix(shape, 1);
  for (const float bad : {std::nanf(""), -INFINITY}) {
    std::vector<float> x = random_floats(3 * 96, 2);
    x[96 + 50] = bad;
    for (const Isa isa : cpu::available_isas()) {
      const std::vector<float> y = multiply(m.view, x, 3, isa, Arithmetic::kFast, pool);
      for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i / 20 == 1) << i;
    }
  }
}

TEST(Matmul, TinyHugeAndZeroInputsStayFinite) {
  cpu::WorkerPool pool(1);
  const PackedShape shape{.code = CodeKind::kInt8,
                          .scale = ScaleKind::kF16,
                          .zero = 128,
                          .rows = 16,
                          .cols = 64,
                          .group = 32};
  const OwnedMatrix m = random_matrix(shape, 1);
  for (const float size : {0.0f, 1e-42f, 1e-36f, 1e30f}) {
    std::vector<float> x = random_floats(64, 2);
    for (float& v : x) v *= size;
    const Reference ref = reference_matmul(m.view, x, 1);
    for (const Isa isa : cpu::available_isas()) {
      const std::vector<float> y = multiply(m.view, x, 1, isa, Arithmetic::kFast, pool);
      for (size_t i = 0; i < y.size(); ++i) {
        EXPECT_NEAR(y[i], ref.y[i], 0.02 * std::sqrt(ref.scale[i]) + 1e-30) << size << " row " << i;
      }
    }
  }
}

TEST(Matmul, NoTokensAndNoOutputsAreFine) {
  cpu::WorkerPool pool(2);
  cpu::Queue queue{pool};
  matmul(queue, {}, nullptr, 0, 3);
  const OwnedMatrix m = random_matrix(plain_shape(CodeKind::kF32, 4, 8), 1);
  const MatmulOutput output{&m.view, nullptr, 4};
  matmul(queue, {&output, 1}, nullptr, 8, 0);
}

}  // namespace
}  // namespace hotset
