// SPDX-License-Identifier: Apache-2.0
// Gated attention against the CPU's: every KV type, odd shapes, several sequences a step, prompts
// in parts, single tokens after prompts, one recorded step replayed at growing lengths. Pages hold
// NaNs where nothing was stored.
//
// A key whose last fp32 bit differs may round to the neighbouring 16-bit value, which moves a score
// by some 1e-4; that, and not the arithmetic, sets the tolerance of 16-bit pages. Steps of many
// rows also round queries and weights to the pages' type, which the CPU does not.
#include "kernels/gated_attention.h"

#include <algorithm>

#include "cuda/compare.h"
#include "cuda/gpu_testing.h"
#include "kernels/cpu/queue.h"
#include "kernels/op_testing.h"
#include "kernels/rope.h"

namespace hotset {
namespace {

using testing::expect_near_scale;
using testing::Numbers;

// What steps of up to 32 rows (token, head of a KV head's group) may differ by, and larger ones.
struct Tolerance {
  double few_rows;
  double many_rows;
};
constexpr Tolerance kBF16{.few_rows = 3e-4, .many_rows = 1e-2};
constexpr Tolerance kF16{.few_rows = 1e-4, .many_rows = 6e-4};
constexpr Tolerance kSimple{.few_rows = 3e-4, .many_rows = 3e-4};
constexpr Tolerance kF32{.few_rows = 1e-5, .many_rows = 1e-5};

// The KV pages of one sequence on both sides, a layer behind `layer_offset` bytes, out of order.
struct PagePair {
  std::vector<std::vector<std::byte>> host;
  std::vector<std::byte*> host_pages;
  std::byte* const* device_pages = nullptr;
};

class GatedAttentionOnGpu : public testing::GpuTest {
 protected:
  struct Inputs {
    std::vector<float> query_gate, key, value;
  };
  void make_layer(GatedAttention layer, size_t num_sequences, int64_t max_positions);
  // Runs tokens[s] more tokens of each sequence on both sides.
  void run_step(const std::vector<int32_t>& tokens, const Tolerance& tolerance,
                const std::string& what);
  void compare(const GatedAttention& layer, const std::vector<std::vector<int32_t>>& steps,
               const Tolerance& tolerance, const std::string& what);
  void replay_recorded_step(const std::vector<int64_t>& lengths);
  // One more token of sequences first … first + count − 1; the same inputs for a sequence each
  // time.
  [[nodiscard]] std::vector<float> decode(size_t first, size_t count, const Inputs& inputs);

  [[nodiscard]] Inputs make_inputs(int64_t tokens);
  [[nodiscard]] std::vector<float> on_cpu(StepBatch batch, const Inputs& inputs);

  GatedAttention host_, device_;
  RopeTable rope_;
  RopeView device_rope_;
  std::vector<float> q_norm_, k_norm_;
  std::vector<PagePair> pages_;
  std::vector<int64_t> positions_;
  int64_t max_positions_ = 0;
  Numbers numbers_{5};
  cpu::WorkerPool pool_{2, false};
  cpu::Queue cpu_{.pool = pool_};
};

void GatedAttentionOnGpu::make_layer(GatedAttention layer, size_t num_sequences,
                                     int64_t max_positions) {
  q_norm_ = numbers_.normal(layer.head_dim, 0.2f, 0.3f);
  k_norm_ = numbers_.normal(layer.head_dim, 0.2f);
  layer.q_norm = q_norm_.data();
  layer.k_norm = k_norm_.data();
  layer.layer_offset = 64;
  host_ = device_ = layer;
  device_.q_norm = upload(q_norm_);
  device_.k_norm = upload(k_norm_);
  rope_ = make_rope_table({.rotary_dims = layer.rotary_dims});
  device_rope_ = rope_.view();
  device_rope_.inv_freq = upload(rope_.inv_freq);
  max_positions_ = max_positions;
  positions_.assign(num_sequences, 0);
  pages_.assign(num_sequences, {});
  const int64_t bytes = layer.layer_offset + 2 * layer.num_kv_heads * layer.page_tokens *
                                                 layer.head_dim * kv_type_bytes(layer.kv_type);
  const int64_t count = (max_positions + layer.page_tokens - 1) / layer.page_tokens;
  for (PagePair& pair : pages_) {
    const int64_t stride = (bytes + 255) / 256 * 256;
    auto* base = garbage<std::byte>(count * stride);
    std::vector<std::byte*> device_pages;
    for (int64_t i = 0; i < count; ++i) {
      pair.host.emplace_back(static_cast<size_t>(bytes));
      device_pages.push_back(base + (count - 1 - i) * stride);
    }
    for (auto& page : pair.host) pair.host_pages.push_back(page.data());
    pair.device_pages = upload(device_pages);
  }
}

GatedAttentionOnGpu::Inputs GatedAttentionOnGpu::make_inputs(int64_t tokens) {
  const int64_t kv = tokens * host_.num_kv_heads * host_.head_dim;
  return {numbers_.normal(tokens * 2 * host_.num_heads * host_.head_dim, 2.0f),
          numbers_.normal(kv, 2.0f), numbers_.normal(kv)};
}

std::vector<float> GatedAttentionOnGpu::on_cpu(StepBatch batch, const Inputs& inputs) {
  const int64_t t = batch.num_tokens;
  std::vector<float> cos_sin(t * host_.rotary_dims), gate(t * host_.num_heads * host_.head_dim);
  std::vector<float> out(gate.size()), key = inputs.key;
  rope_angles(cpu_, rope_.view(), batch, cos_sin.data());
  const KvPages kv{.type = host_.kv_type,
                   .page_tokens = host_.page_tokens,
                   .num_kv_heads = host_.num_kv_heads,
                   .head_dim = host_.head_dim};
  std::vector<float> scratch(attention_workspace_floats(
      cpu_, {.num_heads = host_.num_heads, .first_position = max_positions_, .num_tokens = t}, kv));
  std::vector<std::byte*> layer_pages(max_positions_ / host_.page_tokens + 2);
  gated_attention(cpu_, host_, batch, inputs.query_gate.data(), key.data(), inputs.value.data(),
                  {cos_sin.data(), gate.data(), scratch.data(), layer_pages.data()}, out.data());
  return out;
}

void GatedAttentionOnGpu::run_step(const std::vector<int32_t>& tokens, const Tolerance& tolerance,
                                   const std::string& what) {
  std::vector<SequenceRows> rows(tokens.size()), device_rows(tokens.size());
  StepBatch batch{.num_sequences = static_cast<int32_t>(tokens.size()),
                  .max_positions = max_positions_};
  for (size_t s = 0; s < tokens.size(); ++s) {
    rows[s] = {.first_position = positions_[s],
               .token_begin = batch.num_tokens,
               .num_tokens = tokens[s],
               .pages = pages_[s].host_pages.data()};
    device_rows[s] = rows[s];
    device_rows[s].pages = pages_[s].device_pages;
    batch.num_tokens += tokens[s];
    batch.max_tokens = std::max(batch.max_tokens, tokens[s]);
    positions_[s] += tokens[s];
  }
  const int64_t t = batch.num_tokens, values = t * host_.num_heads * host_.head_dim;
  const Inputs inputs = make_inputs(t);
  batch.sequences = rows.data();
  const std::vector<float> expected = on_cpu(batch, inputs);

  batch.sequences = upload(device_rows);
  auto* cos_sin = garbage<float>(t * host_.rotary_dims);
  rope_angles(queue(), device_rope_, batch, cos_sin);
  const GatedAttentionBuffers buffers{.cos_sin = cos_sin,
                                      .scratch = garbage<float>(gated_attention_scratch_floats(
                                          queue(), device_, t, max_positions_))};
  auto* out = garbage<float>(values);
  gated_attention(queue(), device_, batch, upload(inputs.query_gate), upload(inputs.key),
                  upload(inputs.value), buffers, out);
  const bool few = batch.max_tokens * host_.num_heads / host_.num_kv_heads <= 32;
  expect_near_scale(download(out, values), expected, few ? tolerance.few_rows : tolerance.many_rows,
                    what);
}

void GatedAttentionOnGpu::compare(const GatedAttention& layer,
                                  const std::vector<std::vector<int32_t>>& steps,
                                  const Tolerance& tolerance, const std::string& what) {
  int64_t most = 0;
  for (size_t s = 0; s < steps[0].size(); ++s) {
    int64_t sum = 0;
    for (const auto& step : steps) sum += step[s];
    most = std::max(most, sum);
  }
  make_layer(layer, steps[0].size(), most);
  for (size_t i = 0; i < steps.size(); ++i) {
    run_step(steps[i], tolerance, what + ", step " + std::to_string(i));
    if (HasFatalFailure()) return;
  }
}

const GatedAttention kModel = {
    .num_heads = 16, .num_kv_heads = 2, .head_dim = 256, .rotary_dims = 64, .page_tokens = 64};

TEST_F(GatedAttentionOnGpu, PromptThenSingleTokens) {
  compare(kModel, {{200, 64, 1}, {1, 1, 1}, {1, 0, 1}, {1, 1, 1}}, kBF16, "model");
}

TEST_F(GatedAttentionOnGpu, PromptInParts) {
  compare(kModel, {{130, 5}, {300, 64}, {1, 190}, {17, 1}}, kBF16, "model");
}

TEST_F(GatedAttentionOnGpu, AFewTokensAtOnce) {
  compare(kModel, {{2, 2}, {150, 3}, {2, 1}, {4, 3}, {3, 4}, {16, 9}, {8, 1}}, kBF16, "model");
}

TEST_F(GatedAttentionOnGpu, ALongOne) {
  compare(kModel, {{700}, {700}, {700}, {3}, {1}, {9}}, kBF16, "model");
}

TEST_F(GatedAttentionOnGpu, OtherTensorShapes) {
  const std::vector<std::vector<int32_t>> steps = {{70, 3}, {1, 1}, {3, 2}, {20, 130}};
  GatedAttention layer{
      .num_heads = 6, .num_kv_heads = 2, .head_dim = 64, .rotary_dims = 16, .page_tokens = 128};
  compare(layer, steps, kBF16, "6 heads of 64");
  layer = {
      .num_heads = 5, .num_kv_heads = 1, .head_dim = 128, .rotary_dims = 128, .page_tokens = 64};
  compare(layer, steps, kBF16, "5 heads of 128");
  layer.kv_type = KvType::kF16;
  compare(layer, steps, kF16, "5 heads of 128, half");
  layer = kModel;
  layer.kv_type = KvType::kF16;
  compare(layer, steps, kF16, "model, half");
}

TEST_F(GatedAttentionOnGpu, ShapesWithoutTensorCores) {
  const std::vector<std::vector<int32_t>> steps = {{70, 3}, {1, 1}, {3, 2}, {20, 130}};
  GatedAttention layer{
      .num_heads = 6, .num_kv_heads = 3, .head_dim = 24, .rotary_dims = 8, .page_tokens = 16};
  compare(layer, steps, kSimple, "heads of 24");
  layer.kv_type = KvType::kF32;
  layer.head_dim = 40;
  compare(layer, steps, kF32, "heads of 40, float");
  layer = kModel;
  layer.kv_type = KvType::kF32;
  compare(layer, steps, kF32, "model, float");
  layer = {.num_heads = 3, .num_kv_heads = 1, .head_dim = 33, .rotary_dims = 2, .page_tokens = 7};
  compare(layer, steps, kSimple, "heads of 33");
}

std::vector<float> GatedAttentionOnGpu::decode(size_t first, size_t count, const Inputs& inputs) {
  std::vector<SequenceRows> rows;
  for (size_t s = first; s < first + count; ++s) {
    rows.push_back({.first_position = positions_[s],
                    .token_begin = static_cast<int32_t>(s - first),
                    .num_tokens = 1,
                    .pages = pages_[s].device_pages});
  }
  const auto n = static_cast<int32_t>(count);
  const StepBatch batch{.sequences = upload(rows),
                        .num_sequences = n,
                        .num_tokens = n,
                        .max_tokens = 1,
                        .max_positions = max_positions_};
  const auto some = [&](const std::vector<float>& all) {
    const auto width = static_cast<std::ptrdiff_t>(all.size() / positions_.size());
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first) * width;
    return upload(std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(count) * width));
  };
  auto* cos_sin = garbage<float>(n * host_.rotary_dims);
  rope_angles(queue(), device_rope_, batch, cos_sin);
  const GatedAttentionBuffers buffers{.cos_sin = cos_sin,
                                      .scratch = garbage<float>(gated_attention_scratch_floats(
                                          queue(), device_, n, max_positions_))};
  const int64_t values = n * host_.num_heads * host_.head_dim;
  auto* out = garbage<float>(values);
  gated_attention(queue(), device_, batch, some(inputs.query_gate), some(inputs.key),
                  some(inputs.value), buffers, out);
  return download(out, values);
}

TEST_F(GatedAttentionOnGpu, SequencesThatDecodeTogetherDoNotChangeEachOther) {
  GatedAttention floats = kModel;
  floats.kv_type = KvType::kF32;
  const GatedAttention small{
      .num_heads = 6, .num_kv_heads = 2, .head_dim = 64, .rotary_dims = 16, .page_tokens = 128};
  for (const GatedAttention& layer : {kModel, floats, small}) {
    make_layer(layer, 16, 1100);
    std::vector<int32_t> lengths(16);
    for (size_t s = 0; s < 16; ++s) lengths[s] = static_cast<int32_t>(1 + 68 * s);
    run_step(lengths, layer.kv_type == KvType::kF32 ? kF32 : kBF16, "prompts");
    const Inputs inputs = make_inputs(16);
    const std::vector<float> together = decode(0, 16, inputs);
    const auto width = static_cast<std::ptrdiff_t>(together.size() / 16);
    for (size_t s = 0; s < 16; ++s) {
      const std::vector<float> alone = decode(s, 1, inputs);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(),
                             together.begin() + static_cast<std::ptrdiff_t>(s) * width))
          << "sequence " << s << ", heads of " << layer.head_dim;
    }
  }
}

// One token a sequence, recorded once, then run at each of these lengths.
void GatedAttentionOnGpu::replay_recorded_step(const std::vector<int64_t>& lengths) {
  StepBatch batch{
      .num_sequences = 1, .num_tokens = 1, .max_tokens = 1, .max_positions = max_positions_};
  SequenceRows rows{.num_tokens = 1, .pages = pages_[0].device_pages};
  auto* device_rows = upload(std::vector<SequenceRows>{rows});
  batch.sequences = device_rows;
  const int64_t values = host_.num_heads * host_.head_dim;
  const Inputs inputs = make_inputs(1);
  auto* cos_sin = garbage<float>(host_.rotary_dims);
  auto* out = garbage<float>(values);
  const GatedAttentionBuffers buffers{.cos_sin = cos_sin,
                                      .scratch = garbage<float>(gated_attention_scratch_floats(
                                          queue(), device_, 1, max_positions_))};
  const auto *query = upload(inputs.query_gate), *value = upload(inputs.value);
  auto* key = upload(inputs.key);
  cuda::Runtime& runtime = queue().runtime;
  ASSERT_TRUE(runtime.begin_capture(queue().stream));
  rope_angles(queue(), device_rope_, batch, cos_sin);
  gated_attention(queue(), device_, batch, query, key, value, buffers, out);
  const auto graph = runtime.end_capture(queue().stream);
  ASSERT_TRUE(graph) << graph.error().message;
  for (const int64_t length : lengths) {
    rows.first_position = length;
    ASSERT_TRUE(runtime.copy(device_rows, &rows, sizeof(rows), queue().stream));
    ASSERT_TRUE(runtime.launch(*graph, queue().stream));
    const auto actual = download(out, values);
    SequenceRows host_rows = rows;
    host_rows.pages = pages_[0].host_pages.data();
    StepBatch host_batch = batch;
    host_batch.sequences = &host_rows;
    expect_near_scale(actual, on_cpu(host_batch, inputs), kBF16.few_rows,
                      "replayed at " + std::to_string(length));
  }
  runtime.destroy(*graph);
}

TEST_F(GatedAttentionOnGpu, ARecordedStepFollowsTheLength) {
  make_layer(kModel, 1, 2048);
  run_step({600}, kBF16, "prompt");
  replay_recorded_step({600, 601, 100, 0, 63, 64, 602});
}

}  // namespace
}  // namespace hotset
