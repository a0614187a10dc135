// SPDX-License-Identifier: Apache-2.0
// What hit rate, at what traffic: a routing trace, recorded or made up, replayed through the live
// expert cache and through the textbook ones (expert_cache/baselines.h).
//
//   expert_cache_sim --trace FILE [--profile FILE]
//   expert_cache_sim --synthetic uniform | zipf:EXPONENT [--drift SHARE] [--steps N] [--seed N]
//                    [--layers 48] [--experts 512] [--top-k 10] [--write FILE] [--write-profile
//                    FILE]
//
// The live cache starts as an engine would start it, all slots filled by --profile or with
// arbitrary experts (--empty: not), and pays for its copies as a GPU would: a slot drains for a
// step and a copy takes one, so that an expert serves from the third step after its second touch
// on. The others start empty and insert at once.
//
// Cold is the first --cold steps, steady all after. Tokens/s follow from experts/speed_model.h with
// the rates of --machine, misses computed by CPU and PCIe together and insertions copied beside;
// us/tok is what the book-keeping took here.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "expert_cache/baselines.h"
#include "expert_cache/slot_cache_policy.h"
#include "expert_cache/synthetic_routing.h"
#include "experts/routing_profile.h"
#include "experts/slot_cache.h"
#include "experts/speed_model.h"

namespace hotset {
namespace {

struct SimOptions {
  std::string trace, profile, write, write_profile;
  std::string synthetic = "zipf:1.0";
  SyntheticOptions made = {.shape = {.num_layers = 48, .num_experts = 512, .top_k = 10},
                           .exponent = 0,
                           .drift = 0,
                           .seed = 1};
  int64_t steps = 2048;
  int64_t cold = 256;
  std::vector<double> cached = {10, 20, 30};
  std::string machine = "h200";
  double dense_gb = 1.15;
  int64_t budget_slots = 24;
  bool belady = false;
  bool empty = false;
  SlotCacheOptions cache;
};

// Effective rates: limits measured on the H200 machine; a 4090-class card of 16 GB on PCIe 4 x16
// and a 4060 Ti on x8, both with dual-channel DDR5, as published for them.
std::optional<MachineRates> machine_rates(const std::string& name) {
  if (name == "h200") {
    return MachineRates{.gpu_bytes_per_s = 4500e9,
                        .cpu_bytes_per_s = 160e9,
                        .cpu_overlapped_bytes_per_s = 134e9,
                        .pcie_bytes_per_s = 51e9,
                        .pcie_overlapped_bytes_per_s = 43e9,
                        .host_bytes_per_s = 177e9,
                        .cpu_flops = 15e12,
                        .gpu_flops = 350e12,
                        .handshake_s = 3.4e-6,
                        .node_s = 0.7e-6};
  }
  const bool ada = name == "4090";
  if (!ada && name != "4060ti") return std::nullopt;
  const double pcie = ada ? 25e9 : 13e9;
  return MachineRates{.gpu_bytes_per_s = ada ? 900e9 : 259e9,
                      .cpu_bytes_per_s = 66e9,
                      .cpu_overlapped_bytes_per_s = 75e9 - pcie,
                      .pcie_bytes_per_s = pcie,
                      .pcie_overlapped_bytes_per_s = pcie,
                      .host_bytes_per_s = 75e9,
                      .cpu_flops = 4e12,
                      .gpu_flops = ada ? 60e12 : 14e12,
                      .handshake_s = 8e-6,
                      .node_s = 0.8e-6};
}

Result<RoutingTrace> make_trace(const SimOptions& options) {
  SyntheticOptions made = options.made;
  HS_RETURN_IF_ERROR(check_routing_shape(made.shape, "--layers, --experts, --top-k"));
  if (options.synthetic.starts_with("zipf:")) {
    made.exponent = std::atof(options.synthetic.c_str() + 5);
  } else if (options.synthetic != "uniform") {
    return fail("--synthetic is uniform or zipf:EXPONENT");
  }
  SyntheticRouting routing(made);
  std::vector<uint16_t> ids;
  for (int64_t step = 0; step < options.steps; ++step) {
    const auto next = routing.next();
    ids.insert(ids.end(), next.begin(), next.end());
  }
  return RoutingTrace::from_ids(made.shape, std::move(ids), "--synthetic");
}

Status write_trace(const RoutingTrace& trace, const std::string& path) {
  HS_ASSIGN_OR_RETURN(auto writer, RoutingTraceWriter::create(path, trace.shape()));
  for (int64_t step = 0; step < trace.num_steps(); ++step) {
    const auto first = trace.ids(step, 0);
    HS_RETURN_IF_ERROR(
        writer.add_step({first.data(), static_cast<size_t>(trace.shape().ids_per_step())}));
  }
  return writer.finish();
}

struct Outcome {
  double cold_hit = 0, steady_hit = 0;
  double insertions = 0;  // a steady step
  double step_us = 0;
};

Outcome replay(const RoutingTrace& trace, CachePolicy& policy, int64_t cold_steps) {
  int64_t hits[2] = {}, choices[2] = {}, insertions_cold = 0;
  const auto start = std::chrono::steady_clock::now();
  for (int64_t step = 0; step < trace.num_steps(); ++step) {
    const int part = step < cold_steps ? 0 : 1;
    for (int32_t layer = 0; layer < trace.shape().num_layers; ++layer) {
      hits[part] += policy.use(layer, step, trace.ids(step, layer));
      choices[part] += trace.shape().top_k;
    }
    policy.end_step(step);
    if (part == 0) insertions_cold = policy.num_insertions();
  }
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  const auto rate = [&](int part) {
    return choices[part] > 0 ? static_cast<double>(hits[part]) / static_cast<double>(choices[part])
                             : 0.0;
  };
  const auto steady_steps =
      static_cast<double>(std::max<int64_t>(1, trace.num_steps() - cold_steps));
  return {
      .cold_hit = rate(0),
      .steady_hit = rate(1),
      .insertions = static_cast<double>(policy.num_insertions() - insertions_cold) / steady_steps,
      .step_us = took.count() / static_cast<double>(std::max<int64_t>(1, trace.num_steps()))};
}

Result<std::unique_ptr<SlotCachePolicy>> make_hotset(const SimOptions& options,
                                                     const RoutingTrace& trace, int64_t num_slots) {
  SlotCacheOptions cache = options.cache;
  cache.num_layers = trace.shape().num_layers;
  cache.num_experts = trace.shape().num_experts;
  cache.num_slots = static_cast<int32_t>(num_slots);
  cache.step_budget_bytes = options.budget_slots * cache.slot_bytes;
  HS_ASSIGN_OR_RETURN(SlotCache made, SlotCache::create(cache));
  if (!options.profile.empty()) {
    HS_ASSIGN_OR_RETURN(const RoutingProfile profile, RoutingProfile::load(options.profile));
    HS_RETURN_IF_ERROR(made.seed(profile));
  }
  if (!options.empty || !options.profile.empty()) {
    for (const Insertion& insertion : made.plan_fill(0)) made.commit_insertion(insertion.slot);
  }
  return std::make_unique<SlotCachePolicy>(std::move(made));
}

Status run(const SimOptions& options) {
  const auto rates = machine_rates(options.machine);
  if (!rates) return fail("--machine is h200, 4090 or 4060ti");
  HS_ASSIGN_OR_RETURN(const RoutingTrace trace, options.trace.empty()
                                                    ? make_trace(options)
                                                    : RoutingTrace::load(options.trace));
  if (!options.write.empty()) HS_RETURN_IF_ERROR(write_trace(trace, options.write));
  if (!options.write_profile.empty()) {
    HS_ASSIGN_OR_RETURN(const RoutingProfile profile, RoutingProfile::from_trace(trace));
    HS_RETURN_IF_ERROR(profile.save(options.write_profile));
  }
  const RoutingShape& shape = trace.shape();
  const DecodeLoad load = {.num_layers = shape.num_layers,
                           .num_experts = shape.num_experts,
                           .top_k = shape.top_k,
                           .expert_bytes = options.cache.slot_bytes,
                           .dense_bytes = options.dense_gb * 1e9,
                           .state_kv_bytes = 0.151e9 + 24 * 1024 * 4096.0,
                           .num_kernels = 560};
  fmt::print("{} steps, {} layers, {} experts, top {}; rates of {}\n", trace.num_steps(),
             shape.num_layers, shape.num_experts, shape.top_k, options.machine);
  fmt::print("{:>6}  {:<16}{:>8}{:>8}{:>14}{:>9}{:>9}{:>9}\n", "cached", "policy", "cold", "steady",
             "inserted/tok", "MB/tok", "tok/s", "us/tok");
  for (const double percent : options.cached) {
    const auto slots =
        static_cast<int64_t>(percent / 100 * static_cast<double>(load.total_experts()));
    std::vector<std::unique_ptr<CachePolicy>> policies;
    policies.push_back(make_lru(shape, slots));
    policies.push_back(make_lru_per_layer(shape, slots));
    policies.push_back(make_lfu(shape, slots));
    policies.push_back(make_second_touch(shape, slots));
    HS_ASSIGN_OR_RETURN(auto hotset, make_hotset(options, trace, slots));
    policies.push_back(std::move(hotset));
    if (options.belady) policies.push_back(make_belady(trace, slots));
    for (const auto& policy : policies) {
      const Outcome outcome = replay(trace, *policy, options.cold);
      const double bytes = outcome.insertions * static_cast<double>(load.expert_bytes);
      const double tok_s =
          estimate_decode(*rates, load, outcome.steady_hit, bytes, MissPath::kSplit).tok_s();
      fmt::print("{:>5.0f}%  {:<16}{:>8.3f}{:>8.3f}{:>14.2f}{:>9.2f}{:>9.1f}{:>9.1f}\n", percent,
                 policy->name(), outcome.cold_hit, outcome.steady_hit, outcome.insertions,
                 bytes / 1e6, tok_s, outcome.step_us);
    }
  }
  return {};
}

void add_options(CLI::App& app, SimOptions& o) {
  o.cache.slot_bytes = 1'668'000;
  app.add_option("--trace", o.trace, "A recorded routing trace");
  app.add_option("--profile", o.profile, "A routing profile that seeds the live cache");
  app.add_option("--synthetic", o.synthetic, "uniform or zipf:EXPONENT");
  app.add_option("--drift", o.made.drift, "Pairs of ranks that swap a step, as a share of experts");
  app.add_option("--steps", o.steps)->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app.add_option("--layers", o.made.shape.num_layers);
  app.add_option("--experts", o.made.shape.num_experts);
  app.add_option("--top-k", o.made.shape.top_k);
  app.add_option("--seed", o.made.seed);
  app.add_option("--write", o.write, "Save the made-up routing as a trace");
  app.add_option("--write-profile", o.write_profile, "Save how often each expert was chosen");
  app.add_option("--cold", o.cold, "Steps that count as cold");
  app.add_option("--cached", o.cached, "Percent of all experts that fit")->delimiter(',');
  app.add_option("--machine", o.machine, "h200, 4090 or 4060ti");
  app.add_option("--dense-gb", o.dense_gb, "Dense weights read a token");
  app.add_flag("--belady", o.belady, "Also the bound that knows the future");
  app.add_flag("--empty", o.empty, "The live cache starts without experts");
  app.add_option("--expert-bytes", o.cache.slot_bytes);
  app.add_option("--budget-slots", o.budget_slots, "Insertions begun a step, all layers");
  app.add_option("--per-layer", o.cache.max_per_layer_step);
  app.add_option("--window", o.cache.window_steps);
  app.add_option("--half-life", o.cache.half_life_steps);
  app.add_option("--payback", o.cache.payback_steps);
  app.add_option("--price", o.cache.insertion_price);
  app.add_option("--drain", o.cache.drain_steps);
}

}  // namespace
}  // namespace hotset

int main(int argc, char** argv) {
  CLI::App app("Hit rate and traffic of expert caches");
  hotset::SimOptions options;
  hotset::add_options(app, options);
  CLI11_PARSE(app, argc, argv);
  if (const hotset::Status status = hotset::run(options); !status) {
    fmt::print(stderr, "expert_cache_sim: {}\n", status.error().message);
    return 1;
  }
  return 0;
}
