// SPDX-License-Identifier: Apache-2.0
// Routing of synthetic checkpoints, measured: with zipf a cache has something to learn, and what is
// popular moves with the text.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "model/language_model.h"
#include "routing_check.h"
#include "routing_recorder.h"
#include "routing_replay.h"
#include "routing_stats.h"
#include "synth.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;

TEST(RoutingStats, ByHand) {
  // 10 experts, 1 a token: caches of 1, 2 and 3.
  const std::vector<uint16_t> choices = {0, 1, 0, 1, 0, 1, 0, 2};
  const RoutingStats stats = routing_stats(choices, 1, 10);
  EXPECT_DOUBLE_EQ(stats.overlap, 0);
  EXPECT_DOUBLE_EQ(stats.fixed[0], 0.5);
  EXPECT_DOUBLE_EQ(stats.fixed[1], 0.875);
  EXPECT_DOUBLE_EQ(stats.fixed[2], 1.0);
  EXPECT_DOUBLE_EQ(stats.lru[0], 0);          // of the last 6 tokens
  EXPECT_DOUBLE_EQ(stats.lru[1], 5.0 / 6.0);  // the 2 is new
  EXPECT_NEAR(stats.entropy_bits, 0.5 * 1 + 0.375 * 1.4150375 + 0.125 * 3, 1e-6);
  const std::vector<uint16_t> pairs = {0, 1, 1, 2, 2, 1};
  EXPECT_DOUBLE_EQ(routing_stats(pairs, 2, 10).overlap, 0.75);
}

// Two layers; the first always takes the same two experts, the second goes round.
std::vector<std::vector<uint16_t>> two_layers(uint16_t num_tokens) {
  std::vector<std::vector<uint16_t>> choices(2);
  for (uint16_t t = 0; t < num_tokens; ++t) {
    choices[0].insert(choices[0].end(), {18, 19});
    const auto next = static_cast<uint16_t>(2 * t % 20);
    choices[1].insert(choices[1].end(), {next, static_cast<uint16_t>(next + 1)});
  }
  return choices;
}

TEST(RoutingReplay, TheLiveCacheHoldsWhatComesAgain) {
  const auto choices = two_layers(400);
  const RecordedRouting routing{.shape = {.num_layers = 2, .num_experts = 20, .top_k = 2},
                                .choices = choices};
  EXPECT_EQ(routing.num_tokens(), 400);
  const auto stats = stats_of(routing);
  ASSERT_TRUE(stats) << stats.error().message;
  ASSERT_EQ(stats->size(), 2u);
  for (size_t i = 0; i < kCachePercents.size(); ++i) {
    EXPECT_DOUBLE_EQ((*stats)[0].hotset[i], 1.0) << kCachePercents[i];
    EXPECT_DOUBLE_EQ((*stats)[0].fixed[i], 1.0);
    EXPECT_LE((*stats)[1].hotset[i], 0.02 * kCachePercents[i])
        << "it has two layers' slots at most";
    EXPECT_DOUBLE_EQ((*stats)[1].lru[i], 0.0);
  }
}

TEST(RoutingReplay, ASeedIsWorthWhatTheFirstTokensWouldMiss) {
  const auto choices = two_layers(20);
  const auto start = cold_start_of(
      {.shape = {.num_layers = 2, .num_experts = 20, .top_k = 2}, .choices = choices});
  ASSERT_TRUE(start) << start.error().message;
  EXPECT_EQ(start->num_tokens, 10);
  EXPECT_GE(start->seeded, 0.5) << "the first layer's two are there from the first token on";
  EXPECT_LT(start->arbitrary, start->seeded - 0.05);
}

// Every second layer of this model is dense, and is no row of a profile.
TEST(RoutingRecorder, CountsLayersThatHaveExperts) {
  auto model = LanguageModel::load("golden/models/random-c", {.isa = cpu::detect_isa()}, {});
  ASSERT_TRUE(model) << model.error().message;
  const auto recorder = RoutingRecorder::start(**model, RoutingRecorder::Keeps::kChoices);
  ASSERT_TRUE(recorder) << recorder.error().message;
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5};
  std::vector<float> logits(static_cast<size_t>((*model)->vocab_size()));
  const auto sequence = (*model)->new_sequence(8);
  ASSERT_TRUE(sequence && (*model)->extend(**sequence, ids, logits));
  ASSERT_TRUE((*model)->extend(**sequence, std::span(ids).first(1), logits));
  const RoutingProfile& profile = (*recorder)->profile();
  EXPECT_EQ(profile.num_tokens(), 6);
  const auto layers = (*recorder)->layers();
  ASSERT_FALSE(layers.empty());
  EXPECT_LT(std::ssize(layers), (*model)->config().num_hidden_layers);
  EXPECT_EQ(layers[0], 1);
  EXPECT_EQ(profile.num_layers(), std::ssize(layers));
  EXPECT_EQ((*recorder)->recorded().num_tokens(), 6);
  EXPECT_TRUE(RoutingProfile::parse(profile.to_json(), "counted")) << "every layer adds up";
}

RoutingStats measured(double zipf, SynthFormat format, TextKind text) {
  const fs::path folder =
      fs::temp_directory_path() / ("hotset_routing_" + std::to_string(::getpid()));
  fs::remove_all(folder);
  const Status written = write_synthetic_checkpoint(
      {.like = "tiny", .format = format, .zipf = zipf, .directory = folder.string()});
  EXPECT_TRUE(written) << written.error().message;
  const auto check = check_routing(folder.string(), 4 * kTopicTokens, text);
  EXPECT_TRUE(check) << check.error().message;
  fs::remove_all(folder);
  if (!check) return {};
  EXPECT_EQ(check->layers.size(), 4u);
  for (const RoutingStats& layer : check->layers) EXPECT_GT(layer.entropy_bits, 2.0);
  return mean_of(check->layers);
}

TEST(Routing, ZipfGivesCachesSomethingToLearn) {
  const RoutingStats uniform = measured(0, SynthFormat::kGptq, TextKind::kDrift);
  const RoutingStats zipf = measured(1, SynthFormat::kGptq, TextKind::kDrift);
  const RoutingStats steep = measured(2, SynthFormat::kGptq, TextKind::kDrift);
  for (size_t i = 0; i < kCachePercents.size(); ++i) {
    const double size = 0.01 * kCachePercents[i];
    EXPECT_NEAR(uniform.lru[i], size, 0.05) << kCachePercents[i];
    // The smallest cache holds fewer experts than a token chooses.
    EXPECT_GT(zipf.lru[i], uniform.lru[i] + (i == 0 ? 0.05 : 0.1)) << kCachePercents[i];
    EXPECT_GT(steep.lru[i], zipf.lru[i]) << kCachePercents[i];
  }
  EXPECT_GT(zipf.overlap, uniform.overlap + 0.05);
}

// With tokens from anywhere the topics mix, and the popular set is a blur.
TEST(Routing, PopularityFollowsTheText) {
  const RoutingStats drifting = measured(2, SynthFormat::kGptq, TextKind::kDrift);
  const RoutingStats mixed = measured(2, SynthFormat::kGptq, TextKind::kRandom);
  EXPECT_GT(drifting.lru[1], mixed.lru[1] + 0.03);
}

TEST(Routing, EveryFormatKeepsTheTopics) {
  const double want = measured(1, SynthFormat::kBf16, TextKind::kDrift).lru[1];
  for (const SynthFormat format :
       {SynthFormat::kGptq, SynthFormat::kAwq, SynthFormat::kCompressedTensors, SynthFormat::kNf4,
        SynthFormat::kFp8}) {
    EXPECT_NEAR(measured(1, format, TextKind::kDrift).lru[1], want, 0.06)
        << static_cast<int>(format);
  }
}

}  // namespace
}  // namespace hotset
