// SPDX-License-Identifier: Apache-2.0
// Loading a checkpoint's weights against plainly reading the same files with the same threads. The
// two take turns, so that a busy machine is busy for both; the best of each counts.
//
//   load_bench MODEL [--threads N] [--dense-8bit] [--rounds N]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>

#include "base/stopwatch.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/json_file.h"
#include "checkpoint/quant_config.h"
#include "file_read.h"
#include "model/config.h"
#include "model/weights.h"

namespace hotset {
namespace {

struct LoadTimes {
  double plan_seconds = 0;  // headers, names, shapes
  double load_seconds = 0;
  int64_t read_bytes = 0;
  PackLoss loss;
};

Result<LoadTimes> load_once(const std::string& directory, const LoadOptions& options) {
  LoadTimes times;
  const auto start = Clock::now();
  HS_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(directory));
  HS_ASSIGN_OR_RETURN(const Json json, read_json_file(checkpoint.directory(), "config.json"));
  HS_ASSIGN_OR_RETURN(const ModelConfig config, parse_model_config(json, directory));
  HS_ASSIGN_OR_RETURN(const QuantConfig quant, QuantConfig::load(checkpoint.directory(), json));
  HS_ASSIGN_OR_RETURN(WeightPlan plan, plan_weights(checkpoint, quant, config, options));
  times.plan_seconds = seconds_since(start);
  times.read_bytes = plan.read_bytes;
  LoadReport report;
  HS_ASSIGN_OR_RETURN(const auto weights,
                      load_weights(checkpoint, std::move(plan), options, {}, &report));
  times.load_seconds = report.seconds;
  times.loss = report.loss;
  return times;
}

Status run(const std::string& directory, const LoadOptions& options, int rounds) {
  constexpr double kGib = 1 << 30;
  double best_load = 0;
  double best_read = 0;
  LoadTimes last;
  fmt::print("{} threads{}\n", options.num_threads, options.dense_8bit ? ", dense at 8 bits" : "");
  for (int r = 0; r < rounds; ++r) {
    // Under a hypervisor memory that has been free for a while is gone, and the first to touch it
    // again waits for the host. A read that does not count takes that upon itself.
    HS_RETURN_IF_ERROR(bench::file_read_rate(directory, options.num_threads));
    HS_ASSIGN_OR_RETURN(const double read, bench::file_read_rate(directory, options.num_threads));
    HS_ASSIGN_OR_RETURN(last, load_once(directory, options));
    const double load = static_cast<double>(last.read_bytes) / last.load_seconds;
    best_load = std::max(best_load, load);
    best_read = std::max(best_read, read);
    fmt::print("read {:.2f} GiB/s, load {:.2f} GiB/s ({:.0f} %), planned in {:.3f} s\n",
               read / kGib, load / kGib, 100 * load / read, last.plan_seconds);
  }
  fmt::print("load: {:.2f} GiB at {:.2f} GiB/s = {:.0f} % of reading the files ({:.2f} GiB/s)\n",
             static_cast<double>(last.read_bytes) / kGib, best_load / kGib,
             100 * best_load / best_read, best_read / kGib);
  if (options.dense_8bit) {
    fmt::print("8 bits: rms error {:.6f} % of the rms weight, max {:.6f} % of the max weight\n",
               100 * last.loss.relative_rms(), 100 * last.loss.relative_max());
  }
  return {};
}

}  // namespace
}  // namespace hotset

int main(int argc, char** argv) {
  std::string model;
  hotset::LoadOptions options{.codebook_scales_at_16 = true};  // as the program loads
  options.num_threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  int rounds = 5;
  CLI::App app("Loading against reading");
  app.add_option("model", model, "model directory")->required();
  app.add_option("--threads", options.num_threads, "threads of both");
  app.add_flag("--dense-8bit", options.dense_8bit, "hold 16-bit modules at 8 bits");
  app.add_option("--rounds", rounds, "of each; the best counts")->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  if (const hotset::Status status = hotset::run(model, options, rounds); !status) {
    std::fprintf(stderr, "load_bench: %s\n", status.error().message.c_str());
    return 2;
  }
  return 0;
}
