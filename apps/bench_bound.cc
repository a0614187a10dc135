// SPDX-License-Identifier: Apache-2.0
#include "bench_bound.h"

#include <algorithm>

namespace hotset {
namespace {

bool is_read_by_a_step(const ComponentSummary& part, bool tied) {
  if (part.name == "embedding") return tied;  // it is the head too
  return part.name != "experts" && part.name != "mtp";
}

// Each token attends to the context and to half of what comes with it.
double kv_positions(const BenchTest& test) {
  return static_cast<double>(test.depth) + static_cast<double>(test.tokens) / 2;
}

Bound decode_bytes(const ModelLoad& load, const BenchTest& test, const ExpertWork& experts,
                   double repetitions) {
  const double steps = static_cast<double>(test.tokens);
  const auto expert = static_cast<double>(load.expert_bytes) / repetitions;
  const double each = 2.0 * static_cast<double>(load.state_bytes) +
                      kv_positions(test) * static_cast<double>(load.kv_bytes_per_token);
  Bound bound;
  bound.device_bytes =
      steps * (static_cast<double>(load.dense_bytes) + static_cast<double>(test.num_seqs) * each) +
      static_cast<double>(experts.hits()) * expert;
  bound.pcie_bytes = static_cast<double>(experts.fetched) * expert;
  bound.host_bytes = static_cast<double>(experts.misses + experts.fetched) * expert;
  return bound;
}

Bound prefill_bytes(const ModelLoad& load, const BenchTest& test, const ExpertWork& experts,
                    double repetitions) {
  Bound bound;
  bound.pcie_bytes = static_cast<double>(experts.streamed_bytes) / repetitions;
  bound.host_bytes = bound.pcie_bytes;
  bound.operations = static_cast<double>(test.tokens) * load.ops_per_token;
  return bound;
}

// Rates of 0 are none: what needs them has no bound.
std::optional<double> seconds_at(double amount, double rate) {
  if (amount <= 0) return 0;
  if (rate <= 0) return std::nullopt;
  return amount / rate;
}

}  // namespace

ModelLoad model_load(const ModelSummary& summary) {
  const ModelConfig& c = summary.config;
  ModelLoad load{.state_bytes = summary.state_bytes_per_sequence,
                 .kv_bytes_per_token = summary.kv_bytes_per_token};
  double parameters = 0;
  const auto moe_layers = std::count(c.layer_is_moe.begin(), c.layer_is_moe.end(), true);
  for (const ComponentSummary& part : summary.components) {
    if (is_read_by_a_step(part, c.tie_word_embeddings)) load.dense_bytes += part.memory_bytes;
    if (part.name == "experts" && moe_layers > 0 && c.num_experts > 0) {
      load.expert_bytes = part.memory_bytes / (moe_layers * c.num_experts);
      parameters += static_cast<double>(part.num_parameters) *
                    static_cast<double>(c.num_experts_per_tok) / static_cast<double>(c.num_experts);
    } else if (part.name != "embedding" && part.name != "lm_head" && part.name != "mtp") {
      parameters += static_cast<double>(part.num_parameters);
    }
  }
  load.ops_per_token = 2 * parameters;
  return load;
}

std::optional<Bound> cpu_bound(const BenchRates& rates, int64_t cpu_bytes, int64_t repetitions) {
  if (cpu_bytes == 0 || rates.host_read <= 0) return std::nullopt;
  Bound bound{.host_bytes = static_cast<double>(cpu_bytes) / static_cast<double>(repetitions)};
  bound.seconds = bound.host_bytes / rates.host_read;
  return bound;
}

// Decode: what is not an expert comes one after the other with them; the GPU's experts, the CPU's
// and those that cross PCIe are under way at once. Prefill: copies and products are.
std::optional<Bound> gpu_bound(const BenchRates& rates, const ModelLoad& load,
                               const BenchTest& test, const ExpertWork& experts,
                               int64_t repetitions) {
  const auto count = static_cast<double>(repetitions);
  Bound bound = test.decode ? decode_bytes(load, test, experts, count)
                            : prefill_bytes(load, test, experts, count);
  const auto device = seconds_at(bound.device_bytes, rates.device_read);
  const auto host = seconds_at(bound.host_bytes, rates.host_read);
  const auto pcie = seconds_at(bound.pcie_bytes, rates.pinned_copy);
  const auto products = seconds_at(bound.operations, rates.products);
  if (!device || !host || !pcie || !products) return std::nullopt;
  if (!test.decode) {
    bound.seconds = std::max({*host, *pcie, *products});
    return bound;
  }
  const double hits = static_cast<double>(experts.hits()) * static_cast<double>(load.expert_bytes) /
                      count / rates.device_read;
  bound.seconds = *device - hits + std::max({hits, *host, *pcie});
  return bound;
}

}  // namespace hotset
