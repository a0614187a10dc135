// SPDX-License-Identifier: Apache-2.0
#include "experts/miss_split.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace hotset {
namespace {

// Splits closer than this are equal: rates are not known better.
constexpr double kEqual = 1e-9;

double cpu_expert_s(const MachineRates& rates, const ExpertCost& cost, double tokens, bool both) {
  const double rate = both ? rates.cpu_overlapped_bytes_per_s : rates.cpu_bytes_per_s;
  return std::max(static_cast<double>(cost.bytes) / rate,
                  tokens * cost.flops_per_token / rates.cpu_flops);
}

double fetch_expert_s(const MachineRates& rates, const ExpertCost& cost, bool both) {
  return static_cast<double>(cost.bytes) /
         (both ? rates.pcie_overlapped_bytes_per_s : rates.pcie_bytes_per_s);
}

}  // namespace

MissSplit split_misses(const MachineRates& rates, const ExpertCost& cost,
                       std::span<const int32_t> tokens, double hot_s) {
  HS_CHECK(std::is_sorted(tokens.rbegin(), tokens.rend()), "misses come with most tokens first");
  const auto count = static_cast<int32_t>(tokens.size());
  MissSplit best{.num_fetched = 0, .cpu_s = 0, .fetch_s = 0, .layer_s = hot_s};
  if (count == 0) return best;

  double cpu_both = 0;     // of the misses from f on
  double gpu_compute = 0;  // of the misses before f
  double cpu_alone = 0;
  for (const int32_t t : tokens) {
    cpu_both += cpu_expert_s(rates, cost, t, true);
    cpu_alone += cpu_expert_s(rates, cost, t, false);
  }
  for (int32_t f = 0; f <= count; ++f) {
    const bool both = f > 0 && f < count;
    MissSplit split{.num_fetched = f, .cpu_s = 0, .fetch_s = 0, .layer_s = 0};
    if (f < count) split.cpu_s = rates.handshake_s + (both ? cpu_both : cpu_alone);
    if (f > 0) {
      split.fetch_s = std::max(rates.fetch_s + f * fetch_expert_s(rates, cost, both), gpu_compute);
    }
    split.layer_s = std::max({hot_s, split.cpu_s, split.fetch_s});
    if (f == 0 || split.layer_s < best.layer_s * (1.0 - kEqual)) best = split;
    if (f < count) {
      const double t = tokens[static_cast<size_t>(f)];
      cpu_both -= cpu_expert_s(rates, cost, t, true);
      gpu_compute += t * cost.flops_per_token / rates.gpu_flops;
    }
  }
  return best;
}

PrefillSplit split_prefill(const MachineRates& rates, const PrefillLoad& load, int64_t num_tokens) {
  HS_CHECK(num_tokens >= 1, "{} tokens", num_tokens);
  const auto n = static_cast<double>(num_tokens);
  const double chosen = static_cast<double>(load.top_k) / load.num_experts;
  const double touched = 1.0 - std::pow(1.0 - chosen, n);
  const double expert_tokens = n * chosen / touched;
  const double missed = load.num_experts * (1.0 - load.cached_share) * touched;

  const double cpu_both = cpu_expert_s(rates, load.expert, expert_tokens, true);
  const double fetch_both = fetch_expert_s(rates, load.expert, true);
  const double share = fetch_both / (cpu_both + fetch_both);
  const double layer_cpu =
      rates.handshake_s + missed * cpu_expert_s(rates, load.expert, expert_tokens, false);
  const double layer_stream = rates.fetch_s + missed * fetch_expert_s(rates, load.expert, false);
  const double layer_both = std::max(rates.handshake_s, rates.fetch_s) + missed * share * cpu_both;

  PrefillSplit out{.cpu_share = share, .stream_share = 1.0 - share, .seconds = layer_both};
  if (layer_cpu < out.seconds) out = {.cpu_share = 1, .stream_share = 0, .seconds = layer_cpu};
  if (layer_stream < out.seconds) {
    out = {.cpu_share = 0, .stream_share = 1, .seconds = layer_stream};
  }
  out.seconds = std::max(out.seconds * load.num_layers, n * load.flops_per_token / rates.gpu_flops);
  return out;
}

}  // namespace hotset
