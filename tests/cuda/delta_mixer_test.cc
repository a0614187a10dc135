// SPDX-License-Identifier: Apache-2.0
// The DeltaNet mixer against the CPU's: several sequences of different lengths a step, prompts in
// parts, single tokens after prompts. State and output must stay within 1e-4 of their scale.
#include "kernels/delta_mixer.h"

#include <numeric>

#include "cuda/compare.h"
#include "cuda/gpu_testing.h"
#include "kernels/cpu/queue.h"
#include "kernels/delta_rule.h"
#include "kernels/op_testing.h"

namespace hotset {
namespace {

using testing::expect_near_scale;
using testing::Numbers;

constexpr double kTolerance = 1e-4;

struct Weights {
  std::vector<float> conv1d, a_log, dt_bias, norm;
};

class DeltaMixerOnGpu : public testing::GpuTest {
 protected:
  // steps[i][s]: tokens of sequence s in step i.
  void compare(const DeltaNetShape& shape, int64_t taps,
               const std::vector<std::vector<int32_t>>& steps);

 private:
  void make_layer(const DeltaNetShape& shape, int64_t taps);
  void run_step(const std::vector<int32_t>& tokens, Numbers& numbers, const std::string& what);

  DeltaMixer host_, device_;
  Weights weights_;
  std::vector<std::vector<float>> states_;
  std::vector<float*> device_states_;
  cpu::WorkerPool pool_{2, false};
  cpu::Queue cpu_{.pool = pool_};
};

void DeltaMixerOnGpu::make_layer(const DeltaNetShape& shape, int64_t taps) {
  Numbers numbers(taps);
  weights_ = {.conv1d = numbers.normal(taps * shape.channels(), 0.5f),
              .a_log = numbers.uniform(shape.num_value_heads, -3.0f, 1.5f),
              .dt_bias = numbers.normal(shape.num_value_heads),
              .norm = numbers.normal(shape.value_head_dim, 0.2f, 1.0f)};
  host_ = {.shape = shape,
           .conv_kernel = taps,
           .conv1d = weights_.conv1d.data(),
           .a_log = weights_.a_log.data(),
           .dt_bias = weights_.dt_bias.data(),
           .norm = weights_.norm.data(),
           .delta_offset = 8,
           .conv_offset = 8 + shape.value_dim() * shape.key_head_dim};
  device_ = host_;
  device_.conv1d = upload(weights_.conv1d);
  device_.a_log = upload(weights_.a_log);
  device_.dt_bias = upload(weights_.dt_bias);
  device_.norm = upload(weights_.norm);
}

void DeltaMixerOnGpu::run_step(const std::vector<int32_t>& tokens, Numbers& numbers,
                               const std::string& what) {
  const DeltaNetShape& shape = host_.shape;
  std::vector<SequenceRows> rows(tokens.size()), device_rows(tokens.size());
  StepBatch batch{.num_sequences = static_cast<int32_t>(tokens.size())};
  for (size_t s = 0; s < tokens.size(); ++s) {
    rows[s] = {
        .token_begin = batch.num_tokens, .num_tokens = tokens[s], .state = states_[s].data()};
    device_rows[s] = rows[s];
    device_rows[s].state = device_states_[s];
    batch.num_tokens += tokens[s];
    batch.max_tokens = std::max(batch.max_tokens, tokens[s]);
  }
  const int64_t t = batch.num_tokens, values = t * shape.value_dim();
  const auto qkvz = numbers.normal(t * shape.qkvz_dim());
  const auto ba = numbers.normal(t * 2 * shape.num_value_heads, 2.0f);
  std::vector<float> mixed(t * shape.channels()), z(values), beta(t * shape.num_value_heads),
      decay(t * shape.num_value_heads), expected(values);
  std::vector<float> scratch(
      delta_rule_workspace_floats(cpu_, {.shape = shape, .num_tokens = batch.max_tokens}));
  batch.sequences = rows.data();
  delta_mixer(cpu_, host_, batch, qkvz.data(), ba.data(),
              {mixed.data(), z.data(), beta.data(), decay.data(), scratch.data()}, expected.data());

  batch.sequences = upload(device_rows);
  const DeltaMixerBuffers buffers{.mixed = garbage<float>(t * shape.channels()),
                                  .beta = garbage<float>(t * shape.num_value_heads),
                                  .decay = garbage<float>(t * shape.num_value_heads)};
  auto* out = garbage<float>(values);
  delta_mixer(queue(), device_, batch, upload(qkvz), upload(ba), buffers, out);
  expect_near_scale(download(out, values), expected, kTolerance, what);
  for (size_t s = 0; s < tokens.size(); ++s) {
    expect_near_scale(download(device_states_[s], static_cast<int64_t>(states_[s].size())),
                      states_[s], kTolerance, what + ", state " + std::to_string(s));
  }
  EXPECT_EQ(queue().scratch.used(), 0);
}

void DeltaMixerOnGpu::compare(const DeltaNetShape& shape, int64_t taps,
                              const std::vector<std::vector<int32_t>>& steps) {
  make_layer(shape, taps);
  const int64_t floats = host_.conv_offset + (taps - 1) * shape.channels() + 4;
  states_.assign(steps[0].size(), std::vector<float>(static_cast<size_t>(floats)));
  device_states_.clear();
  for (const auto& state : states_) device_states_.push_back(upload(state));
  Numbers numbers(99);
  for (size_t i = 0; i < steps.size(); ++i) {
    run_step(steps[i], numbers,
             "heads " + std::to_string(shape.num_key_heads) + "/" +
                 std::to_string(shape.num_value_heads) + " of " +
                 std::to_string(shape.key_head_dim) + " × " + std::to_string(shape.value_head_dim) +
                 ", step " + std::to_string(i));
    if (HasFatalFailure()) return;
  }
}

TEST_F(DeltaMixerOnGpu, SingleTokensOfTheModelsShape) {
  compare({16, 32, 128, 128}, 4, {{1, 1, 1}, {1, 1, 1}, {1, 0, 1}, {1, 1, 1}});
}

TEST_F(DeltaMixerOnGpu, AFewTokensAtOnce) {
  compare({2, 4, 128, 128}, 4, {{1, 3, 8, 2}, {8, 1, 1, 5}, {1, 1, 1, 1}});
  compare({1, 1, 128, 128}, 2, {{2}, {1}});
  compare({2, 6, 128, 128}, 8, {{4, 7}, {1, 1}});
  compare({1, 4, 128, 128}, 3, {{8, 1}, {1, 8}});
}

TEST_F(DeltaMixerOnGpu, ManySequences) {
  compare({16, 32, 128, 128}, 4, {std::vector<int32_t>(20, 1), std::vector<int32_t>(20, 2)});
}

TEST_F(DeltaMixerOnGpu, PromptsInPartsThenSingleTokens) {
  compare({2, 4, 128, 128}, 4, {{200, 64, 1}, {65, 1, 130}, {1, 1, 1}, {63, 128, 2}});
}

TEST_F(DeltaMixerOnGpu, APromptOfSeveralPasses) {
  compare({16, 32, 128, 128}, 4, {{1500, 70}, {1, 1}});
}

TEST_F(DeltaMixerOnGpu, OtherShapes) {
  const std::vector<std::vector<int32_t>> steps = {{3, 1}, {100, 9}, {1, 1}, {12, 67}};
  compare({2, 2, 24, 40}, 4, steps);
  compare({3, 9, 40, 24}, 2, steps);
  compare({1, 4, 64, 64}, 8, steps);
  compare({2, 4, 32, 96}, 3, steps);
  compare({1, 2, 192, 64}, 4, {{3, 1}, {20, 9}, {1, 1}});
  compare({1, 1, 7, 5}, 4, {{3, 1}, {20, 9}, {1, 1}});
}

}  // namespace
}  // namespace hotset
