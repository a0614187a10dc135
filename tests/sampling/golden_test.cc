// SPDX-License-Identifier: Apache-2.0
// Penalty, masks and filters against transformers' logits processors
// (tools/sampling/make_golden.py). Tolerance: 2e-6 in probability; the sets of kept ids must be
// equal.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "sampling/filters.h"
#include "sampling/penalties.h"

namespace hotset {
namespace {

using Json = nlohmann::json;

std::vector<Candidate> run_filters(const Json& test_case, const std::vector<int32_t>& eos) {
  const Json& p = test_case["params"];
  SamplingParams params;
  params.repetition_penalty = p["repetition_penalty"];
  TokenHistory history(params, test_case["prompt"].get<std::vector<int32_t>>());
  const auto output = test_case["output"].get<std::vector<int32_t>>();
  for (const int32_t id : output) history.append_generated(id);
  auto scores = test_case["logits"].get<std::vector<float>>();
  history.apply_penalties(scores);
  if (static_cast<int64_t>(output.size()) < p["min_tokens"].get<int64_t>()) {
    for (const int32_t id : eos) {
      scores[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
    }
  }
  std::vector<Candidate> candidates;
  list_candidates(scores, p["temperature"], candidates);
  keep_top_k(p["top_k"], candidates);
  keep_top_p(p["top_p"], candidates);
  keep_min_p(p["min_p"], candidates);
  return candidates;
}

TEST(SamplingGolden, EqualsTransformers) {
  std::ifstream in("golden/sampling/cases.json");
  ASSERT_TRUE(in) << "run in tests/";
  const Json golden = Json::parse(in);
  const auto eos = golden["eos"].get<std::vector<int32_t>>();
  ASSERT_GE(golden["cases"].size(), 30u);
  double worst = 0;
  std::string worst_case;
  for (const Json& test_case : golden["cases"]) {
    const auto candidates = run_filters(test_case, eos);
    std::vector<int32_t> kept;
    double best = -1e30, total = 0;
    for (const Candidate& c : candidates) {
      kept.push_back(c.token);
      best = std::max<double>(best, c.score);
    }
    ASSERT_EQ(kept, test_case["kept"].get<std::vector<int32_t>>()) << test_case["name"];
    for (const Candidate& c : candidates) total += std::exp(c.score - best);
    const auto expected = test_case["probs"].get<std::vector<double>>();
    for (size_t i = 0; i < kept.size(); ++i) {
      const double error = std::abs(std::exp(candidates[i].score - best) / total - expected[i]);
      if (error <= worst) continue;
      worst = error;
      worst_case = test_case["name"].get<std::string>() + " id " + std::to_string(kept[i]);
    }
  }
  EXPECT_LE(worst, 2e-6) << "worst at " << worst_case;
}

}  // namespace
}  // namespace hotset
