// SPDX-License-Identifier: Apache-2.0
#include "bench_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

namespace hotset {

std::string test_name(const BenchTest& test) {
  std::string name = fmt::format("{}{}", test.decode ? "tg" : "pp", test.tokens);
  if (test.num_seqs > 1) name += fmt::format(" x{}", test.num_seqs);
  if (test.depth > 0) name += fmt::format(" @ d{}", test.depth);
  return name;
}

std::vector<BenchTest> plan_tests(const BenchOptions& options) {
  std::vector<BenchTest> tests;
  for (const int64_t depth : options.depths) {
    for (const int64_t tokens : options.prefill) {
      tests.push_back({.decode = false, .tokens = tokens, .depth = depth});
    }
    for (const int64_t tokens : options.decode) {
      for (const int64_t num_seqs : options.seqs) {
        tests.push_back({.decode = true, .tokens = tokens, .depth = depth, .num_seqs = num_seqs});
      }
    }
  }
  std::erase_if(tests, [](const BenchTest& test) { return test.tokens == 0; });
  const auto key = [](const BenchTest& t) {
    return std::tuple(t.depth, t.decode, t.num_seqs, t.tokens);
  };
  std::sort(tests.begin(), tests.end(),
            [&](const BenchTest& a, const BenchTest& b) { return key(a) < key(b); });
  tests.erase(std::unique(tests.begin(), tests.end()), tests.end());
  return tests;
}

int64_t sequence_length(const std::vector<BenchTest>& tests, const BenchOptions& options,
                        int64_t depth, size_t index) {
  int64_t longest_prompt = 0, longest_answer = 0, decoded = 0;
  for (const BenchTest& test : tests) {
    if (test.depth != depth) continue;
    if (!test.decode) {
      if (index == 0) longest_prompt = std::max(longest_prompt, test.tokens);
      continue;
    }
    if (std::cmp_less_equal(test.num_seqs, index)) continue;
    longest_answer = std::max({longest_answer, test.tokens, options.warmup});
    decoded += options.warmup + options.repeat * test.tokens + kStageSteps + 1;
  }
  return depth + std::max(longest_prompt, depth > 0 ? decoded : longest_answer);
}

BenchContext needed_context(const std::vector<BenchTest>& tests, const BenchOptions& options) {
  BenchContext context;
  for (const BenchTest& test : tests) {
    const int64_t first = sequence_length(tests, options, test.depth, 0);
    const int64_t other = sequence_length(tests, options, test.depth, 1);
    context.longest = std::max(context.longest, first);
    context.in_all = std::max(context.in_all, first + other * (test.num_seqs - 1));
  }
  return context;
}

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  Spread spread;
  spread.median = values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
  for (const double value : values) spread.mean += value / static_cast<double>(values.size());
  double squares = 0;
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  if (values.size() > 1) {
    spread.deviation = std::sqrt(squares / static_cast<double>(values.size() - 1));
  }
  return spread;
}

}  // namespace hotset
