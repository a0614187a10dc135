// SPDX-License-Identifier: Apache-2.0
// What `hotset bench` measures: flags → rows, in the order in which they can share a prefilled
// context, and the context that they need.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "options.h"

namespace hotset {

struct BenchTest {
  bool decode = false;
  int64_t tokens = 0;    // of a prompt; or decoded, by each sequence
  int64_t depth = 0;     // tokens in the context before
  int64_t num_seqs = 1;  // 1 for prompts

  bool operator==(const BenchTest&) const = default;
};

// "pp512", "tg128 x4 @ d65536"
[[nodiscard]] std::string test_name(const BenchTest& test);

// By depth; prompts before decoding, few sequences before many. Duplicates are dropped.
[[nodiscard]] std::vector<BenchTest> plan_tests(const BenchOptions& options);

// Decode steps whose stages a GPU times after a row was measured, when one more has recorded them.
inline constexpr int64_t kStageSteps = 16;

// How far sequence number `index` gets at most while the rows of one depth are measured. Prompts
// are the first one's. At depth 0 every repetition starts afresh; else prompts start from the depth
// again and decoding goes on.
[[nodiscard]] int64_t sequence_length(const std::vector<BenchTest>& tests,
                                      const BenchOptions& options, int64_t depth, size_t index);
// The longest sequence of all rows, and the most tokens that sequences hold together.
struct BenchContext {
  int64_t longest = 0;
  int64_t in_all = 0;
};
[[nodiscard]] BenchContext needed_context(const std::vector<BenchTest>& tests,
                                          const BenchOptions& options);

struct Spread {
  double mean = 0;
  double deviation = 0;  // of the sample; 0 for one value
  double median = 0;
};
[[nodiscard]] Spread spread_of(std::vector<double> values);

}  // namespace hotset
