// SPDX-License-Identifier: Apache-2.0
// The decode model against a table worked out apart from it for three machines.
#include "experts/speed_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace hotset {
namespace {

DecodeLoad qwen3_next() {
  return {.num_layers = 48,
          .num_experts = 512,
          .top_k = 10,
          .expert_bytes = 1'668'294,
          .dense_bytes = 1.15e9,
          .state_kv_bytes = 0.151e9 + 24 * 1024 * 4096.0,
          .num_kernels = 560};
}

MachineRates machine(double gpu, double pcie, double cpu, double host, double handshake,
                     double node) {
  return {.gpu_bytes_per_s = gpu,
          .cpu_bytes_per_s = cpu,
          .cpu_overlapped_bytes_per_s = cpu,
          .pcie_bytes_per_s = pcie,
          .pcie_overlapped_bytes_per_s = pcie,
          .host_bytes_per_s = host,
          .cpu_flops = 4e12,
          .gpu_flops = 60e12,
          .handshake_s = handshake,
          .node_s = node};
}
const MachineRates kDesktop = machine(900e9, 25e9, 66e9, 75e9, 8e-6, 0.8e-6);
const MachineRates kSmall = machine(259e9, 13e9, 66e9, 75e9, 8e-6, 0.8e-6);
const MachineRates kServer = machine(4500e9, 51e9, 106e9, 1e12, 14e-6, 0.7e-6);

// tok/s with every layer waiting for the CPU, as the table was made; it has whole numbers.
double all_layers_wait(const MachineRates& rates, double hit_rate, MissPath path) {
  const DecodeLoad load = qwen3_next();
  const DecodeEstimate e = estimate_decode(rates, load, hit_rate, 0, path);
  return 1.0 / (e.gpu_s + load.num_layers * rates.handshake_s + std::max(e.hot_s, e.miss_s));
}

TEST(SpeedModel, GivesTheTableOfThreeMachines) {
  struct Row {
    const char* name;
    const MachineRates& rates;
    MissPath path;
    double tok_s[6];  // at h = 0, 0.2, 0.4, 0.6, 0.8, 0.9
  };
  const Row rows[] = {
      {"desktop, CPU", kDesktop, MissPath::kCpu, {69, 83, 103, 138, 207, 277}},
      {"desktop, split", kDesktop, MissPath::kSplit, {77, 91, 114, 150, 221, 289}},
      {"small, CPU", kSmall, MissPath::kCpu, {54, 63, 74, 90, 114, 111}},
      {"small, split", kSmall, MissPath::kSplit, {59, 68, 79, 95, 114, 111}},
      {"server, CPU", kServer, MissPath::kCpu, {112, 135, 169, 227, 346, 469}},
      {"server, split", kServer, MissPath::kSplit, {154, 183, 225, 293, 417, 530}},
  };
  const double hit_rates[] = {0, 0.2, 0.4, 0.6, 0.8, 0.9};
  for (const Row& row : rows) {
    for (int i = 0; i < 6; ++i) {
      EXPECT_NEAR(all_layers_wait(row.rates, hit_rates[i], row.path), row.tok_s[i], 1.0)
          << row.name << " at h = " << hit_rates[i];
    }
  }
}

TEST(SpeedModel, LayersOfHitsNeedNoHandshake) {
  const DecodeEstimate none = estimate_decode(kServer, qwen3_next(), 0, 0, MissPath::kSplit);
  EXPECT_DOUBLE_EQ(none.sync_s, 48 * 14e-6);
  const DecodeEstimate most = estimate_decode(kServer, qwen3_next(), 0.9, 0, MissPath::kSplit);
  EXPECT_NEAR(most.sync_s, 48 * 14e-6 * (1 - std::pow(0.9, 10)), 1e-12);
  EXPECT_EQ(estimate_decode(kServer, qwen3_next(), 1, 0, MissPath::kSplit).sync_s, 0);
}

TEST(SpeedModel, InsertionsCostWhatRamAndPcieCanNotHide) {
  const DecodeLoad load = qwen3_next();
  const double missed = 0.2 * load.touched_bytes();
  const auto with = [&](double bytes) {
    return estimate_decode(kDesktop, load, 0.8, bytes, MissPath::kSplit).miss_s;
  };
  EXPECT_NEAR(with(0), missed / 75e9, 1e-9);
  EXPECT_NEAR(with(50e6), (missed + 50e6) / 75e9, 1e-9);  // RAM is the bound
  EXPECT_NEAR(with(400e6), 400e6 / 25e9, 1e-9);           // PCIe is
}

TEST(SpeedModel, HitCurveIsMonotoneAndEndsWhole) {
  EXPECT_EQ(expected_hit_rate(-1), 0);
  EXPECT_EQ(expected_hit_rate(0), 0);
  EXPECT_EQ(expected_hit_rate(1), 1);
  EXPECT_EQ(expected_hit_rate(7), 1);
  EXPECT_NEAR(expected_hit_rate(0.12), 0.62, 1e-12);
  EXPECT_NEAR(expected_hit_rate(0.21), (0.72 + 0.789) / 2, 1e-12);
  double before = -1;
  for (double share = 0; share <= 1.0; share += 0.001) {
    EXPECT_GE(expected_hit_rate(share), before);
    before = expected_hit_rate(share);
  }
}

}  // namespace
}  // namespace hotset
