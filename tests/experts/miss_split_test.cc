// SPDX-License-Identifier: Apache-2.0
// The split of misses against trying every assignment, and prefill against a table worked out
// apart.
#include "experts/miss_split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace hotset {
namespace {

constexpr ExpertCost kExpert = {.bytes = 1'668'294, .flops_per_token = 6.29e6};

MachineRates rates(double cpu, double pcie) {
  return {.gpu_bytes_per_s = 900e9,
          .cpu_bytes_per_s = cpu,
          .cpu_overlapped_bytes_per_s = cpu,
          .pcie_bytes_per_s = pcie,
          .pcie_overlapped_bytes_per_s = pcie,
          .host_bytes_per_s = cpu + pcie,
          .cpu_flops = 4e12,
          .gpu_flops = 60e12,
          .handshake_s = 0,
          .fetch_s = 0,
          .node_s = 0};
}

// The same formula, for any subset of the misses.
double time_of(const MachineRates& r, const std::vector<int32_t>& tokens, unsigned fetched,
               double hot_s) {
  double cpu = 0, pcie = 0, gpu = 0;
  const unsigned all = (1u << tokens.size()) - 1;
  const bool both = fetched != 0 && fetched != all;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const double bytes = static_cast<double>(kExpert.bytes);
    if (fetched >> i & 1) {
      pcie += bytes / (both ? r.pcie_overlapped_bytes_per_s : r.pcie_bytes_per_s);
      gpu += tokens[i] * kExpert.flops_per_token / r.gpu_flops;
    } else {
      cpu += std::max(bytes / (both ? r.cpu_overlapped_bytes_per_s : r.cpu_bytes_per_s),
                      tokens[i] * kExpert.flops_per_token / r.cpu_flops);
    }
  }
  if (fetched != all) cpu += r.handshake_s;
  if (fetched != 0) pcie += r.fetch_s;
  return std::max({hot_s, cpu, pcie, gpu});
}

TEST(MissSplit, IsTheBestOfAllAssignments) {
  std::mt19937 engine(11);
  const auto below = [&](unsigned n) { return static_cast<double>(engine() % n); };
  for (int round = 0; round < 300; ++round) {
    MachineRates r = rates(20e9 + below(150) * 1e9, 5e9 + below(60) * 1e9);
    r.cpu_overlapped_bytes_per_s = r.cpu_bytes_per_s * 0.8;
    r.pcie_overlapped_bytes_per_s = r.pcie_bytes_per_s * 0.9;
    r.handshake_s = below(20) * 1e-6;
    r.fetch_s = below(10) * 1e-6;
    std::vector<int32_t> tokens(engine() % 9);
    const bool prefill = engine() % 2 == 0;
    for (int32_t& t : tokens) t = 1 + static_cast<int32_t>(engine() % (prefill ? 300 : 2));
    std::sort(tokens.rbegin(), tokens.rend());
    const double hot_s = below(50) * 1e-6;
    const MissSplit split = split_misses(r, kExpert, tokens, hot_s);
    if (tokens.empty()) {
      EXPECT_EQ(split.layer_s, hot_s);
      continue;
    }
    double best = 1e9;
    for (unsigned fetched = 0; fetched < 1u << tokens.size(); ++fetched) {
      best = std::min(best, time_of(r, tokens, fetched, hot_s));
    }
    EXPECT_NEAR(split.layer_s, best, best * 1e-6) << "round " << round;
    EXPECT_EQ(split.num_fetched >= 0 && split.num_fetched <= static_cast<int>(tokens.size()), true);
  }
}

TEST(MissSplit, LeavesPcieIdleWhereItDoesNotHelp) {
  const std::vector<int32_t> two = {1, 1};
  // Hits take longer than both misses on the CPU: nothing to gain.
  EXPECT_EQ(split_misses(rates(100e9, 50e9), kExpert, two, 1e-3).num_fetched, 0);
  EXPECT_EQ(split_misses(rates(100e9, 50e9), kExpert, two, 0).num_fetched, 0);  // 33 µs either way
  EXPECT_EQ(split_misses(rates(100e9, 60e9), kExpert, two, 0).num_fetched, 1);
  EXPECT_EQ(split_misses(rates(10e9, 60e9), kExpert, two, 0).num_fetched, 2);
}

TEST(MissSplit, TheExpertsWithMostTokensGoToTheGpu) {
  const std::vector<int32_t> tokens = {400, 1, 1, 1};  // 629 µs on the CPU, 67 over PCIe
  const MissSplit split = split_misses(rates(66e9, 25e9), kExpert, tokens, 0);
  EXPECT_EQ(split.num_fetched, 1);
}

PrefillLoad qwen3_next() {
  return {.num_layers = 48,
          .num_experts = 512,
          .top_k = 10,
          .expert = kExpert,
          .cached_share = 0.3,
          .flops_per_token = 6.5e9};
}

TEST(PrefillSplit, GivesTheTableOfTwoMachines) {
  const int64_t prompts[] = {64, 128, 256, 512, 1024, 2048};
  const double desktop[] = {233, 364, 673, 1338, 2676, 3674};
  const double server[] = {451, 702, 1301, 2585, 5169, 10339};
  MachineRates a = rates(50e9, 25e9);
  MachineRates b = rates(92e9, 53e9);
  b.cpu_flops = 15e12;
  b.gpu_flops = 350e12;
  for (int i = 0; i < 6; ++i) {
    EXPECT_NEAR(split_prefill(a, qwen3_next(), prompts[i]).tok_s(prompts[i]), desktop[i],
                0.01 * desktop[i])
        << prompts[i];
    EXPECT_NEAR(split_prefill(b, qwen3_next(), prompts[i]).tok_s(prompts[i]), server[i],
                0.01 * server[i])
        << prompts[i];
  }
}

TEST(PrefillSplit, LongPromptsStreamAndAreBoundByTheGpu) {
  const PrefillLoad load = qwen3_next();
  const MachineRates r = rates(50e9, 25e9);
  const PrefillSplit few = split_prefill(r, load, 1);
  EXPECT_NEAR(few.cpu_share, 2.0 / 3, 1e-9);  // by bytes alone
  EXPECT_LT(split_prefill(r, load, 8192).cpu_share, 0.3);
  EXPECT_NEAR(split_prefill(r, load, 100'000).tok_s(100'000), 60e12 / 6.5e9, 1);
  EXPECT_NEAR(few.cpu_share + few.stream_share, 1, 1e-12);
  MachineRates slow = r;  // a CPU that is only in the way
  slow.cpu_overlapped_bytes_per_s = 1e9;
  slow.pcie_overlapped_bytes_per_s = 15e9;
  EXPECT_EQ(split_prefill(slow, load, 4096).stream_share, 1);
}

TEST(PrefillSplit, EverythingResidentCostsNoTransfer) {
  PrefillLoad load = qwen3_next();
  load.cached_share = 1;
  EXPECT_NEAR(split_prefill(rates(50e9, 25e9), load, 512).seconds, 512 * 6.5e9 / 60e12, 1e-9);
}

}  // namespace
}  // namespace hotset
