// SPDX-License-Identifier: Apache-2.0
// A token drawn from the largest logits is the token that all of them give, whatever the settings;
// where it could be another, nothing is drawn.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "sampling/sampler.h"

namespace hotset {
namespace {

constexpr int64_t kVocab = 3000;

std::vector<float> random_logits(uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(kVocab);
  // Rounded, so that equal logits are common.
  for (float& logit : logits) logit = std::round(normal(rng) * 16) / 16;
  return logits;
}

// The `count` largest, in an order of their own; all equals of the last may be cut off.
LogitsHead head_of(const std::vector<float>& logits, size_t count, uint32_t seed) {
  LogitsHead head;
  for (size_t id = 0; id < logits.size(); ++id) {
    head.largest.push_back({static_cast<int32_t>(id), logits[id]});
  }
  std::stable_sort(head.largest.begin(), head.largest.end(),
                   [](const auto& a, const auto& b) { return a.logit > b.logit; });
  head.cut =
      count < logits.size() ? head.largest[count].logit : -std::numeric_limits<float>::infinity();
  head.largest.resize(count);
  std::shuffle(head.largest.begin(), head.largest.end(), std::mt19937(seed));
  return head;
}

std::vector<SamplingParams> all_settings() {
  std::vector<SamplingParams> all;
  for (const double temperature : {0.0, 0.7, 1.0, 1.7}) {
    for (const int64_t top_k : {0, 1, 20, 100}) {
      for (const double top_p : {1.0, 0.8}) {
        for (const double min_p : {0.0, 0.05}) {
          for (const double repetition : {1.0, 1.3, 0.8}) {
            SamplingParams params;
            params.temperature = temperature;
            params.top_k = top_k;
            params.top_p = top_p;
            params.min_p = min_p;
            params.repetition_penalty = repetition;
            params.presence_penalty = repetition == 1.3 ? 0.5 : 0;
            params.frequency_penalty = repetition == 1.3 ? 0.25 : 0;
            if (top_k == 20) params.logit_bias = {{7, -5.0f}};
            if (min_p > 0) params.min_tokens = 4;
            all.push_back(params);
          }
        }
      }
    }
  }
  return all;
}

// Texts of some tokens, each drawn twice.
TEST(SamplerHead, DrawsWhatAllLogitsGive) {
  const std::vector<int32_t> prompt = {1, 2, 3, 5, 8, 13};
  int num_settled = 0, num_asked = 0;
  for (const SamplingParams& params : all_settings()) {
    Sampler whole(params, 11, kVocab, {4, 9}, prompt), head(params, 11, kVocab, {4, 9}, prompt);
    SamplerScratch scratch;
    for (uint32_t step = 0; step < 12; ++step) {
      const std::vector<float> logits = random_logits(step);
      const auto wanted = whole.sample(logits, scratch);
      ASSERT_TRUE(wanted);
      const size_t count = step % 3 == 0 ? 12 : step % 3 == 1 ? 200 : 900;
      const auto got = head.sample_head(head_of(logits, count, step), scratch);
      ASSERT_TRUE(got);
      num_asked += head.can_sample_head() ? 1 : 0;
      ASSERT_TRUE(head.can_sample_head() || !*got);
      if (*got) {
        ++num_settled;
        ASSERT_EQ((*got)->token, wanted->token)
            << "temperature " << params.temperature << ", top_k " << params.top_k << ", top_p "
            << params.top_p << ", min_p " << params.min_p << ", step " << step;
      } else {
        ASSERT_EQ(head.sample(logits, scratch)->token, wanted->token) << "nothing had changed";
      }
    }
  }
  EXPECT_GT(num_settled, num_asked * 6 / 10) << "of " << num_asked;
}

TEST(SamplerHead, AsksForAllWhereASmallLogitCouldMatter) {
  SamplerScratch scratch;
  const auto settles = [&](SamplingParams params, const LogitsHead& head) {
    Sampler sampler(params, 1, kVocab, {}, std::vector<int32_t>{1});
    return sampler.sample_head(head, scratch)->has_value();
  };
  SamplingParams greedy;
  greedy.temperature = 0;
  const LogitsHead tie{.largest = {{5, 1.0f}}, .cut = 1.0f};
  EXPECT_FALSE(settles(greedy, tie)) << "a lower id may have the same logit";
  const LogitsHead clear{.largest = {{5, 1.0f}, {1, 2.0f}}, .cut = 0.5f};
  EXPECT_TRUE(settles(greedy, clear));
  greedy.logit_bias = {{77, 1.0f}};
  EXPECT_FALSE(settles(greedy, clear)) << "an unlisted token is raised";
  greedy.logit_bias = {{77, -1.0f}};
  EXPECT_TRUE(settles(greedy, clear));
  greedy.num_logprobs = 0;
  EXPECT_FALSE(settles(greedy, clear)) << "log-probabilities need the sum over all";
  SamplingParams warm;
  EXPECT_FALSE(settles(warm, clear)) << "every token may be drawn";
  warm.top_k = 2;
  EXPECT_TRUE(settles(warm, clear));
  warm.top_k = 3;
  EXPECT_FALSE(settles(warm, clear)) << "the third is not listed";
  warm.top_k = 2;
  warm.repetition_penalty = 8;
  EXPECT_FALSE(settles(warm, clear)) << "token 1 has sunk below the cut";
}

TEST(SamplerHead, RefusesLogitsThatAreNotFinite) {
  Sampler sampler({}, 1, kVocab, {}, {});
  SamplerScratch scratch;
  const auto sampled = sampler.sample_head({.largest = {{1, 1.0f}}, .all_finite = false}, scratch);
  ASSERT_FALSE(sampled);
  EXPECT_EQ(sampled.error().kind, ErrorKind::kInternal);
  EXPECT_EQ(sampled.error().message,
            "numerical: the model's logits are not finite at output token 1");
}

}  // namespace
}  // namespace hotset
