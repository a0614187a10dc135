// SPDX-License-Identifier: Apache-2.0
// hotset synth: a checkpoint of true shapes and random weights, for measuring without the download.
#include "synth_verb.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>

#include "progress.h"
#include "report_error.h"
#include "routing_check.h"
#include "synth.h"
#include "synth_tokenizer.h"
#include "verbs.h"

namespace hotset {
namespace {

struct Written {
  int64_t bytes = 0;
  int64_t num_tensors = 0;
  double seconds = 0.0;
};

Result<Written> write(const SynthFlags& flags) {
  SynthOptions options = {.like = flags.like,
                          .num_layers = flags.layers,
                          .directory = flags.directory,
                          .tokenizer = flags.tokenizer,
                          .seed = flags.seed};
  HS_ASSIGN_OR_RETURN(options.format, parse_synth_format(flags.format));
  HS_ASSIGN_OR_RETURN(options.zipf, parse_synth_routing(flags.routing));
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  Written written;
  LoadProgressPrinter printer(flags.quiet, "writing");
  HS_RETURN_IF_ERROR(write_synthetic_checkpoint(options, [&](const SynthProgress& progress) {
    written = {.bytes = progress.bytes_done,
               .num_tensors = progress.num_tensors,
               .seconds = std::chrono::duration<double>(Clock::now() - start).count()};
    printer.update(progress.bytes_done, progress.bytes_total, written.seconds);
  }));
  return written;
}

// What was asked for as a law is told as it came out; the first layers of a large model say that
// for a few seconds of work.
int show_routing(const SynthFlags& flags) {
  constexpr int64_t kMostLayers = 4;
  const bool by_default = !flags.check_routing && !flags.quiet && flags.routing != "uniform";
  if (!flags.check_routing.value_or(by_default)) return kExitFine;
  std::fflush(stdout);
  const auto check =
      check_routing(flags.directory, kCheckTokens, TextKind::kDrift, by_default ? kMostLayers : 0);
  if (check) {
    fmt::print("\n{}", check_table(*check));
    return kExitFine;
  }
  if (!by_default) return report_error(check.error());
  fmt::print(stderr, "the routing was not measured: {}\n", check.error().message);
  return kExitFine;
}

}  // namespace

void add_synth_flags(CLI::App& verb, SynthFlags& flags) {
  verb.add_option("-o,--output", flags.directory, "The directory to write")
      ->required()
      ->type_name("DIR");
  verb.add_option(
          "--like", flags.like,
          fmt::format("The model whose shapes to take: {}", fmt::join(synth_model_names(), ", ")))
      ->capture_default_str()
      ->type_name("NAME");
  verb.add_option("--format", flags.format, "gptq, awq, compressed-tensors, nf4, fp8 or bf16")
      ->capture_default_str()
      ->type_name("FORMAT");
  verb.add_option("--layers", flags.layers, "Layers to write (default: all of the model's)")
      ->type_name("N");
  verb.add_option("--routing", flags.routing,
                  "How popular the experts are: uniform, or zipf:S for rank^-S with ranks that "
                  "change with the text's topic")
      ->capture_default_str()
      ->type_name("uniform|zipf:S");
  verb.add_option(
          "--tokenizer", flags.tokenizer,
          fmt::format(
              "A directory to copy the tokenizer's files from, with no more tokens than the "
              "model has (default: {})",
              kStandInTokenizer))
      ->type_name("DIR");
  verb.add_option("--seed", flags.seed, "Same seed, same bytes")
      ->capture_default_str()
      ->type_name("N");
  CLI::Option* check = verb.add_flag_callback(
      "--check-routing", [&flags] { flags.check_routing = true; },
      "Load what was written and show what its routers do with a drifting text (default: with "
      "--routing zipf:S, for the first layers)");
  verb.add_flag_callback(
          "--no-check-routing", [&flags] { flags.check_routing = false; },
          "Do not look at the routing that was produced")
      ->excludes(check);
  verb.add_flag("-q,--quiet", flags.quiet, "No progress on standard error");
  verb.footer(
      "Examples:\n"
      "  hotset synth --like tiny -o ./tiny\n"
      "  hotset synth --format nf4 --layers 8 --routing zipf:1 -o ./synthetic\n"
      "  hotset bench ./synthetic --text drift");
}

int run_synth(const SynthFlags& flags) {
  const auto written = write(flags);
  if (!written) return report_error(written.error());
  if (!flags.quiet) {
    fmt::print("{}: {} tensors, {:.2f} GB in {:.1f} s\n", flags.directory, written->num_tensors,
               static_cast<double>(written->bytes) / 1e9, written->seconds);
    if (flags.tokenizer.empty()) fmt::print("{}; --tokenizer copies another\n", kStandInTokenizer);
  }
  return show_routing(flags);
}

}  // namespace hotset
