// SPDX-License-Identifier: Apache-2.0
// Where RAM goes on the CPU: the sum is kept to the budget with and without --ram, and what a
// refusal advises is enough. Figures come from a small checkpoint's headers; memory is imagined.
#include "model/cpu_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>

#include "model/model_plan.h"

namespace hotset {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kPlenty = int64_t{64} << 30;

class CpuPlanTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto open = open_model("golden/models/gptq", {});
    ASSERT_TRUE(open) << open.error().message;
    open_.emplace(std::move(*open));
  }
  [[nodiscard]] Result<CpuPlan> plan(const ModelOptions& options, int64_t usable = kPlenty) const {
    return plan_cpu(open_->config, open_->plan, options, usable);
  }
  [[nodiscard]] std::string refusal(const ModelOptions& options, int64_t usable = kPlenty) const {
    const auto made = plan(options, usable);
    return made ? "accepted:\n" + to_text(made->placement) : made.error().message;
  }
  // The number behind a piece of advice; 0: it is not given.
  static int64_t advised(const std::string& text, const std::string& words) {
    const size_t at = text.find(words);
    return at == std::string::npos ? 0 : std::stoll(text.substr(at + words.size()));
  }

  std::optional<OpenModel> open_;
};

TEST_F(CpuPlanTest, TheSumIsWithinTheBudget) {
  for (const int64_t usable : {6 * kMiB, 8 * kMiB, 64 * kMiB, 1024 * kMiB}) {
    const auto made = plan({.max_num_seqs = 3}, usable);
    ASSERT_TRUE(made) << made.error().message;
    int64_t sum = 0;
    for (const PlacementLine& line : made->placement.ram) sum += line.bytes;
    EXPECT_EQ(sum, made->placement.ram_used_bytes);
    EXPECT_LE(sum, usable);
    EXPECT_GE(made->max_model_len, 64);
  }
}

// With --ram and without it, before anything is read.
TEST_F(CpuPlanTest, WhatTheMachineDoesNotHoldIsRefusedWithoutTheFlagToo) {
  const ModelOptions options{.max_model_len = 128, .max_num_seqs = 200};
  EXPECT_THAT(refusal(options, 8 * kMiB), HasSubstr("8 MiB may be used (all that is available)"));
  EXPECT_THAT(refusal(options, 8 * kMiB), Not(HasSubstr("--ram")));
  ModelOptions with_flag = options;
  with_flag.ram_bytes = 8 * kMiB;
  EXPECT_THAT(refusal(with_flag), HasSubstr("may be used (--ram; 64.00 GiB are available)"));
  EXPECT_THAT(refusal(with_flag), HasSubstr("raise --ram to"));
}

TEST_F(CpuPlanTest, FollowingTheAdviceIsEnough) {
  ModelOptions options{.ram_bytes = 8 * kMiB, .max_num_seqs = 200, .fixed_num_seqs = 1};
  std::string text = refusal(options);
  EXPECT_THAT(text, Not(HasSubstr("--prefill-chunk"))) << "there is no such flag";
  EXPECT_THAT(text, Not(HasSubstr("--max-model-len"))) << "none was given";
  const int64_t seqs = advised(text, "lower --max-num-seqs to ");
  ASSERT_GT(seqs, 0) << text;
  options.max_num_seqs = seqs + 1;
  EXPECT_TRUE(plan(options)) << refusal(options);
  options.max_num_seqs = seqs + 2;
  EXPECT_FALSE(plan(options)) << "more would fit";
  const int64_t ram = advised(text, "raise --ram to ");
  ASSERT_GT(ram, 0) << text;
  options.max_num_seqs = 200;
  options.ram_bytes = ram * kMiB;
  EXPECT_TRUE(plan(options)) << refusal(options);

  options = {.max_model_len = 1 << 20, .max_num_seqs = 1, .fixed_num_seqs = 1};
  text = refusal(options, 68 * kMiB);
  const int64_t context = advised(text, "lower --max-model-len to ");
  ASSERT_GT(context, 0) << text;
  options.max_model_len = context;
  EXPECT_TRUE(plan(options, 68 * kMiB)) << refusal(options, 68 * kMiB);
  options.max_model_len = context + 1;
  EXPECT_FALSE(plan(options, 68 * kMiB)) << "more would fit";
}

// A context of a few hundred tokens would fit in all that is refused here.
TEST_F(CpuPlanTest, UselessContextsAreNeitherAdvisedNorTaken) {
  const int64_t least = std::min<int64_t>(1024, open_->config.max_position_embeddings);
  int64_t refused = 0, taken = 0;
  for (int64_t usable = kMiB; usable <= 16 * kMiB; usable += kMiB / 16) {
    const auto open = plan({.max_num_seqs = 3}, usable);
    if (open) {
      EXPECT_GE(open->max_model_len, least) << usable;
    }
    open ? ++taken : ++refused;
    const std::string text = refusal({.max_model_len = 4096, .max_num_seqs = 3}, usable);
    const int64_t context = advised(text, "--max-model-len to ");
    EXPECT_TRUE(context == 0 || context >= 1024) << text;
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(taken, 0);
}

TEST_F(CpuPlanTest, WhatNoFlagCanMendSaysSo) {
  EXPECT_THAT(refusal({.max_num_seqs = 1}, 100 << 10), HasSubstr("a machine with"));
}

}  // namespace
}  // namespace hotset
