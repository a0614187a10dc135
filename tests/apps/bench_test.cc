// SPDX-License-Identifier: Apache-2.0
// The parts of `hotset bench` that need no model: which rows, in which order, over how much
// context; means and medians; the text of a report; ids that drift.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "bench_plan.h"
#include "bench_report.h"
#include "synth_text.h"

namespace hotset {
namespace {

std::vector<std::string> names_of(const BenchOptions& options) {
  std::vector<std::string> names;
  for (const BenchTest& test : plan_tests(options)) names.push_back(test_name(test));
  return names;
}

TEST(BenchPlan, RowsAreNamedAsOthersNameThem) {
  EXPECT_EQ(names_of({}), (std::vector<std::string>{"pp512", "tg128"}));
  EXPECT_EQ(
      names_of(
          {.prefill = {8192, 512, 512}, .decode = {128}, .depths = {65536, 0}, .seqs = {4, 1}}),
      (std::vector<std::string>{"pp512", "pp8192", "tg128", "tg128 x4", "pp512 @ d65536",
                                "pp8192 @ d65536", "tg128 @ d65536", "tg128 x4 @ d65536"}));
  EXPECT_EQ(names_of({.prefill = {0}, .decode = {64}}), std::vector<std::string>{"tg64"});
  EXPECT_TRUE(plan_tests({.prefill = {0}, .decode = {0}}).empty());
}

TEST(BenchPlan, TheContextHoldsTheLongestRow) {
  BenchOptions options{.prefill = {512}, .decode = {128}, .repeat = 3, .warmup = 16};
  BenchContext context = needed_context(plan_tests(options), options);
  EXPECT_EQ(context.longest, 512);
  EXPECT_EQ(context.in_all, 512);
  options.depths = {0, 1000};  // there, decoding goes on where it was
  options.seqs = {1, 4};
  context = needed_context(plan_tests(options), options);
  EXPECT_EQ(context.longest, 1000 + 2 * (16 + 3 * 128 + kStageSteps + 1));
  EXPECT_EQ(context.in_all, context.longest + 3 * (1000 + 16 + 3 * 128 + kStageSteps + 1));
}

TEST(BenchPlan, SpreadsAreTheTextbooks) {
  const Spread even = spread_of({4, 1, 2, 3});
  EXPECT_DOUBLE_EQ(even.mean, 2.5);
  EXPECT_DOUBLE_EQ(even.median, 2.5);
  EXPECT_NEAR(even.deviation, 1.2909944487, 1e-9);
  const Spread one = spread_of({7});
  EXPECT_DOUBLE_EQ(one.median, 7);
  EXPECT_DOUBLE_EQ(one.deviation, 0);
}

BenchHeader some_header(bool on_gpu) {
  BenchHeader header;
  header.version = "1.2.3";
  header.device = "2 CPU threads, avx2";
  header.on_gpu = on_gpu;
  header.rates = {.host_read = 40e9, .device_read = 400e9, .pinned_copy = 20e9, .products = 1e15};
  header.load = {.dense_bytes = 3'000'000'000,
                 .expert_bytes = 2'000'000,
                 .state_bytes = 50'000'000,
                 .kv_bytes_per_token = 20'000,
                 .ops_per_token = 6e9};
  return header;
}

TEST(BenchReport, CpuRowsTellBytes) {
  const BenchHeader header = some_header(false);
  // 2 × 64 tokens in 4 s each; 20 GB/s.
  const BenchRow row{.test = {.decode = true, .tokens = 64, .num_seqs = 2},
                     .seconds = {4, 4},
                     .bytes = 160'000'000'000};
  EXPECT_EQ(markdown_row(header, row),
            "| tg64 x2 | 32.00 ± 0.00 | 32.00 | 62.500 | 64.0 | 50 % | 625.0 | 20.00 |\n");
  const auto json = nlohmann::json::parse(bench_json(header, {row}, {{{.tokens = 9}, "too long"}}));
  EXPECT_DOUBLE_EQ(json["rows"][0]["bound"]["share"].get<double>(), 0.5);
  EXPECT_DOUBLE_EQ(json["rows"][0]["tokens_per_s"]["median"].get<double>(), 32);
  EXPECT_EQ(json["skipped"][0]["test"], "pp9");
  EXPECT_EQ(json["skipped"][0]["why"], "too long");
}

TEST(BenchReport, GpuRowsTellMisses) {
  const BenchRow row{.test = {.decode = true, .tokens = 10},
                     .seconds = {1, 1},
                     .experts = ExpertWork{.choices = 200,
                                           .misses = 50,
                                           .fetched = 10,
                                           .foreseen = 45,
                                           .streamed_bytes = 0,
                                           .cpu_seconds = 0.1,
                                           .wait_seconds = 0.02,
                                           .fetch_share = 0.125}};
  EXPECT_EQ(markdown_row(some_header(true), row),
            "| tg10 | 10.00 ± 0.00 | 10.00 | 100.000 | 126.6 | 8 % | 70.0 % | 2.50 | 90 % | 0.50 | "
            "12.5 % | "
            "|\n");
}

// Worked out by hand: ten steps of one sequence at depth 100, and a prompt.
TEST(BenchBound, IsBytesOverMeasuredRates) {
  const BenchHeader header = some_header(true);
  const BenchTest decode{.decode = true, .tokens = 10, .depth = 100};
  const ExpertWork experts{.choices = 200, .misses = 50, .fetched = 10};
  const auto bound = gpu_bound(header.rates, header.load, decode, experts, 2);
  ASSERT_TRUE(bound);
  const double dense = 10 * (3e9 + 2 * 50e6 + 105 * 20e3), hits = 70 * 2e6;
  EXPECT_DOUBLE_EQ(bound->device_bytes, dense + hits);
  EXPECT_DOUBLE_EQ(bound->host_bytes, 30 * 2e6);
  EXPECT_DOUBLE_EQ(bound->pcie_bytes, 5 * 2e6);
  EXPECT_NEAR(bound->seconds, dense / 400e9 + 30 * 2e6 / 40e9, 1e-12) << "the CPU is the last";

  const BenchTest prompt{.tokens = 1000};
  ExpertWork streamed{.streamed_bytes = 8'000'000'000};
  EXPECT_NEAR(gpu_bound(header.rates, header.load, prompt, streamed, 2)->seconds, 0.2, 1e-12);
  streamed.streamed_bytes = 0;
  EXPECT_NEAR(gpu_bound(header.rates, header.load, prompt, streamed, 2)->seconds, 0.006, 1e-12);
  BenchRates without = header.rates;
  without.products = 0;
  EXPECT_FALSE(gpu_bound(without, header.load, prompt, streamed, 2));
}

TEST(BenchReport, StagesAddUpToAStep) {
  BenchRow row{.test = {.decode = true, .tokens = 10},
               .seconds = {0.1},
               .experts = ExpertWork{.choices = 100, .misses = 50, .cpu_seconds = 0.04}};
  row.stages = RowStages{.steps = 2, .graph_nodes = 500};
  row.stages->clock.add(Stage::kMixerProjections, 0.004, 0);
  row.stages->clock.add(Stage::kExpertsWait, 0.010, 0);
  BenchHeader header = some_header(true);
  header.rates.launch = 1e-6;
  const std::string text = markdown_stages(header, {row});
  EXPECT_NE(text.find("| tg10 | 10.000 | 2.000 | 0.000 | 0.000 | 0.000 | 0.000 | 5.000 | 0.000 | "
                      "0.000 | 3.000 | 0.500 | 4.000 | 0.000 |"),
            std::string::npos)
      << text;
  const auto json = nlohmann::json::parse(bench_json(header, {row}, {}));
  EXPECT_NEAR(json["rows"][0]["stages"]["outside_ms"].get<double>(), 3, 1e-9);
  row.stages.reset();
  EXPECT_EQ(markdown_stages(header, {row}), "");
}

// A pasted table has as many cells in each line.
TEST(BenchReport, EveryLineOfTheTableHasTheSameCells) {
  for (const bool on_gpu : {false, true}) {
    const BenchHeader header = some_header(on_gpu);
    BenchRow row{.test = {.tokens = 8}, .seconds = {1}};
    std::string text = markdown_header(header) + markdown_row(header, row);
    row.experts = ExpertWork{.streamed_bytes = 5};
    text += markdown_row(header, row);
    row.experts->choices = 5;
    text += markdown_row(header, row);
    std::set<int64_t> counts;
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at);
      const std::string line = text.substr(at, end - at);
      if (line.starts_with('|')) counts.insert(std::count(line.begin(), line.end(), '|'));
      at = end + 1;
    }
    EXPECT_EQ(counts.size(), 1u) << text;
  }
}

TEST(SynthText, DriftStaysWithTopicsAndMovesOn) {
  constexpr int64_t kVocab = 1600, kCount = 64 * kTopicTokens;
  std::vector<int32_t> ids(kCount), again(kCount);
  SynthText(TextKind::kDrift, kVocab, 5).next(ids);
  SynthText text(TextKind::kDrift, kVocab, 5);
  for (int64_t at = 0; at < kCount; at += 128) text.next(std::span(again).subspan(at, 128));
  EXPECT_EQ(ids, again) << "pieces change nothing";
  std::set<int64_t> seen;
  for (int64_t leg = 0; leg < kCount / kTopicTokens; ++leg) {
    std::vector<int64_t> counts(kSynthTopics);
    for (int64_t i = 0; i < kTopicTokens / 4; ++i) {
      const int32_t id = ids[static_cast<size_t>(leg * kTopicTokens + i)];
      ASSERT_TRUE(id >= 0 && id < kVocab);
      counts[static_cast<size_t>(id / topic_block(kVocab))] += 1;
    }
    const auto most = std::max_element(counts.begin(), counts.end());
    EXPECT_GE(*most, kTopicTokens / 8) << "leg " << leg;
    seen.insert(most - counts.begin());
  }
  EXPECT_GE(seen.size(), 8u);
}

TEST(SynthText, RandomIdsCoverTheVocabulary) {
  std::vector<int32_t> ids(2000);
  SynthText(TextKind::kRandom, 50, 1).next(ids);
  EXPECT_EQ(std::set<int32_t>(ids.begin(), ids.end()).size(), 50u);
}

}  // namespace
}  // namespace hotset
