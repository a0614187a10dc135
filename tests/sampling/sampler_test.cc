// SPDX-License-Identifier: Apache-2.0
#include "sampling/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>

namespace hotset {
namespace {

std::vector<float> random_logits(uint32_t seed, size_t n) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(n);
  for (float& logit : logits) logit = normal(rng);
  return logits;
}

Sampler make_sampler(const SamplingParams& params, int64_t num_valid, uint64_t seed = 1,
                     std::vector<int32_t> ending_ids = {}, std::vector<int32_t> prompt = {}) {
  return Sampler(params, seed, num_valid, std::move(ending_ids), prompt);
}

int32_t sample_once(Sampler& sampler, const std::vector<float>& logits) {
  SamplerScratch scratch;
  const auto sampled = sampler.sample(logits, scratch);
  EXPECT_TRUE(sampled.has_value()) << sampled.error().message;
  return sampled ? sampled->token : -1;
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  SamplingParams params;
  params.temperature = 0;
  Sampler sampler = make_sampler(params, 4);
  EXPECT_EQ(sample_once(sampler, {1, 7, 7, 3}), 1);
}

TEST(Sampler, NeverDrawsPaddedRows) {
  SamplingParams params;
  params.temperature = 2;
  Sampler sampler = make_sampler(params, 3);
  for (int i = 0; i < 200; ++i) EXPECT_LT(sample_once(sampler, {0, 0, 0, 50, 50}), 3);
  SamplingParams greedy;
  greedy.temperature = 0;
  greedy.num_logprobs = 2;
  Sampler cold = make_sampler(greedy, 3);
  SamplerScratch scratch;
  const auto sampled = cold.sample(std::vector<float>{0, 1, 0, 50, 50}, scratch);
  ASSERT_TRUE(sampled.has_value());
  EXPECT_EQ(sampled->token, 1);
  EXPECT_NEAR(sampled->logprob, 1 - std::log(2 + std::exp(1.0)), 1e-6);
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {inf, -inf, std::numeric_limits<float>::quiet_NaN()}) {
    Sampler sampler = make_sampler({}, 4);
    SamplerScratch scratch;
    const auto sampled = sampler.sample(std::vector<float>{0, bad, 0, 0}, scratch);
    ASSERT_FALSE(sampled.has_value());
    EXPECT_EQ(sampled.error().message.rfind("numerical", 0), 0u) << sampled.error().message;
  }
  Sampler padded = make_sampler({}, 3);  // a NaN in a padded row is nobody's business
  SamplerScratch scratch;
  EXPECT_TRUE(padded.sample(std::vector<float>{0, 1, 0, inf}, scratch).has_value());
}

TEST(Sampler, SameSeedSameTokens) {
  const auto logits = random_logits(5, 100);
  const auto draw_many = [&](uint64_t seed) {
    SamplingParams params;
    Sampler sampler = make_sampler(params, 100, seed);
    std::vector<int32_t> out;
    for (int i = 0; i < 50; ++i) out.push_back(sample_once(sampler, logits));
    return out;
  };
  EXPECT_EQ(draw_many(9), draw_many(9));
  EXPECT_NE(draw_many(9), draw_many(10));
}

// Chi-square with 7 degrees of freedom stays below 24.3 in 999 of 1000 cases.
TEST(Sampler, DrawsFollowTheDistribution) {
  const std::vector<float> logits = random_logits(11, 8);
  constexpr double kTemperature = 0.8;
  double total = 0;
  for (const float logit : logits) total += std::exp(logit / kTemperature);
  SamplingParams params;
  params.temperature = kTemperature;
  Sampler sampler = make_sampler(params, 8);
  SamplerScratch scratch;
  constexpr int kDraws = 50'000;
  std::vector<int> counts(8);
  for (int i = 0; i < kDraws; ++i) {
    const auto sampled = sampler.sample(logits, scratch);
    ASSERT_TRUE(sampled.has_value());
    ++counts[static_cast<size_t>(sampled->token)];
  }
  double chi_square = 0;
  for (size_t id = 0; id < 8; ++id) {
    const double expected = kDraws * std::exp(logits[id] / kTemperature) / total;
    chi_square += (counts[id] - expected) * (counts[id] - expected) / expected;
  }
  EXPECT_LT(chi_square, 24.3);
}

TEST(Sampler, PresenceAndFrequencyCountGeneratedTokensOnly) {
  SamplingParams params;
  params.temperature = 0;
  params.presence_penalty = 1;
  params.frequency_penalty = 0.6;
  // Token 0 is in the prompt: no penalty for that. It wins, then loses 1.6, then 2.2, …
  Sampler sampler = make_sampler(params, 2, 1, {}, {0, 0, 0});
  EXPECT_EQ(sample_once(sampler, {2.0f, 0.0f}), 0);  // 2.0 against 0
  EXPECT_EQ(sample_once(sampler, {2.0f, 0.0f}), 0);  // 0.4 against 0
  EXPECT_EQ(sample_once(sampler, {2.0f, 0.0f}), 1);  // −0.2 against 0
}

TEST(Sampler, RepetitionPenaltyCountsAnIdOnce) {
  SamplingParams params;
  params.temperature = 0;
  params.repetition_penalty = 2;
  Sampler sampler = make_sampler(params, 3, 1, {}, {0, 0, 0, 1});
  EXPECT_EQ(sample_once(sampler, {3.0f, -1.0f, 1.4f}), 0);  // 1.5 against −2 and 1.4
  EXPECT_EQ(sample_once(sampler, {2.9f, 2.95f, 1.4f}), 1);  // 1.45, 1.475, 1.4
}

TEST(Sampler, LogitBiasComesAfterThePenalties) {
  SamplingParams params;
  params.temperature = 0;
  params.repetition_penalty = 2;
  params.logit_bias = {{0, 1.0f}};
  Sampler sampler = make_sampler(params, 2, 1, {}, {0});
  EXPECT_EQ(sample_once(sampler, {2.0f, 1.9f}), 0);  // 2/2 + 1 = 2.0, not (2+1)/2 = 1.5
}

TEST(Sampler, EndingIdsAreMaskedUntilMinTokens) {
  SamplingParams params;
  params.temperature = 0;
  params.min_tokens = 2;
  Sampler sampler = make_sampler(params, 3, 1, {2});
  EXPECT_EQ(sample_once(sampler, {0, 1, 9}), 1);
  EXPECT_EQ(sample_once(sampler, {0, 1, 9}), 1);
  EXPECT_EQ(sample_once(sampler, {0, 1, 9}), 2);
  Sampler hopeless = make_sampler(params, 1, 1, {0});
  SamplerScratch scratch;
  EXPECT_FALSE(hopeless.sample(std::vector<float>{1.0f}, scratch).has_value());
}

TEST(Sampler, LogprobsAreOfTheRawLogits) {
  SamplingParams params;
  params.temperature = 0;
  params.logit_bias = {{0, 50.0f}};
  params.num_logprobs = 3;
  Sampler sampler = make_sampler(params, 5);
  const std::vector<float> logits{0, 3, 1, 2, -1};
  SamplerScratch scratch;
  const auto sampled = sampler.sample(logits, scratch);
  ASSERT_TRUE(sampled.has_value());
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit));
  EXPECT_EQ(sampled->token, 0);
  EXPECT_NEAR(sampled->logprob, 0 - std::log(total), 1e-6);
  ASSERT_EQ(sampled->top_logprobs.size(), 3u);
  EXPECT_EQ(sampled->top_logprobs[0].token, 1);
  EXPECT_EQ(sampled->top_logprobs[1].token, 3);
  EXPECT_EQ(sampled->top_logprobs[2].token, 2);
  EXPECT_NEAR(sampled->top_logprobs[0].logprob, 3 - std::log(total), 1e-6);
}

// The vocabulary of the model, with the recommended parameters.
TEST(Sampler, HandlesAFullVocabulary) {
  const auto logits = random_logits(3, 151'936);
  SamplingParams params;
  params.temperature = 0.7;
  params.top_k = 20;
  params.top_p = 0.8;
  params.num_logprobs = 20;
  Sampler sampler = make_sampler(params, 151'669);
  SamplerScratch scratch;
  for (int i = 0; i < 20; ++i) {
    const auto sampled = sampler.sample(logits, scratch);
    ASSERT_TRUE(sampled.has_value());
    bool is_in_top = false;
    for (const TokenLogprob& entry : sampled->top_logprobs) {
      is_in_top = is_in_top || entry.token == sampled->token;
    }
    EXPECT_TRUE(is_in_top);
  }
}

}  // namespace
}  // namespace hotset
