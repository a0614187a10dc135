// SPDX-License-Identifier: Apache-2.0
#include "bench_report.h"

#include <fmt/format.h>

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

double hit_rate(const ExpertWork& work) {
  return 1.0 - static_cast<double>(work.misses) / static_cast<double>(work.choices);
}

std::string cpu_cells(const BenchHeader& header, const BenchRow& row) {
  if (row.bytes == 0) return " | | |";
  const double rate = bytes_per_second(row);
  std::string share;
  if (header.plain_read > 0) share = fmt::format("{:.0f} %", 100 * rate / header.plain_read);
  return fmt::format(" {:.1f} | {:.2f} | {} |",
                     per_token(row, static_cast<double>(row.bytes)) / 1e6, rate / 1e9, share);
}

std::string gpu_cells(const BenchRow& row) {
  if (!row.experts) return " | | | | |";
  const ExpertWork& work = *row.experts;
  std::string shared = " | | | |";
  if (work.choices > 0) {
    shared = fmt::format(" {:.1f} % | {:.2f} | {:.3f} | {:.3f} |", 100 * hit_rate(work),
                         per_token(row, static_cast<double>(work.misses)),
                         per_token(row, 1e3 * work.cpu_seconds),
                         per_token(row, 1e3 * work.wait_seconds));
  }
  if (work.streamed_bytes == 0) return shared + " |";
  return shared + fmt::format(" {:.2f} |", static_cast<double>(work.streamed_bytes) / 1e9 /
                                               static_cast<double>(row.seconds.size()));
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
  json["plain_read_gb_per_s"] = h.plain_read > 0 ? Json(h.plain_read / 1e9) : Json(nullptr);
  return json;
}

Json experts_json(const BenchRow& row, const ExpertWork& work) {
  return {{"choices", work.choices},
          {"misses", work.misses},
          {"hit_rate", work.choices > 0 ? Json(hit_rate(work)) : Json(nullptr)},
          {"misses_per_token", per_token(row, static_cast<double>(work.misses))},
          {"cpu_ms_per_token", per_token(row, 1e3 * work.cpu_seconds)},
          {"wait_ms_per_token", per_token(row, 1e3 * work.wait_seconds)},
          {"streamed_bytes", work.streamed_bytes}};
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
    if (header.plain_read > 0) {
      json["share_of_plain_read"] = bytes_per_second(row) / header.plain_read;
    }
  }
  if (row.experts) json["experts"] = experts_json(row, *row.experts);
  return json;
}

}  // namespace

std::string markdown_header(const BenchHeader& h) {
  std::string out = fmt::format("hotset {}, {}: {}, {}", h.version, h.date, h.cpu, h.device);
  if (h.plain_read > 0) out += fmt::format(", plain read {:.1f} GB/s", h.plain_read / 1e9);
  out += fmt::format(
      "  \n{} ({}): {}, experts {}, dense {} bits, KV {}, {} arithmetic  \n"
      "context {}, {} text, {} repetitions, {} tokens of warm-up\n\n",
      h.model, h.directory, h.quantization, h.experts, h.dense_bits, h.kv_type, h.arithmetic,
      h.max_model_len, h.text, h.repeat, h.warmup);
  const char* first = "| test | tok/s | median | ms/token |";
  const char* rule = "| :--- | ---: | ---: | ---: |";
  if (h.on_gpu) {
    return out + first + " hits | misses/token | CPU ms/token | wait ms/token | GB streamed |\n" +
           rule + " ---: | ---: | ---: | ---: | ---: |\n";
  }
  return out + first + " MB/token | GB/s | of plain read |\n" + rule + " ---: | ---: | ---: |\n";
}

std::string markdown_row(const BenchHeader& header, const BenchRow& row) {
  const Spread rate = tokens_per_second(row);
  return fmt::format("| {} | {:.2f} ± {:.2f} | {:.2f} | {:.3f} |{}\n", test_name(row.test),
                     rate.mean, rate.deviation, rate.median, ms_per_token(row),
                     header.on_gpu ? gpu_cells(row) : cpu_cells(header, row));
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
