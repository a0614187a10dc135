// SPDX-License-Identifier: Apache-2.0
// The filters against plain definitions that sort everything, on many random distributions.
#include "sampling/filters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace hotset {
namespace {

std::vector<float> random_scores(std::mt19937& rng, size_t n, bool with_ties) {
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> scores(n);
  for (float& score : scores) {
    score = normal(rng);
    if (with_ties) score = std::round(score);
  }
  return scores;
}

std::vector<int32_t> ids_of(const std::vector<Candidate>& candidates) {
  std::vector<int32_t> ids;
  for (const Candidate& c : candidates) ids.push_back(c.token);
  return ids;
}

std::vector<Candidate> sorted(std::vector<Candidate> candidates) {
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
  return candidates;
}

TEST(ListCandidates, LeavesMaskedIdsOutAndDivides) {
  const float masked = -std::numeric_limits<float>::infinity();
  std::vector<Candidate> candidates;
  list_candidates(std::vector<float>{1, masked, -3}, 0.5f, candidates);
  ASSERT_EQ(ids_of(candidates), (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(candidates[0].score, 2.0f);
  EXPECT_EQ(candidates[1].score, -6.0f);
}

TEST(TopK, KeepsTheKLargestWithTies) {
  std::mt19937 rng(1);
  for (int round = 0; round < 300; ++round) {
    const size_t n = 1 + rng() % 300;
    const auto k = static_cast<int64_t>(rng() % 40);
    std::vector<Candidate> candidates;
    list_candidates(random_scores(rng, n, round % 2 == 0), 1, candidates);
    const auto order = sorted(candidates);
    std::vector<int32_t> expected;
    for (const Candidate& c : candidates) {
      const bool all = k <= 0 || static_cast<size_t>(k) >= n;
      if (all || c.score >= order[static_cast<size_t>(k) - 1].score) expected.push_back(c.token);
    }
    keep_top_k(k, candidates);
    ASSERT_EQ(ids_of(candidates), expected) << "n " << n << ", k " << k;
  }
}

TEST(TopP, KeepsTheSmallestSetThatReachesP) {
  std::mt19937 rng(2);
  for (int round = 0; round < 300; ++round) {
    const size_t n = 1 + rng() % 2000;
    const double p = 0.02 + 0.96 * static_cast<double>(rng() % 1000) / 1000;
    std::vector<Candidate> candidates;
    list_candidates(random_scores(rng, n, round % 3 == 0), 1, candidates);
    const auto order = sorted(candidates);
    double total = 0;
    for (const Candidate& c : order)
      total += std::exp(static_cast<double>(c.score - order[0].score));
    double mass = 0;
    std::vector<int32_t> expected;
    for (const Candidate& c : order) {
      expected.push_back(c.token);
      mass += std::exp(static_cast<double>(c.score - order[0].score)) / total;
      if (mass >= p - 1e-12) break;
    }
    std::sort(expected.begin(), expected.end());
    keep_top_p(p, candidates);
    ASSERT_EQ(ids_of(candidates), expected) << "n " << n << ", p " << p;
  }
}

TEST(TopP, AlwaysKeepsOne) {
  std::vector<Candidate> candidates{{3, 1.0f}, {9, 5.0f}};
  keep_top_p(1e-9, candidates);
  EXPECT_EQ(ids_of(candidates), (std::vector<int32_t>{9}));
}

TEST(MinP, ComparesWithTheMostProbable) {
  std::vector<Candidate> candidates{{0, 0.0f}, {1, std::log(0.5f)}, {2, std::log(0.05f)}};
  std::vector<Candidate> all = candidates;
  keep_min_p(0.1, candidates);
  EXPECT_EQ(ids_of(candidates), (std::vector<int32_t>{0, 1}));
  keep_min_p(1.0, all);
  EXPECT_EQ(ids_of(all), (std::vector<int32_t>{0}));
}

TEST(Draw, WalksTheCumulativeDistribution) {
  const std::vector<Candidate> candidates{
      {4, std::log(0.25f)}, {7, std::log(0.5f)}, {9, std::log(0.25f)}};
  EXPECT_EQ(draw_candidate(0.0, candidates), 4);
  EXPECT_EQ(draw_candidate(0.2499, candidates), 4);
  EXPECT_EQ(draw_candidate(0.2501, candidates), 7);
  EXPECT_EQ(draw_candidate(0.7499, candidates), 7);
  EXPECT_EQ(draw_candidate(0.7501, candidates), 9);
  EXPECT_EQ(draw_candidate(0.9999999999999999, candidates), 9);
}

}  // namespace
}  // namespace hotset
