// SPDX-License-Identifier: Apache-2.0
// hotset bench: how fast a model runs here, as rows that can be pasted and compared.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "bench_plan.h"
#include "bench_report.h"
#include "bench_run.h"
#include "expert_profile.h"
#include "kernels/cpu/worker_pool.h"
#include "loaded_model.h"
#include "progress.h"
#include "read_ceiling.h"
#include "report_error.h"
#include "verbs.h"

namespace hotset {
namespace {

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t at = line.find_first_not_of(" \t", line.find(':') + 1);
    if (at != std::string::npos) return line.substr(at);
  }
  return "unknown processor";
}

std::string experts_format(const ModelSummary& summary) {
  for (const ComponentSummary& part : summary.components) {
    if (part.name.find("experts") != std::string::npos) return part.formats_text();
  }
  return "none";
}

// Sequences, and the snapshot that prompts at a depth start from.
int64_t most_sequences(const std::vector<BenchTest>& tests) {
  int64_t most = 1;
  bool snapshot = false;
  for (const BenchTest& test : tests) {
    most = std::max(most, test.num_seqs);
    snapshot = snapshot || (!test.decode && test.depth > 0);
  }
  return most + (snapshot ? 1 : 0);
}

// Room for every row, as far as the model goes. A GPU's pages hold one longest context in all.
int64_t context_for(const BenchContext& needed, const ModelOptions& options,
                    const ModelConfig& config) {
  const bool shared = options.device != Device::kCpu && needed.in_all > needed.longest;
  return std::clamp<int64_t>(shared ? needed.in_all : needed.longest, 1,
                             config.max_position_embeddings);
}

BenchHeader header_of(const BenchOptions& options, const ResolvedModel& resolved,
                      const ModelSummary& summary, const LanguageModel& model) {
  const ModelOptions& chosen = model.options();
  return {.version = HOTSET_VERSION,
          .date = fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(std::time(nullptr))),
          .cpu = processor_name(),
          .device = model.device_text(),
          .isa = cpu::isa_name(chosen.isa),
          .threads = chosen.cpu_threads,
          .on_gpu = chosen.device == Device::kCuda,
          .model = resolved.name,
          .directory = resolved.directory,
          .quantization = summary.quantization,
          .experts = experts_format(summary),
          .dense_bits = chosen.dense == DenseBits::k8 ? 8 : 16,
          .kv_type = chosen.kv_type == KvType::kF32   ? "f32"
                     : chosen.kv_type == KvType::kF16 ? "f16"
                                                      : "bf16",
          .arithmetic = chosen.arithmetic == cpu::Arithmetic::kExact ? "exact" : "fast",
          .text = options.text,
          .max_model_len = chosen.max_model_len,
          .repeat = options.repeat,
          .warmup = options.warmup,
          .rates = {},
          .load = model_load(summary)};
}

// With the model's number of threads; without memory for it, no rate.
double host_read(const LanguageModel& model) {
  cpu::WorkerPool pool(model.options().cpu_threads);
  const auto ceiling = bench::read_ceiling(pool);
  return ceiling ? *ceiling : 0;
}

void print_now(const std::string& text) {
  fmt::print("{}", text);
  std::fflush(stdout);
}

Status write_text(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) return fail(fmt::format("{}: cannot be written", path));
  return {};
}

Status measure_all(BenchRunner& runner, const BenchHeader& header,
                   const std::vector<BenchTest>& tests, const BenchOptions& options) {
  const bool json = options.output == "json";
  std::vector<BenchRow> rows;
  std::vector<SkippedRow> skipped;
  if (!json) print_now(markdown_header(header));
  for (const BenchTest& test : tests) {
    HS_ASSIGN_OR_RETURN(auto result, runner.measure(test));
    if (auto* row = std::get_if<BenchRow>(&result)) {
      if (!json) print_now(markdown_row(header, *row));
      rows.push_back(std::move(*row));
    } else {
      skipped.push_back(std::get<SkippedRow>(std::move(result)));
    }
  }
  const std::string as_json = bench_json(header, rows, skipped);
  if (!options.json_file.empty()) HS_RETURN_IF_ERROR(write_text(options.json_file, as_json));
  if (json) {
    print_now(as_json);
  } else {
    print_now(markdown_stages(header, rows));
    if (!skipped.empty()) print_now("\n");
    for (const SkippedRow& row : skipped) print_now(markdown_skipped(row));
  }
  if (!rows.empty()) return {};
  return fail(fmt::format("no row could be measured: {}: {}", test_name(skipped.front().test),
                          skipped.front().why),
              ErrorKind::kResource);
}

// Sequences are what rows ask for: a refusal's own advice does not name them.
Result<std::unique_ptr<LanguageModel>> load_for_rows(const std::string& directory,
                                                     const ModelOptions& model_options,
                                                     bool quiet) {
  LoadProgressPrinter printer(quiet);
  auto model = LanguageModel::load(directory, model_options, [&](const LoadProgress& p) {
    printer.update(p.bytes_done, p.bytes_total, p.seconds);
  });
  if (model) return model;
  Error error = std::move(model).error();
  if (error.kind == ErrorKind::kResource && model_options.max_num_seqs > 1) {
    error.message += ", or fewer --seqs";
  }
  return fail(std::move(error));
}

Status bench_model(const BenchOptions& options) {
  const std::vector<BenchTest> tests = plan_tests(options);
  if (tests.empty()) return fail("-p 0 -n 0: nothing is left to measure");
  HS_ASSIGN_OR_RETURN(ModelOptions model_options, to_model_options(options.model));
  HS_ASSIGN_OR_RETURN(const ResolvedModel resolved, find_model(options.model));
  HS_ASSIGN_OR_RETURN(const ModelSummary summary, inspect_model(resolved.directory, model_options));
  if (!options.model.save_expert_profile.empty()) {
    HS_RETURN_IF_ERROR(check_has_experts(resolved.directory, summary.config));
  }
  model_options.max_num_seqs = most_sequences(tests);
  model_options.fixed_num_seqs = model_options.max_num_seqs;  // rows ask for them
  if (model_options.max_model_len == 0) {
    model_options.max_model_len =
        context_for(needed_context(tests, options), model_options, summary.config);
  }
  HS_ASSIGN_OR_RETURN(const std::unique_ptr<LanguageModel> model,
                      load_for_rows(resolved.directory, model_options, options.model.quiet));
  if (!options.model.quiet) print_load_report(*model);
  if (model->vocab_size() < kSynthTopics) return fail("a vocabulary this small can't be measured");
  BenchHeader header = header_of(options, resolved, summary, *model);
  HS_ASSIGN_OR_RETURN(header.rates, gpu_rates(*model));
  header.rates.host_read = host_read(*model);
  HS_ASSIGN_OR_RETURN(const auto recorder, record_expert_profile(options.model, *model));
  {
    BenchRunner runner(*model, options, tests);
    HS_RETURN_IF_ERROR(measure_all(runner, header, tests, options));
  }
  save_expert_profile(options.model, recorder.get());
  return {};
}

}  // namespace

int run_bench(const BenchOptions& options) {
  const Status status = bench_model(options);
  return status ? kExitFine : report_error(status.error());
}

}  // namespace hotset
