// SPDX-License-Identifier: Apache-2.0
// Rates that start wrong come to those of a machine that is played here.
#include "experts/measured_rates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace hotset {
namespace {

constexpr ExpertCost kExpert = {.bytes = 1'622'016, .flops_per_token = 6.29e6};
constexpr MachineRates kStart = {.cpu_bytes_per_s = 100e9,
                                 .cpu_overlapped_bytes_per_s = 100e9,
                                 .pcie_bytes_per_s = 50e9,
                                 .pcie_overlapped_bytes_per_s = 50e9,
                                 .cpu_flops = 4e12,
                                 .gpu_flops = 1e15,
                                 .handshake_s = 20e-6,
                                 .fetch_s = 20e-6};

struct Machine {
  double cpu_bytes_per_s, pcie_bytes_per_s, cpu_flops;

  [[nodiscard]] double cpu_s(std::span<const int32_t> tokens) const {
    double s = kStart.handshake_s;
    for (const int32_t t : tokens) {
      s += std::max(static_cast<double>(kExpert.bytes) / cpu_bytes_per_s,
                    t * kExpert.flops_per_token / cpu_flops);
    }
    return s;
  }
};

// Splits layer after layer; the two sides' times in the last one.
MissSplit play(MeasuredRates& rates, const Machine& machine, int32_t tokens_each, int layers) {
  MissSplit last;
  const std::vector<int32_t> tokens(300, tokens_each);
  for (int layer = 0; layer < layers; ++layer) {
    const MissSplit split = split_misses(rates.now(), kExpert, tokens, 0);
    const auto on_cpu = std::span(tokens).subspan(static_cast<size_t>(split.num_fetched));
    const int64_t bytes = split.num_fetched * kExpert.bytes;
    last = {.num_fetched = split.num_fetched,
            .cpu_s = machine.cpu_s(on_cpu),
            .fetch_s = static_cast<double>(bytes) / machine.pcie_bytes_per_s};
    rates.cpu_took(kExpert, on_cpu, split.num_fetched > 0, last.cpu_s);
    rates.fetch_took(bytes, last.fetch_s);
  }
  return last;
}

TEST(MeasuredRates, BothSidesEndTogetherAfterAPrompt) {
  for (const Machine& machine :
       {Machine{140e9, 43e9, 4e12}, {40e9, 12e9, 1e12}, {100e9, 25e9, 20e12}}) {
    for (const int32_t tokens : {1, 10, 40}) {
      MeasuredRates rates(kStart);
      const MissSplit split = play(rates, machine, tokens, 48);
      EXPECT_NEAR(split.cpu_s, split.fetch_s, 0.05 * split.cpu_s) << tokens << " tokens each";
    }
  }
}

TEST(MeasuredRates, OneLayerThatWasPutOffChangesLittle) {
  MeasuredRates rates(kStart);
  const Machine machine{100e9, 50e9, 4e12};
  const int32_t before = play(rates, machine, 1, 10).num_fetched;
  const std::vector<int32_t> tokens(200, 1);
  rates.cpu_took(kExpert, tokens, true, 3600);
  EXPECT_NEAR(rates.now().cpu_overlapped_bytes_per_s, 100e9 / 1.42, 1e9);
  EXPECT_NEAR(play(rates, machine, 1, 20).num_fetched, before, 3);
}

TEST(MeasuredRates, NothingIsLearntFromNothing) {
  MeasuredRates rates(kStart);
  rates.cpu_took(kExpert, {}, true, 1.0);
  rates.fetch_took(0, 1.0);
  rates.fetch_took(100, 0.0);
  EXPECT_EQ(rates.now().cpu_overlapped_bytes_per_s, kStart.cpu_overlapped_bytes_per_s);
  EXPECT_EQ(rates.now().pcie_overlapped_bytes_per_s, kStart.pcie_overlapped_bytes_per_s);
}

}  // namespace
}  // namespace hotset
