// SPDX-License-Identifier: Apache-2.0
// Measures the rows of `hotset bench` on a loaded model.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "bench_plan.h"
#include "bench_report.h"
#include "model/language_model.h"
#include "synth_text.h"

namespace hotset {

// What the GPU's experts have done so far, and the share that decode steps of so many tokens fetch
// now; nothing on the CPU.
[[nodiscard]] std::optional<ExpertWork> expert_work(const LanguageModel& model, int64_t num_tokens);
// Of the last decode step's graph; 0 on the CPU.
[[nodiscard]] int64_t recorded_nodes(const LanguageModel& model);
// What its GPU was measured to do; zeros on the CPU.
Result<BenchRates> gpu_rates(LanguageModel& model);

class BenchRunner {
 public:
  // Both outlive the runner. `tests`: all rows, for what they have in common.
  BenchRunner(LanguageModel& model, const BenchOptions& options, std::vector<BenchTest> tests);

  // Rows come in the order of plan_tests(). What does not fit is skipped.
  Result<std::variant<BenchRow, SkippedRow>> measure(const BenchTest& test);

 private:
  struct Sequence {
    std::unique_ptr<SequenceState> state;
    SynthText text;
    size_t index = 0;
    int64_t num_tokens = 0;
  };
  [[nodiscard]] std::optional<std::string> too_long(const BenchTest& test) const;
  Result<BenchRow> measure_row(const BenchTest& test);
  Status prepare(const BenchTest& test);
  Status restart(Sequence& sequence);
  Status measure_prefill(BenchRow& row);
  Status measure_decode(BenchRow& row);
  Status measure_decode_stages(BenchRow& row);
  // An error leaves the row without stages, not the bench without the row, unless the GPU is lost.
  Status keep_row(BenchRow& row, const Status& stages);
  // Runs `work` with a clock; what it took is added to the row.
  template <typename Work>
  Status clocked(BenchRow& row, int64_t steps, const Work& work);
  Result<double> prefill(Sequence& sequence, int64_t num_tokens);
  Status extend(std::span<const SequenceStep> steps, std::span<float> logits);
  Result<double> decode(int64_t num_seqs, int64_t num_tokens);

  LanguageModel& model_;
  const BenchOptions& options_;
  std::vector<BenchTest> tests_;
  TextKind kind_;
  int64_t depth_ = -1;
  std::vector<Sequence> sequences_;  // at depth_ or further
  std::vector<float> logits_;
  LogitsHead head_;
};

}  // namespace hotset
