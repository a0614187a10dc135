// SPDX-License-Identifier: Apache-2.0
// Synthetic checkpoints as deep as the 80B, run: what a layer adds must not pile up over 48 of
// them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/model_folder.h"
#include "model/language_model.h"
#include "synth.h"

namespace hotset {
namespace {

// Per position the deviation of the logits, which is planned to be 2; of neighbouring positions
// their correlation, near 1 where all tokens have come to look alike; the share of its experts that
// the last layer chooses.
struct Health {
  double least_spread = 1e9, most_spread = 0;
  double correlation = 0;
  double experts_used = 0;
};

void measure(LanguageModel& model, size_t num_tokens, Health& health) {
  std::vector<int32_t> ids(num_tokens);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(37 * i * i % 2048);
  const int64_t last_layer = model.config().num_hidden_layers - 1;
  std::set<int32_t> used;
  ASSERT_TRUE(model.listen_to_routing([&](int64_t layer, std::span<const int32_t> chosen, int32_t) {
    if (layer == last_layer) used.insert(chosen.begin(), chosen.end());
  }));
  const auto vocab = static_cast<size_t>(model.vocab_size());
  std::vector<float> logits(ids.size() * vocab);
  auto sequence = model.new_sequence(static_cast<int64_t>(ids.size()));
  ASSERT_TRUE(sequence && model.extend_all_logits(**sequence, ids, logits));
  std::vector<double> last;
  for (size_t t = 0; t < ids.size(); ++t) {
    std::vector<double> row(logits.begin() + static_cast<std::ptrdiff_t>(t * vocab),
                            logits.begin() + static_cast<std::ptrdiff_t>((t + 1) * vocab));
    const double mean = std::accumulate(row.begin(), row.end(), 0.0) / static_cast<double>(vocab);
    for (double& logit : row) logit -= mean;
    const double spread = std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), 0.0));
    for (double& logit : row) logit /= spread;
    const double deviation = spread / std::sqrt(static_cast<double>(vocab));
    EXPECT_TRUE(std::isfinite(deviation)) << "position " << t;
    health.least_spread = std::min(health.least_spread, deviation);
    health.most_spread = std::max(health.most_spread, deviation);
    if (t > 0) {
      health.correlation += std::inner_product(row.begin(), row.end(), last.begin(), 0.0) /
                            static_cast<double>(ids.size() - 1);
    }
    last = std::move(row);
  }
  ASSERT_GT(used.size(), 1u) << "the shared expert and others";
  health.experts_used =
      static_cast<double>(used.size() - 1) / static_cast<double>(model.config().num_experts);
}

// As deep as the 80B: activations neither grow nor die, tokens stay apart, routers keep choosing.
TEST(SynthDeep, ActivationsStaySaneOver48Layers) {
  for (const auto& [format, num_layers] : std::vector<std::pair<SynthFormat, int64_t>>{
           {SynthFormat::kGptq, 4}, {SynthFormat::kGptq, 48}, {SynthFormat::kNf4, 48}}) {
    const ModelFolder folder("synth-deep");
    const std::string directory = folder.text() + "/model";
    const auto written = write_synthetic_checkpoint(
        {.like = "tiny", .format = format, .num_layers = num_layers, .directory = directory});
    ASSERT_TRUE(written) << written.error().message;
    auto model = LanguageModel::load(directory, {.cpu_threads = 2, .isa = cpu::detect_isa()}, {});
    ASSERT_TRUE(model) << model.error().message;
    Health health;
    ASSERT_NO_FATAL_FAILURE(measure(**model, 48, health));
    const std::string what = fmt::format(
        "{} layers: logits' deviation {:.2f} to {:.2f}, neighbours' correlation {:.3f}, "
        "{:.0f} % of the last layer's experts",
        num_layers, health.least_spread, health.most_spread, health.correlation,
        100 * health.experts_used);
    fmt::print("{}\n", what);
    EXPECT_GE(health.least_spread, 1.0) << what;
    EXPECT_LE(health.most_spread, 4.0) << what;
    EXPECT_LE(health.correlation, 0.5) << what;
    EXPECT_GE(health.experts_used, 0.5) << what;
  }
}

TEST(SynthDeep, OnlyCompressedTensorsHaveCodesOf8Bits) {
  EXPECT_FALSE(write_synthetic_checkpoint({.like = "tiny", .directory = "x", .code_bits = 8}));
  EXPECT_FALSE(write_synthetic_checkpoint({.like = "tiny",
                                           .format = SynthFormat::kCompressedTensors,
                                           .directory = "x",
                                           .code_bits = 3}));
}

}  // namespace
}  // namespace hotset
