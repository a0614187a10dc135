// SPDX-License-Identifier: Apache-2.0
// The chosen experts and their weights against a full sort in double precision.
#include "kernels/router.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

#include "kernels/op_testing.h"

namespace hotset {
namespace {

using testing::for_each_isa;
using testing::Numbers;

TEST(Router, MatchesAFullSort) {
  for (const auto& [num_experts, top_k] : {std::pair{512, 10}, {8, 8}, {37, 3}, {1, 1}, {60, 4}}) {
    for (const bool normalize : {true, false}) {
      const int64_t tokens = 50;
      Numbers numbers(num_experts);
      const auto logits = numbers.normal(tokens * num_experts, 3.0f);
      for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
        std::vector<int32_t> experts(tokens * top_k);
        std::vector<float> weights(tokens * top_k);
        route(queue,
              {.num_tokens = tokens,
               .num_experts = num_experts,
               .top_k = top_k,
               .normalize = normalize},
              logits.data(), experts.data(), weights.data());
        for (int64_t t = 0; t < tokens; ++t) {
          const float* row = &logits[t * num_experts];
          std::vector<int32_t> order(num_experts);
          std::iota(order.begin(), order.end(), 0);
          std::stable_sort(order.begin(), order.end(),
                           [&](int32_t a, int32_t b) { return row[a] > row[b]; });
          double all = 0.0, chosen = 0.0;
          for (int64_t e = 0; e < num_experts; ++e) all += std::exp(double{row[e]});
          for (int64_t i = 0; i < top_k; ++i) chosen += std::exp(double{row[order[i]]});
          double sum = 0.0;
          for (int64_t i = 0; i < top_k; ++i) {
            ASSERT_EQ(experts[t * top_k + i], order[i]) << isa << ", token " << t;
            const double p = std::exp(double{row[order[i]]}) / (normalize ? chosen : all);
            ASSERT_NEAR(weights[t * top_k + i], p, 1e-6) << isa << ", token " << t;
            sum += weights[t * top_k + i];
          }
          if (normalize) {
            ASSERT_NEAR(sum, 1.0, 1e-6);
          }
        }
      });
    }
  }
}

TEST(Router, TiesGoToTheLowerIndex) {
  std::vector<float> logits(20, 1.0f);
  logits[13] = 2.0f;
  for_each_isa([&](cpu::Queue& queue, const std::string&) {
    std::vector<int32_t> experts(4);
    std::vector<float> weights(4);
    route(queue, {.num_tokens = 1, .num_experts = 20, .top_k = 4}, logits.data(), experts.data(),
          weights.data());
    EXPECT_EQ(experts, (std::vector<int32_t>{13, 0, 1, 2}));
    EXPECT_EQ(weights[1], weights[3]);
  });
}

TEST(Router, NansLeaveTheIdsValidAndDistinct) {
  std::vector<float> logits(16, std::numeric_limits<float>::quiet_NaN());
  logits[5] = -3.0f;
  for_each_isa([&](cpu::Queue& queue, const std::string&) {
    std::vector<int32_t> experts(4);
    std::vector<float> weights(4);
    route(queue, {.num_tokens = 1, .num_experts = 16, .top_k = 4}, logits.data(), experts.data(),
          weights.data());
    EXPECT_EQ(experts[0], 5);
    EXPECT_EQ(std::set<int32_t>(experts.begin(), experts.end()).size(), 4u);
    for (int32_t e : experts) EXPECT_TRUE(e >= 0 && e < 16);
  });
}

}  // namespace
}  // namespace hotset
