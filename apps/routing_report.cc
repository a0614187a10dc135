// SPDX-License-Identifier: Apache-2.0
#include "routing_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace hotset {
namespace {

std::string table_row(const std::string& name, const RoutingStats& stats) {
  std::string row =
      fmt::format("| {} | {:.2f} | {:.1f} % |", name, stats.entropy_bits, 100 * stats.overlap);
  for (const auto& rates : {stats.fixed, stats.lru, stats.hotset}) {
    for (const double rate : rates) row += fmt::format(" {:.1f} % |", 100 * rate);
  }
  return row + "\n";
}

}  // namespace

Result<RoutingReport> report_of(const RoutingRecorder& recorder) {
  const RoutingProfile& profile = recorder.profile();
  RoutingReport report{
      .shape = profile.shape(), .num_tokens = profile.num_tokens(), .layers = {}, .of_layers = 0};
  HS_ASSIGN_OR_RETURN(report.layers, stats_of(recorder.recorded()));
  for (size_t i = 0; i < report.layers.size(); ++i) report.layers[i].layer = recorder.layers()[i];
  return report;
}

std::string routing_table(const RoutingReport& report, const std::string& tokens,
                          int64_t most_rows) {
  const RoutingShape& shape = report.shape;
  std::string table = fmt::format(
      "Routing of {}.\nEach takes {} of {} experts in each of {} layers. Equal chances would give "
      "{:.2f} bits,\n"
      "an overlap of {:.1f} %, and shares and hit rates as large as the caches.\n\n"
      "| layer | entropy, bits | overlap with the token before |",
      tokens, shape.top_k, shape.num_experts, shape.num_layers,
      std::log2(static_cast<double>(shape.num_experts)),
      100.0 * static_cast<double>(shape.top_k) / static_cast<double>(shape.num_experts));
  for (const char* policy : {"most popular", "LRU", "hotset"}) {
    for (const int percent : kCachePercents) table += fmt::format(" {} {} % |", policy, percent);
  }
  table += "\n| :--- |";
  for (size_t i = 0; i < 2 + 3 * kCachePercents.size(); ++i) table += " ---: |";
  table += "\n";
  const int64_t count = std::ssize(report.layers);
  const int64_t rows = std::min(count, most_rows);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t layer = rows > 1 ? r * (count - 1) / (rows - 1) : 0;
    const RoutingStats& stats = report.layers[static_cast<size_t>(layer)];
    table += table_row(std::to_string(stats.layer), stats);
  }
  return table + table_row("mean", mean_of(report.layers));
}

}  // namespace hotset
