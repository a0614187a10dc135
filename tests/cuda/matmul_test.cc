// SPDX-License-Identifier: Apache-2.0
// Linear layers on the GPU: integer products must have the CPU's bits, whatever the shape; products
// in floats must be as close to sums in double precision as the CPU's.
#include "kernels/matmul.h"

#include <cstring>

#include "cuda/gpu_testing.h"
#include "kernels/cuda/expert_table.h"
#include "kernels/matmul_cases.h"

namespace hotset {
namespace {

// bf16 weights see the input as two bf16 values: 16 bits of its 24.
constexpr double kSplitLimit = 1e-9;

class GpuMatmulTest : public testing::GpuTest {
 protected:
  PackedMatrix to_device(const OwnedMatrix& m) {
    PackedMatrix view = m.view;
    view.data = upload(m.data);
    if (!m.codebook.empty()) view.codebook = upload(m.codebook);
    if (!m.order.empty()) view.input_order = upload(m.order);
    return view;
  }

  std::vector<std::vector<float>> on_gpu(const std::vector<OwnedMatrix>& matrices,
                                         const std::vector<float>& x, int64_t tokens,
                                         Arithmetic arithmetic, int64_t pad) {
    const int64_t cols = matrices[0].view.cols;
    const float* device_x = upload(x);
    std::vector<PackedMatrix> weights;
    std::vector<MatmulOutput> outputs;
    for (const OwnedMatrix& m : matrices) weights.push_back(to_device(m));
    for (const PackedMatrix& w : weights) {
      outputs.push_back({&w, garbage<float>(tokens * (w.rows + pad)), w.rows + pad});
    }
    queue().arithmetic = arithmetic;
    queue().scratch.rewind(0);
    const int64_t bound = cuda::matmul_scratch_bytes(tokens, cols);
    const int64_t used_before = queue().scratch.most_used();
    matmul(queue(), outputs, device_x, cols, tokens);
    EXPECT_LE(queue().scratch.most_used(), std::max(bound, used_before));
    EXPECT_EQ(queue().scratch.used(), 0);
    std::vector<std::vector<float>> y;
    for (const MatmulOutput& o : outputs) {
      y.push_back(without_padding(download(o.y, tokens * o.ldy), o.weight->rows, o.ldy));
    }
    return y;
  }
  static std::vector<float> without_padding(const std::vector<float>& y, int64_t rows,
                                            int64_t ldy) {
    std::vector<float> packed;
    for (size_t at = 0; at < y.size(); at += static_cast<size_t>(ldy)) {
      const auto begin = y.begin() + static_cast<std::ptrdiff_t>(at);
      packed.insert(packed.end(), begin, begin + rows);
      for (int64_t r = rows; r < ldy; ++r) EXPECT_TRUE(std::isnan(begin[r]));
    }
    return packed;
  }

  static std::vector<float> on_cpu(const OwnedMatrix& m, const std::vector<float>& x,
                                   int64_t tokens, Arithmetic arithmetic) {
    cpu::WorkerPool pool(1, false);
    cpu::Queue queue{pool, cpu::detect_isa(), arithmetic};
    std::vector<float> y(static_cast<size_t>(tokens * m.view.rows));
    const MatmulOutput output{&m.view, y.data(), m.view.rows};
    matmul(queue, {&output, 1}, x.data(), m.view.cols, tokens);
    return y;
  }

  static void expect_same_bits(const std::vector<float>& y, const std::vector<float>& want,
                               int64_t rows, const std::string& what) {
    ASSERT_EQ(y.size(), want.size());
    size_t different = 0, first = 0;
    for (size_t i = y.size(); i-- > 0;) {
      if (std::memcmp(&y[i], &want[i], sizeof(float)) != 0) ++different, first = i;
    }
    EXPECT_EQ(different, 0u) << what << ": of " << y.size() << ", first at token "
                             << first / static_cast<size_t>(rows) << " row "
                             << first % static_cast<size_t>(rows) << ": " << y[first] << " for "
                             << want[first];
  }

  static void check_output(const OwnedMatrix& m, const std::vector<float>& x, int64_t tokens,
                           Arithmetic arithmetic, const std::vector<float>& y) {
    const CodeKind code = m.view.code;
    const std::string what = describe(m.view) + " tokens " + std::to_string(tokens);
    const bool integer =
        code == CodeKind::kInt8 || code == CodeKind::kAffine4 || code == CodeKind::kCodebook4;
    if (integer && arithmetic == Arithmetic::kFast) {
      expect_same_bits(y, on_cpu(m, x, tokens, arithmetic), m.view.rows, what);
    } else {
      expect_close(y, reference_matmul(m.view, x, tokens), m.view.rows,
                   code == CodeKind::kBF16 ? kSplitLimit : kExactLimit, what);
    }
  }

  void check(const std::vector<OwnedMatrix>& matrices, int64_t tokens, Arithmetic arithmetic,
             int64_t pad = 0) {
    const std::vector<float> x = random_floats(tokens * matrices[0].view.cols, 11);
    const auto y = on_gpu(matrices, x, tokens, arithmetic, pad);
    for (size_t i = 0; i < matrices.size(); ++i) {
      check_output(matrices[i], x, tokens, arithmetic, y[i]);
    }
  }
  void check(const PackedShape& shape, uint32_t seed, bool ordered, int64_t tokens,
             Arithmetic arithmetic) {
    std::vector<OwnedMatrix> one;
    one.push_back(random_matrix(shape, seed, ordered));
    one[0].settle();
    check(one, tokens, arithmetic);
  }
};

constexpr int64_t kRows[] = {1, 15, 16, 17, 40, 200};
constexpr int64_t kCols[] = {8, 13, 40, 96, 128, 200, 1048};
constexpr int64_t kTokens[] = {1, 2, 5, 16, 17, 64, 200};
constexpr int64_t kGroups[] = {8, 24, 32, 64, 128, 0};  // 0: the whole row

// Every encoding with every group; rows, columns and tokens run through all their values beside.
TEST_F(GpuMatmulTest, AgreesWithTheCpuOnEveryEncoding) {
  size_t i = 0;
  for (PackedShape shape : all_encodings()) {
    const bool plain = shape.code == CodeKind::kF32 || shape.code == CodeKind::kF16 ||
                       shape.code == CodeKind::kBF16;
    for (const int64_t group : kGroups) {
      if (plain && group != 0) continue;
      for (int repeat = 0; repeat < 4; ++repeat, ++i) {
        shape.rows = kRows[i % 6];
        shape.cols = kCols[(i + i / 6) % 7];
        shape.group = group == 0 ? round_up(shape.cols, 8) : group;
        const int64_t tokens = kTokens[(i / 7 + i) % 7];
        check(shape, static_cast<uint32_t>(i), false, tokens,
              repeat == 3 ? Arithmetic::kExact : Arithmetic::kFast);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(GpuMatmulTest, EveryNumberOfTokensOfTheModelsShapes) {
  for (const int64_t tokens : {1, 2, 4, 8, 9, 16, 17, 32, 33, 65, 130}) {
    check({.code = CodeKind::kAffine4,
           .scale = ScaleKind::kF16,
           .zero = 8,
           .rows = 272,
           .cols = 2048,
           .group = 128},
          1, false, tokens, Arithmetic::kFast);
    check({.code = CodeKind::kCodebook4,
           .scale = ScaleKind::kF16,
           .rows = 272,
           .cols = 512,
           .group = 64},
          1, false, tokens, Arithmetic::kFast);
    check({.code = CodeKind::kBF16, .rows = 144, .cols = 512, .group = 512}, 2, false, tokens,
          Arithmetic::kFast);
  }
  for (const int64_t tokens : {1, 40}) {  // more groups than wait in shared memory at once
    check({.code = CodeKind::kAffine4,
           .scale = ScaleKind::kF16,
           .has_zeros = true,
           .rows = 48,
           .cols = 4096,
           .group = 32},
          3, false, tokens, Arithmetic::kFast);
  }
}

TEST_F(GpuMatmulTest, ReadsInputInThePackedOrder) {
  for (const CodeKind code :
       {CodeKind::kAffine4, CodeKind::kInt8, CodeKind::kBF16, CodeKind::kF32}) {
    const bool plain = code == CodeKind::kBF16 || code == CodeKind::kF32;
    const PackedShape shape{.code = code,
                            .scale = plain ? ScaleKind::kNone : ScaleKind::kF16,
                            .zero = 8,
                            .rows = 40,
                            .cols = 200,
                            .group = plain ? 200 : 64};
    for (const int64_t tokens : {1, 9, 40}) {
      check(shape, 5, true, tokens, Arithmetic::kFast);
      check(shape, 5, true, tokens, Arithmetic::kExact);
    }
  }
}

// Many outputs, some of which share a rounded input, in rows that are longer than a matrix.
TEST_F(GpuMatmulTest, ManyOutputsOfOneInput) {
  std::vector<OwnedMatrix> all;
  const auto add = [&](PackedShape shape, bool ordered) {
    shape.cols = 192;
    if (shape.group == 0) shape.group = 192;
    all.push_back(random_matrix(shape, static_cast<uint32_t>(all.size() + 1), ordered));
  };
  const PackedShape four{
      .code = CodeKind::kAffine4, .scale = ScaleKind::kF16, .zero = 8, .group = 64};
  for (const int64_t rows : {70, 16, 3, 33}) {
    PackedShape shape = four;
    shape.rows = rows;
    add(shape, false);
  }
  add({.code = CodeKind::kAffine4,
       .scale = ScaleKind::kBF16,
       .has_zeros = true,
       .rows = 33,
       .group = 32},
      true);
  add({.code = CodeKind::kInt8, .scale = ScaleKind::kF16, .zero = 128, .rows = 5, .group = 64},
      false);
  add({.code = CodeKind::kBF16, .rows = 100}, false);
  add({.code = CodeKind::kCodebook4, .scale = ScaleKind::kF16, .rows = 48, .group = 64}, false);
  add({.code = CodeKind::kFp8, .scale = ScaleKind::kF32, .rows = 31, .group = 128}, false);
  for (OwnedMatrix& m : all) m.settle();
  for (const int64_t tokens : {1, 3, 16, 70}) {
    for (const Arithmetic arithmetic : {Arithmetic::kFast, Arithmetic::kExact}) {
      check(all, tokens, arithmetic, 8);
    }
  }
}

// Alone, beside integer weights, with and without a multiprocessor for each tile.
TEST_F(GpuMatmulTest, FloatsOfATokenDoNotDependOnTheOthers) {
  constexpr int64_t kMost = 16, kWide = 1040;
  const PackedShape bf16{.code = CodeKind::kBF16, .rows = 72, .cols = kWide, .group = kWide};
  PackedShape half = bf16, many = bf16, eight = bf16;
  half.code = CodeKind::kF16;
  many.rows = 4000;
  eight.code = CodeKind::kInt8, eight.scale = ScaleKind::kF16, eight.zero = 128, eight.group = 16;
  const std::vector<float> x = random_floats(kMost * kWide, 3);
  for (const std::vector<PackedShape>& shapes :
       {std::vector{bf16}, std::vector{many}, std::vector{half}, std::vector{bf16, eight}}) {
    std::vector<OwnedMatrix> matrices;
    for (const PackedShape& shape : shapes) matrices.push_back(random_matrix(shape, 9));
    for (OwnedMatrix& m : matrices) m.settle();
    const std::vector<float> all = on_gpu(matrices, x, kMost, Arithmetic::kFast, 0)[0];
    for (const int64_t tokens : {1, 2, 5, 8, 9}) {
      const std::vector<float> some = {x.begin(), x.begin() + tokens * kWide};
      const std::vector<float> want = {all.begin(), all.begin() + tokens * shapes[0].rows};
      expect_same_bits(on_gpu(matrices, some, tokens, Arithmetic::kFast, 0)[0], want,
                       shapes[0].rows, describe(matrices[0].view));
    }
  }
}

TEST_F(GpuMatmulTest, NotANumberShows) {
  std::vector<OwnedMatrix> one;
  one.push_back(random_matrix({.code = CodeKind::kAffine4,
                               .scale = ScaleKind::kF16,
                               .zero = 8,
                               .rows = 20,
                               .cols = 256,
                               .group = 128},
                              1));
  one[0].settle();
  for (const int64_t tokens : {3, 20}) {
    std::vector<float> x = random_floats(tokens * 256, 1);
    x[256 + 77] = std::numeric_limits<float>::infinity();
    const std::vector<float> y = on_gpu(one, x, tokens, Arithmetic::kFast, 0)[0];
    for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i / 20 == 1) << i;
  }
}

}  // namespace
}  // namespace hotset
