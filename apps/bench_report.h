// SPDX-License-Identifier: Apache-2.0
// How `hotset bench` says what it measured: a Markdown table whose rows come as they are ready, or
// one JSON object.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench_bound.h"
#include "bench_plan.h"
#include "telemetry/stage_clock.h"

namespace hotset {

// The machine, the model and the settings: without them a number says nothing.
struct BenchHeader {
  std::string version;
  std::string date;    // "2026-11-21 07:40 UTC"
  std::string cpu;     // "AMD EPYC 7B13"
  std::string device;  // LanguageModel::device_text()
  std::string isa;
  int threads = 0;
  bool on_gpu = false;
  std::string model;
  std::string directory;
  std::string quantization;  // "gptq (gptqmodel)"
  std::string experts;       // the routed experts' format
  int dense_bits = 16;
  std::string kv_type;
  std::string arithmetic;
  std::string text;
  int64_t max_model_len = 0;
  int64_t repeat = 0;
  int64_t warmup = 0;
  BenchRates rates = {};
  ModelLoad load = {};
};

// Where time went. On a GPU these are steps of their own, after the measured ones: the events that
// mark stages slow a step down.
struct RowStages {
  StageClock clock = {};
  int64_t steps = 0;        // decode steps, or prompts
  int64_t graph_nodes = 0;  // of a recorded step without marks
  std::string why_none = {};
};

struct BenchRow {
  BenchTest test;
  std::vector<double> seconds;             // of each repetition
  int64_t bytes = 0;                       // that had to move, in all repetitions; 0: not counted
  std::optional<ExpertWork> experts = {};  // on a GPU
  std::optional<RowStages> stages = {};

  // Steps of one repetition: a prompt is one.
  [[nodiscard]] int64_t steps_each() const { return test.decode ? test.tokens : 1; }
  // Tokens of all sequences in one repetition, and in all.
  [[nodiscard]] int64_t tokens_each() const { return test.tokens * test.num_seqs; }
  [[nodiscard]] int64_t tokens_in_all() const {
    return tokens_each() * static_cast<int64_t>(seconds.size());
  }
};

struct SkippedRow {
  BenchTest test;
  std::string why;
};

[[nodiscard]] std::string markdown_header(const BenchHeader& header);
[[nodiscard]] std::string markdown_row(const BenchHeader& header, const BenchRow& row);
// A second table, for rows whose stages are known: milliseconds of a step, stage by stage.
[[nodiscard]] std::string markdown_stages(const BenchHeader& header,
                                          const std::vector<BenchRow>& rows);
[[nodiscard]] std::string markdown_skipped(const SkippedRow& skipped);
[[nodiscard]] std::string bench_json(const BenchHeader& header, const std::vector<BenchRow>& rows,
                                     const std::vector<SkippedRow>& skipped);

}  // namespace hotset
