// SPDX-License-Identifier: Apache-2.0
// The operations that take rows one by one, against the CPU's: norms, embedding, angles, routing.
#include <cstring>
#include <limits>

#include "cuda/compare.h"
#include "cuda/gpu_testing.h"
#include "kernels/cpu/queue.h"
#include "kernels/embedding.h"
#include "kernels/op_testing.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/router.h"

namespace hotset {
namespace {

using testing::expect_near_scale;
using testing::Numbers;

class RowOps : public testing::GpuTest {
 protected:
  cpu::WorkerPool pool_{1, false};
  cpu::Queue cpu_{.pool = pool_};
};

TEST_F(RowOps, Norms) {
  for (const auto& [rows, cols] : {std::pair{3, 2048}, {1, 256}, {5, 37}, {2, 3000}, {2, 5000}}) {
    Numbers numbers(cols);
    const auto x = numbers.normal(rows * cols), weight = numbers.normal(cols, 0.3f);
    auto residual = numbers.normal(rows * cols);
    const RmsNormParams params{.num_rows = rows, .cols = cols};
    std::vector<float> expected(x.size());
    float *dx = upload(x), *dw = upload(weight), *dr = upload(residual);
    float* out = garbage<float>(rows * cols);
    const std::string what = "norm of " + std::to_string(cols);

    rms_norm(cpu_, params, x.data(), weight.data(), expected.data());
    rms_norm(queue(), params, dx, dw, out);
    expect_near_scale(download(out, rows * cols), expected, 2e-6, what);

    add_rms_norm(cpu_, params, x.data(), residual.data(), weight.data(), expected.data());
    add_rms_norm(queue(), params, dx, dr, dw, out);
    expect_near_scale(download(out, rows * cols), expected, 2e-6, "add, " + what);
    EXPECT_EQ(download(dr, rows * cols), residual) << what;
  }
}

struct TableCase {
  CodeKind code;
  ScaleKind scale;
  bool has_zeros;
};

// Random bytes are as good a table as any; scales are set apart, so that none is a NaN.
TEST_F(RowOps, EmbeddingOfEveryEncoding) {
  const std::vector<TableCase> cases = {
      {CodeKind::kF32, ScaleKind::kNone, false},
      {CodeKind::kF16, ScaleKind::kNone, false},
      {CodeKind::kBF16, ScaleKind::kNone, false},
      {CodeKind::kFp8, ScaleKind::kF32, false},
      {CodeKind::kInt8, ScaleKind::kF16, false},
      {CodeKind::kAffine4, ScaleKind::kF16, true},
      {CodeKind::kAffine4, ScaleKind::kBF16, false},
      {CodeKind::kCodebook4, ScaleKind::kF32, false},
      {CodeKind::kCodebook4, ScaleKind::kF16, false},
  };
  const int64_t rows = 37, cols = 200;
  const std::vector<int32_t> ids = {36, 0, 5, 5, 16, 31};
  for (const TableCase& c : cases) {
    PackedMatrix table;
    static_cast<PackedShape&>(table) = {
        .code = c.code,
        .scale = c.scale,
        .has_zeros = c.has_zeros,
        .zero = static_cast<uint8_t>(c.code == CodeKind::kInt8 ? 128 : 8),
        .rows = rows,
        .cols = cols,
        .group = c.scale == ScaleKind::kNone ? cols : 64};
    Numbers numbers(7);
    std::vector<std::byte> bytes(static_cast<size_t>(table.bytes()));
    std::mt19937 engine(3);
    for (std::byte& b : bytes) b = static_cast<std::byte>(engine() & 0x3f);
    const auto scales = numbers.uniform(rows * table.num_groups(), 0.01f, 0.1f);
    for (int64_t i = 0; i < rows * table.num_groups() && c.scale != ScaleKind::kNone; ++i) {
      set_scale(table, bytes.data(), i / table.num_groups(), i % table.num_groups(), scales[i]);
    }
    const auto book = numbers.normal(16);
    table.data = bytes.data();
    table.codebook = book.data();
    std::vector<float> expected(ids.size() * cols);
    embed(cpu_, table, ids, expected.data());

    PackedMatrix on_device = table;
    on_device.data = upload(bytes);
    on_device.codebook = upload(book);
    float* out = garbage<float>(static_cast<int64_t>(expected.size()));
    embed(queue(), on_device, {upload(ids), ids.size()}, out);
    testing::expect_same_bits(download(out, static_cast<int64_t>(expected.size())), expected,
                              code_kind_name(c.code));
  }
}

TEST_F(RowOps, AnglesOfEverySequence) {
  const RopeTable table = make_rope_table({.rotary_dims = 24, .yarn = true, .factor = 4.0});
  std::vector<SequenceRows> sequences(3);
  sequences[0] = {.first_position = 0, .token_begin = 0, .num_tokens = 5};
  sequences[1] = {.first_position = 261000, .token_begin = 5, .num_tokens = 1};
  sequences[2] = {.first_position = 77, .token_begin = 6, .num_tokens = 9};
  StepBatch batch{.sequences = sequences.data(),
                  .num_sequences = 3,
                  .num_tokens = 15,
                  .max_tokens = 9,
                  .max_positions = 262144};
  std::vector<float> expected(15 * 24);
  rope_angles(cpu_, table.view(), batch, expected.data());
  RopeView view = table.view();
  view.inv_freq = upload(table.inv_freq);
  batch.sequences = upload(sequences);
  float* out = garbage<float>(15 * 24);
  rope_angles(queue(), view, batch, out);
  expect_near_scale(download(out, 15 * 24), expected, 2e-7, "angles");
}

void expect_same_choice(std::span<const int32_t> experts, std::span<const int32_t> expected,
                        std::span<const float> weights, std::span<const float> expected_weights) {
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(experts[i], expected[i]) << "choice " << i;
    ASSERT_NEAR(weights[i], expected_weights[i], 1e-6) << "choice " << i;
  }
}

TEST_F(RowOps, RoutesLikeTheCpu) {
  for (const auto& [num_experts, top_k] :
       {std::pair{512, 10}, {8, 8}, {37, 3}, {1, 1}, {600, 20}, {128, 4}}) {
    for (const bool normalize : {true, false}) {
      const int64_t tokens = 21, chosen = tokens * top_k, with_shared = tokens * (top_k + 1);
      Numbers numbers(num_experts);
      auto logits = numbers.normal(tokens * num_experts, 3.0f);
      for (int64_t i = 0; i < std::min<int64_t>(3 * num_experts, 400); ++i) {
        logits[i] = std::round(logits[i]);  // ties
      }
      const auto shared = numbers.normal(tokens);
      const RouterParams params{
          .num_tokens = tokens, .num_experts = num_experts, .top_k = top_k, .normalize = normalize};
      std::vector<int32_t> experts(with_shared);
      std::vector<float> weights(with_shared);
      const float *dl = upload(logits), *ds = upload(shared);
      auto* ids = garbage<int32_t>(with_shared);
      auto* w = garbage<float>(with_shared);

      route(cpu_, params, logits.data(), experts.data(), weights.data());
      route(queue(), params, dl, ids, w);
      const auto count = static_cast<size_t>(chosen);
      expect_same_choice(download(ids, chosen), std::span(experts).first(count),
                         download(w, chosen), std::span(weights).first(count));

      route_with_shared(cpu_, params, logits.data(), shared.data(), experts.data(), weights.data());
      route_with_shared(queue(), params, dl, ds, ids, w);
      expect_same_choice(download(ids, with_shared), experts, download(w, with_shared), weights);
    }
  }
}

TEST_F(RowOps, RoutingSurvivesNaN) {
  std::vector<float> logits(40, 1.0f);
  logits[0] = std::numeric_limits<float>::quiet_NaN();
  logits[39] = -std::numeric_limits<float>::infinity();
  logits[7] = 2.0f;
  const RouterParams params{.num_tokens = 1, .num_experts = 40, .top_k = 40};
  std::vector<int32_t> expected(40);
  std::vector<float> weights(40);
  route(cpu_, params, logits.data(), expected.data(), weights.data());
  auto* ids = garbage<int32_t>(40);
  route(queue(), params, upload(logits), ids, garbage<float>(40));
  EXPECT_EQ(download(ids, 40), expected);
}

}  // namespace
}  // namespace hotset
