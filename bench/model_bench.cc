// SPDX-License-Identifier: Apache-2.0
// Prefill and decode of a checkpoint, stage by stage: time, bytes that had to move, GB/s, and the
// share of what a plain read reaches on the same threads in the same run.
//
//   model_bench MODEL [--threads N] [--isa NAME] [--exact] [--dense-8bit] [--prefill N] [--decode
//   N]
//               [--depth N] [--repeat N]
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "file_read.h"
#include "kernels/cpu/worker_pool.h"
#include "model/language_model.h"
#include "read_ceiling.h"
#include "telemetry/stage_clock.h"

namespace hotset {
namespace {

struct BenchOptions {
  std::string model;
  std::string isa;
  int threads = 0;
  bool exact = false;
  bool dense_8bit = false;
  int64_t prefill = 512;
  int64_t decode = 64;
  int64_t depth = 0;
  int repeat = 3;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double peak_rss_gib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / (1 << 20);
}

std::vector<int32_t> make_ids(int64_t count, int64_t vocab, uint64_t seed) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    id = static_cast<int32_t>((seed >> 33) % static_cast<uint64_t>(vocab));
  }
  return ids;
}

void print_stages(const StageClock& clock, double seconds, double tokens, double ceiling) {
  fmt::print(
      "| stage | ms/token | MB/token | GB/s | of plain read | time |\n|---|---|---|---|---|---|\n");
  double counted = 0;
  for (int i = 0; i < static_cast<int>(Stage::kNumStages); ++i) {
    const auto stage = static_cast<Stage>(i);
    const StageTotals& totals = clock[stage];
    if (totals.calls == 0) continue;
    counted += totals.seconds;
    const double rate = totals.seconds > 0 ? static_cast<double>(totals.bytes) / totals.seconds : 0;
    fmt::print("| {} | {:.3f} | {:.2f} | {:.2f} | {:.0f} % | {:.1f} % |\n", stage_name(stage),
               totals.seconds / tokens * 1e3, static_cast<double>(totals.bytes) / tokens / 1e6,
               rate / 1e9, 100 * rate / ceiling, 100 * totals.seconds / seconds);
  }
  fmt::print("| rest | {:.3f} | | | | {:.1f} % |\n\n", (seconds - counted) / tokens * 1e3,
             100 * (seconds - counted) / seconds);
}

// One measured run; the best of several counts, its stages are printed.
struct Run {
  double seconds = 1e300;
  StageClock clock;
};

Status extend(LanguageModel& model, SequenceState& sequence, std::span<const int32_t> ids,
              std::vector<float>& logits) {
  return model.extend(sequence, ids, logits);
}

Status bench_prefill(LanguageModel& model, const BenchOptions& options, double ceiling) {
  std::vector<float> logits(static_cast<size_t>(model.vocab_size()));
  Run best;
  for (int r = 0; r < options.repeat; ++r) {
    const auto ids = make_ids(options.prefill, model.vocab_size(), static_cast<uint64_t>(r + 1));
    HS_ASSIGN_OR_RETURN(auto sequence, model.new_sequence(options.prefill));
    StageClock clock;
    model.set_clock(&clock);
    const double start = now();
    HS_RETURN_IF_ERROR(extend(model, *sequence, ids, logits));
    if (const double seconds = now() - start; seconds < best.seconds) best = {seconds, clock};
    model.set_clock(nullptr);
  }
  const auto tokens = static_cast<double>(options.prefill);
  fmt::print("prefill pp{}: {:.1f} tok/s ({:.1f} ms), best of {}\n\n", options.prefill,
             tokens / best.seconds, best.seconds * 1e3, options.repeat);
  print_stages(best.clock, best.seconds, tokens, ceiling);
  return {};
}

Status bench_decode(LanguageModel& model, const BenchOptions& options, double ceiling) {
  std::vector<float> logits(static_cast<size_t>(model.vocab_size()));
  HS_ASSIGN_OR_RETURN(auto sequence,
                      model.new_sequence(options.depth + 8 + options.decode * options.repeat));
  HS_RETURN_IF_ERROR(
      extend(model, *sequence, make_ids(options.depth + 8, model.vocab_size(), 99), logits));
  Run best;
  for (int r = 0; r < options.repeat; ++r) {
    const auto ids = make_ids(options.decode, model.vocab_size(), static_cast<uint64_t>(r + 7));
    StageClock clock;
    model.set_clock(&clock);
    const double start = now();
    for (const int32_t id : ids) {
      HS_RETURN_IF_ERROR(extend(model, *sequence, std::span(&id, 1), logits));
    }
    if (const double seconds = now() - start; seconds < best.seconds) best = {seconds, clock};
    model.set_clock(nullptr);
  }
  const auto tokens = static_cast<double>(options.decode);
  fmt::print("decode tg{} @ d{}: {:.2f} tok/s ({:.2f} ms/token), best of {}\n\n", options.decode,
             options.depth, tokens / best.seconds, best.seconds / tokens * 1e3, options.repeat);
  print_stages(best.clock, best.seconds, tokens, ceiling);
  return {};
}

Status run(const BenchOptions& options) {
  ModelOptions model_options{.cpu_threads = options.threads, .isa = cpu::detect_isa()};
  if (!options.isa.empty()) {
    const auto isa = cpu::parse_isa(options.isa);
    if (!isa) return fail(fmt::format("--isa {}: unknown", options.isa));
    model_options.isa = *isa;
  }
  if (options.exact) model_options.arithmetic = cpu::Arithmetic::kExact;
  model_options.dense = options.dense_8bit ? DenseBits::k8 : DenseBits::k16;
  HS_ASSIGN_OR_RETURN(const auto model, LanguageModel::load(options.model, model_options, {}));
  HS_ASSIGN_OR_RETURN(const ModelSummary summary, inspect_model(options.model, model_options));
  const LoadReport& report = model->load_report();
  const double gib = static_cast<double>(summary.file_bytes) / (1 << 30);
  fmt::print(
      "load: {:.2f} GiB in {:.2f} s, {:.2f} GiB/s; peak memory {:.2f} GiB = {:.1f} % of the file\n",
      gib, report.seconds, gib / report.seconds, peak_rss_gib(), 100 * peak_rss_gib() / gib);
  if (options.dense_8bit) {
    fmt::print(
        "dense at 8 bits: rms error {:.3f} % of the rms weight, max {:.3f} % of the max weight\n",
        100 * report.loss.relative_rms(), 100 * report.loss.relative_max());
  }
  const int threads = model->options().cpu_threads;
  HS_ASSIGN_OR_RETURN(const double file_rate, bench::file_read_rate(options.model, threads));
  fmt::print("reading the files alone: {:.2f} GiB/s, so loading runs at {:.0f} % of it\n",
             file_rate / (1 << 30), 100 * gib * (1 << 30) / report.seconds / file_rate);
  cpu::WorkerPool pool(threads);
  HS_ASSIGN_OR_RETURN(const double ceiling, bench::read_ceiling(pool));
  fmt::print("{} threads, {}, {}; plain read {:.2f} GB/s\n\n", threads,
             cpu::isa_name(model_options.isa), options.exact ? "exact" : "fast", ceiling / 1e9);
  HS_RETURN_IF_ERROR(bench_decode(*model, options, ceiling));
  return bench_prefill(*model, options, ceiling);
}

}  // namespace
}  // namespace hotset

int main(int argc, char** argv) {
  hotset::BenchOptions options;
  CLI::App app("Prefill and decode of a checkpoint, explained in bytes");
  app.add_option("model", options.model, "model directory")->required();
  app.add_option("--threads", options.threads, "0: one per processor");
  app.add_option("--isa", options.isa, "scalar, avx2, avx-vnni, avx512-vnni, amx");
  app.add_flag("--exact", options.exact, "fp32 activations");
  app.add_flag("--dense-8bit", options.dense_8bit, "hold 16-bit modules at 8 bits");
  app.add_option("--prefill", options.prefill, "tokens of the prefill run");
  app.add_option("--decode", options.decode, "tokens of the decode run");
  app.add_option("--depth", options.depth, "context before the decode run");
  app.add_option("--repeat", options.repeat, "runs; the best counts");
  CLI11_PARSE(app, argc, argv);
  if (const hotset::Status status = hotset::run(options); !status) {
    std::fprintf(stderr, "model_bench: %s\n", status.error().message.c_str());
    return 2;
  }
  return 0;
}
