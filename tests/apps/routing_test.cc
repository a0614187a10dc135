// SPDX-License-Identifier: Apache-2.0
// Routing of synthetic checkpoints, measured: with zipf a cache has something to learn, and what is
// popular moves with the text.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "routing_check.h"
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
