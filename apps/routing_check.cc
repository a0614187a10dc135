// SPDX-License-Identifier: Apache-2.0
#include "routing_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/language_model.h"

namespace hotset {
namespace {

constexpr int64_t kMostRows = 6;

std::string table_row(const std::string& name, const RoutingStats& stats) {
  std::string row =
      fmt::format("| {} | {:.2f} | {:.1f} % |", name, stats.entropy_bits, 100 * stats.overlap);
  for (const auto& rates : {stats.fixed, stats.lru}) {
    for (const double rate : rates) row += fmt::format(" {:.1f} % |", 100 * rate);
  }
  return row + "\n";
}

}  // namespace

Result<RoutingCheck> check_routing(const std::string& directory, int64_t num_tokens,
                                   TextKind text) {
  ModelOptions options;
  options.isa = cpu::detect_isa();
  options.max_model_len = num_tokens;
  options.max_num_seqs = 1;
  HS_ASSIGN_OR_RETURN(const auto model, LanguageModel::load(directory, options, {}));
  const ModelConfig& config = model->config();
  RoutingCheck check{.layers = {},
                     .num_tokens = num_tokens,
                     .num_experts = config.num_experts,
                     .top_k = config.num_experts_per_tok};
  std::vector<std::vector<int32_t>> chosen(static_cast<size_t>(config.num_hidden_layers));
  HS_RETURN_IF_ERROR(model->listen_to_routing(
      [&](int64_t layer, std::span<const int32_t> experts, int32_t /*top_k*/) {
        std::copy_if(experts.begin(), experts.end(),
                     std::back_inserter(chosen[static_cast<size_t>(layer)]),
                     [&](int32_t expert) { return expert < config.num_experts; });
      }));
  std::vector<int32_t> ids(static_cast<size_t>(num_tokens));
  SynthText(text, model->vocab_size(), 1).next(ids);
  std::vector<float> logits(static_cast<size_t>(model->vocab_size()));
  HS_ASSIGN_OR_RETURN(const auto sequence, model->new_sequence(num_tokens));
  HS_RETURN_IF_ERROR(model->extend(*sequence, ids, logits));
  for (const std::vector<int32_t>& layer : chosen) {
    if (std::ssize(layer) != num_tokens * check.top_k) continue;  // a dense one
    check.layers.push_back(routing_stats(layer, check.top_k, check.num_experts));
  }
  if (check.layers.empty()) return fail(directory + ": no layer has experts");
  return check;
}

std::string routing_table(const RoutingCheck& check) {
  std::string table = fmt::format(
      "Routing of {} drifting tokens, {} of {} experts each. Equal chances would give {:.2f} "
      "bits,\n"
      "an overlap of {:.1f} %, and hit rates as large as the caches.\n\n"
      "| layer | entropy, bits | overlap with the token before |",
      check.num_tokens, check.top_k, check.num_experts,
      std::log2(static_cast<double>(check.num_experts)),
      100.0 * static_cast<double>(check.top_k) / static_cast<double>(check.num_experts));
  for (const char* policy : {"best fixed", "LRU"}) {
    for (const int percent : kCachePercents) table += fmt::format(" {} {} % |", policy, percent);
  }
  table += "\n| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  const int64_t count = std::ssize(check.layers);
  const int64_t rows = std::min(count, kMostRows);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t layer = rows > 1 ? r * (count - 1) / (rows - 1) : 0;
    table += table_row(std::to_string(layer), check.layers[static_cast<size_t>(layer)]);
  }
  return table + table_row("mean", mean_of(check.layers));
}

}  // namespace hotset
