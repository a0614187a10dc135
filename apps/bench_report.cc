// SPDX-License-Identifier: Apache-2.0
#include "bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

namespace hotset {
namespace {

using Json = nlohmann::ordered_json;

double total_seconds(const BenchRow& row) {
  return std::accumulate(row.seconds.begin(), row.seconds.end(), 0.0);
}

Spread tokens_per_second(const BenchRow& row) {
  std::vector<double> rates;
  for (const double s : row.seconds) rates.push_back(static_cast<double>(row.tokens_each()) / s);
  return spread_of(std::move(rates));
}

// What one sequence waits for its next token.
double ms_per_token(const BenchRow& row) {
  return 1e3 * total_seconds(row) * static_cast<double>(row.test.num_seqs) /
         static_cast<double>(row.tokens_in_all());
}

double per_token(const BenchRow& row, double amount) {
  return amount / static_cast<double>(row.tokens_in_all());
}

double bytes_per_second(const BenchRow& row) {
  return static_cast<double>(row.bytes) / total_seconds(row);
}

double foreseen_share(const ExpertWork& work) {
  return static_cast<double>(work.foreseen) /
         static_cast<double>(std::max<int64_t>(1, work.misses));
}

double hit_rate(const ExpertWork& work) {
  return static_cast<double>(work.hits()) / static_cast<double>(work.choices);
}

std::optional<Bound> bound_of(const BenchHeader& header, const BenchRow& row) {
  const int64_t repetitions = std::ssize(row.seconds);
  if (!header.on_gpu) return cpu_bound(header.rates, row.bytes, repetitions);
  return gpu_bound(header.rates, header.load, row.test, row.experts.value_or(ExpertWork{}),
                   repetitions);
}

// Of all sequences together.
double bound_tokens_per_second(const BenchRow& row, const Bound& bound) {
  return static_cast<double>(row.tokens_each()) / bound.seconds;
}

double share_of_bound(const BenchRow& row, const Bound& bound) {
  return tokens_per_second(row).mean / bound_tokens_per_second(row, bound);
}

// The least time a row could take: tokens/s, and the share of it that was reached.
std::string bound_cells(const BenchHeader& header, const BenchRow& row) {
  const std::optional<Bound> bound = bound_of(header, row);
  if (!bound || bound->seconds <= 0) return " | |";
  return fmt::format(" {:.1f} | {:.0f} % |", bound_tokens_per_second(row, *bound),
                     100 * share_of_bound(row, *bound));
}

std::string cpu_cells(const BenchRow& row) {
  if (row.bytes == 0) return " | |";
  return fmt::format(" {:.1f} | {:.2f} |", per_token(row, static_cast<double>(row.bytes)) / 1e6,
                     bytes_per_second(row) / 1e9);
}

std::string gpu_cells(const BenchRow& row) {
  if (!row.experts) return " | | | | | |";
  const ExpertWork& work = *row.experts;
  std::string shared = " | | | | |";
  if (work.choices > 0) {
    shared =
        fmt::format(" {:.1f} % | {:.2f} | {:.0f} % | {:.2f} | {:.1f} % |", 100 * hit_rate(work),
                    per_token(row, static_cast<double>(work.misses)), 100 * foreseen_share(work),
                    per_token(row, static_cast<double>(work.fetched)), 100 * work.fetch_share);
  }
  if (work.streamed_bytes == 0) return shared + " |";
  return shared + fmt::format(" {:.2f} |", static_cast<double>(work.streamed_bytes) / 1e9 /
                                               static_cast<double>(row.seconds.size()));
}

bool has_stages(const BenchRow& row) {
  return row.stages && row.stages->steps > 0 && !row.seconds.empty();
}

// Columns of the second table; norms and the embedding share one.
struct StageColumn {
  const char* name;
  std::vector<Stage> stages;
};
std::vector<StageColumn> stage_columns(bool on_gpu) {
  std::vector<StageColumn> columns = {{"projections", {Stage::kMixerProjections}},
                                      {"delta net", {Stage::kDeltaNet}},
                                      {"attention", {Stage::kAttention}},
                                      {"router", {Stage::kRouter}},
                                      {on_gpu ? "hits" : "experts", {Stage::kExperts}},
                                      {"norms", {Stage::kNorms, Stage::kEmbed}},
                                      {"head", {Stage::kHead}}};
  if (on_gpu) {
    columns.insert(columns.begin() + 5, {"waits for misses", {Stage::kExpertsWait}});
  }
  return columns;
}

// Of one step.
double stage_seconds(const RowStages& stages, const StageColumn& column) {
  double seconds = 0;
  for (const Stage stage : column.stages) seconds += stages.clock[stage].seconds;
  return seconds / static_cast<double>(stages.steps);
}

double step_seconds(const BenchRow& row) {
  return total_seconds(row) / static_cast<double>(row.steps_each() * std::ssize(row.seconds));
}

// What of a measured step no stage took.
double seconds_outside(const BenchHeader& header, const BenchRow& row) {
  double seconds = step_seconds(row);
  for (const StageColumn& column : stage_columns(header.on_gpu)) {
    seconds -= stage_seconds(*row.stages, column);
  }
  return seconds;
}

double per_step(const BenchRow& row, double amount) {
  return amount / static_cast<double>(row.steps_each() * std::ssize(row.seconds));
}

double launch_seconds(const BenchHeader& header, const BenchRow& row) {
  return header.rates.launch * static_cast<double>(row.stages->graph_nodes);
}

Json header_json(const BenchHeader& h) {
  Json json = {{"version", h.version},
               {"date", h.date},
               {"cpu", h.cpu},
               {"device", h.device},
               {"isa", h.isa},
               {"threads", h.threads},
               {"on_gpu", h.on_gpu},
               {"model", h.model},
               {"directory", h.directory},
               {"quantization", h.quantization},
               {"experts", h.experts},
               {"dense_bits", h.dense_bits},
               {"kv_type", h.kv_type},
               {"arithmetic", h.arithmetic},
               {"text", h.text},
               {"max_model_len", h.max_model_len},
               {"repeat", h.repeat},
               {"warmup", h.warmup}};
  const auto measured = [](double rate) { return rate > 0 ? Json(rate) : Json(nullptr); };
  json["rates"] = {{"host_read_gb_per_s", measured(h.rates.host_read / 1e9)},
                   {"device_read_gb_per_s", measured(h.rates.device_read / 1e9)},
                   {"pinned_copy_gb_per_s", measured(h.rates.pinned_copy / 1e9)},
                   {"int8_tera_ops_per_s", measured(h.rates.products / 1e12)},
                   {"launch_us", measured(h.rates.launch * 1e6)}};
  return json;
}

Json experts_json(const BenchRow& row, const ExpertWork& work) {
  return {{"choices", work.choices},
          {"misses", work.misses},
          {"fetched", work.fetched},
          {"foreseen", work.foreseen},
          {"hit_rate", work.choices > 0 ? Json(hit_rate(work)) : Json(nullptr)},
          {"misses_per_token", per_token(row, static_cast<double>(work.misses))},
          {"fetched_per_token", per_token(row, static_cast<double>(work.fetched))},
          {"fetch_share", work.fetch_share},
          {"cpu_ms_per_token", per_token(row, 1e3 * work.cpu_seconds)},
          {"wait_ms_per_token", per_token(row, 1e3 * work.wait_seconds)},
          {"streamed_bytes", work.streamed_bytes}};
}

Json stages_json(const BenchHeader& header, const BenchRow& row) {
  Json ms = Json::object();
  for (const StageColumn& column : stage_columns(header.on_gpu)) {
    ms[column.name] = 1e3 * stage_seconds(*row.stages, column);
  }
  Json json = {{"steps", row.stages->steps},
               {"step_ms", 1e3 * step_seconds(row)},
               {"ms_per_step", std::move(ms)},
               {"outside_ms", 1e3 * seconds_outside(header, row)}};
  if (row.stages->graph_nodes > 0) {
    json["graph_nodes"] = row.stages->graph_nodes;
    json["launches_ms"] = 1e3 * launch_seconds(header, row);
  }
  if (row.experts && row.experts->choices > 0) {
    json["cpu_misses_ms"] = 1e3 * per_step(row, row.experts->cpu_seconds);
    json["cpu_waits_ms"] = 1e3 * per_step(row, row.experts->wait_seconds);
  }
  return json;
}

Json bound_json(const BenchRow& row, const Bound& bound) {
  return {{"tokens_per_s", bound_tokens_per_second(row, bound)},
          {"share", share_of_bound(row, bound)},
          {"device_bytes", bound.device_bytes},
          {"host_bytes", bound.host_bytes},
          {"pcie_bytes", bound.pcie_bytes},
          {"operations", bound.operations}};
}

Json row_json(const BenchHeader& header, const BenchRow& row) {
  const Spread rate = tokens_per_second(row);
  Json json = {{"test", test_name(row.test)},
               {"kind", row.test.decode ? "decode" : "prefill"},
               {"tokens", row.test.tokens},
               {"depth", row.test.depth},
               {"sequences", row.test.num_seqs},
               {"seconds", row.seconds},
               {"tokens_per_s",
                {{"mean", rate.mean}, {"deviation", rate.deviation}, {"median", rate.median}}},
               {"ms_per_token", ms_per_token(row)}};
  if (row.bytes > 0) {
    json["bytes_per_token"] = per_token(row, static_cast<double>(row.bytes));
    json["gb_per_s"] = bytes_per_second(row) / 1e9;
  }
  const std::optional<Bound> bound = bound_of(header, row);
  json["bound"] = bound && bound->seconds > 0 ? bound_json(row, *bound) : Json(nullptr);
  if (has_stages(row)) json["stages"] = stages_json(header, row);
  if (row.experts) json["experts"] = experts_json(row, *row.experts);
  return json;
}

std::string rates_text(const BenchHeader& h) {
  const BenchRates& r = h.rates;
  std::string out = "measured at the start: ";
  out += r.host_read > 0 ? fmt::format("host memory read {:.1f} GB/s", r.host_read / 1e9)
                         : "host memory not measured";
  if (r.device_read > 0)
    out += fmt::format(", device memory read {:.0f} GB/s", r.device_read / 1e9);
  if (r.pinned_copy > 0) out += fmt::format(", pinned copy {:.1f} GB/s", r.pinned_copy / 1e9);
  if (r.products > 0) out += fmt::format(", int8 products {:.0f} TOP/s", r.products / 1e12);
  if (r.launch > 0) out += fmt::format(", a launch {:.2f} µs", r.launch * 1e6);
  return out;
}

std::string stages_line(const BenchHeader& header, const std::vector<StageColumn>& columns,
                        const BenchRow& row) {
  std::string line = fmt::format("| {} | {:.3f} |", test_name(row.test), 1e3 * step_seconds(row));
  for (const StageColumn& column : columns) {
    line += fmt::format(" {:.3f} |", 1e3 * stage_seconds(*row.stages, column));
  }
  line += fmt::format(" {:.3f} |", 1e3 * seconds_outside(header, row));
  if (!header.on_gpu) return line + "\n";
  line += row.stages->graph_nodes > 0 ? fmt::format(" {:.3f} |", 1e3 * launch_seconds(header, row))
                                      : " |";
  if (!row.experts || row.experts->choices == 0) return line + " | |\n";
  return line + fmt::format(" {:.3f} | {:.3f} |\n", 1e3 * per_step(row, row.experts->cpu_seconds),
                            1e3 * per_step(row, row.experts->wait_seconds));
}

}  // namespace

std::string markdown_header(const BenchHeader& h) {
  std::string out =
      fmt::format("hotset {}, {}: {}, {}  \n{}", h.version, h.date, h.cpu, h.device, rates_text(h));
  out += fmt::format(
      "  \n{} ({}): {}, experts {}, dense {} bits, KV {}, {} arithmetic  \n"
      "{} threads, {}, context {}, {} text, {} repetitions, {} tokens of warm-up\n\n",
      h.model, h.directory, h.quantization, h.experts, h.dense_bits, h.kv_type, h.arithmetic,
      h.threads, h.isa, h.max_model_len, h.text, h.repeat, h.warmup);
  const char* first = "| test | tok/s | median | ms/token | bound tok/s | of bound |";
  const char* rule = "| :--- | ---: | ---: | ---: | ---: | ---: |";
  if (h.on_gpu) {
    return out + first + " hits | misses/token | foreseen | fetched/token | fetch share | " +
           "GB streamed |\n" + rule + " ---: | ---: | ---: | ---: | ---: | ---: |\n";
  }
  return out + first + " MB/token | GB/s |\n" + rule + " ---: | ---: |\n";
}

std::string markdown_row(const BenchHeader& header, const BenchRow& row) {
  const Spread rate = tokens_per_second(row);
  return fmt::format("| {} | {:.2f} ± {:.2f} | {:.2f} | {:.3f} |{}{}\n", test_name(row.test),
                     rate.mean, rate.deviation, rate.median, ms_per_token(row),
                     bound_cells(header, row), header.on_gpu ? gpu_cells(row) : cpu_cells(row));
}

std::string markdown_stages(const BenchHeader& header, const std::vector<BenchRow>& rows) {
  std::string missing;
  for (const BenchRow& row : rows) {
    if (row.stages && !row.stages->why_none.empty()) {
      missing += fmt::format("\nno stages of {}: {}\n", test_name(row.test), row.stages->why_none);
    }
  }
  if (std::none_of(rows.begin(), rows.end(), has_stages)) return missing;
  const std::vector<StageColumn> columns = stage_columns(header.on_gpu);
  std::string names = "| ms of a step | step |", rule = "| :--- | ---: |";
  const auto column = [&](const char* name) {
    names += fmt::format(" {} |", name);
    rule += " ---: |";
  };
  for (const StageColumn& c : columns) column(c.name);
  column("outside");
  if (header.on_gpu) {
    for (const char* name : {"launches", "CPU: misses", "CPU: waits"}) column(name);
  }
  std::string out = "\n" + names + "\n" + rule + "\n";
  for (const BenchRow& row : rows) {
    if (has_stages(row)) out += stages_line(header, columns, row);
  }
  return out + missing;
}

std::string markdown_skipped(const SkippedRow& skipped) {
  return fmt::format("skipped {}: {}\n", test_name(skipped.test), skipped.why);
}

std::string bench_json(const BenchHeader& header, const std::vector<BenchRow>& rows,
                       const std::vector<SkippedRow>& skipped) {
  Json json = header_json(header);
  json["rows"] = Json::array();
  for (const BenchRow& row : rows) json["rows"].push_back(row_json(header, row));
  json["skipped"] = Json::array();
  for (const SkippedRow& row : skipped) {
    json["skipped"].push_back({{"test", test_name(row.test)}, {"why", row.why}});
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace hotset
