// SPDX-License-Identifier: Apache-2.0
// How `hotset bench` says what it measured: a Markdown table whose rows come as they are ready, or
// one JSON object.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench_plan.h"

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
  double plain_read = 0;  // bytes/s; 0: not measured
};

// What a GPU's experts did during all repetitions of a row.
struct ExpertWork {
  int64_t choices = 0;
  int64_t misses = 0;
  int64_t streamed_bytes = 0;
  double cpu_seconds = 0;
  double wait_seconds = 0;
};

struct BenchRow {
  BenchTest test;
  std::vector<double> seconds;             // of each repetition
  int64_t bytes = 0;                       // that had to move, in all repetitions; 0: not counted
  std::optional<ExpertWork> experts = {};  // on a GPU

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
[[nodiscard]] std::string markdown_skipped(const SkippedRow& skipped);
[[nodiscard]] std::string bench_json(const BenchHeader& header, const std::vector<BenchRow>& rows,
                                     const std::vector<SkippedRow>& skipped);

}  // namespace hotset
