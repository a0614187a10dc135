// SPDX-License-Identifier: Apache-2.0
// Machines of several kinds are played here, with noise, drift and neighbours: the share that is
// learnt must be nearly as good as the best fixed one, and learning must cost next to nothing.
#include "experts/fetch_share_search.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace hotset {
namespace {

constexpr int kLayers = 48;

// The same numbers everywhere, unlike the standard library's distributions.
class Noise {
 public:
  explicit Noise(uint64_t seed) : state_(seed * 2 + 1) {}
  double uniform() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1p-53;
  }
  double normal() {  // nearly
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }

 private:
  uint64_t state_;
};

// One layer: max(CPU, PCIe) over its missed experts; both read one RAM.
struct Machine {
  std::string name;
  double gpu_s;           // of a step, whatever is missed
  double cpu_expert_s;    // alone
  double pcie_expert_s;   // alone
  double disturbance;     // of the CPU's rate by fetching, at a share of 1
  double missed_a_layer;  // mean
  double missed_noise;    // of a whole step, relative
  double noise = 0.03;
  double bursts = 0.01;  // of steps that take half as long again
  double drift = 0;      // of the CPU's speed, slow and periodic

  [[nodiscard]] double layer_s(double share, double missed, double cpu_factor) const {
    const double fetched = std::round(share * missed);
    const double on_cpu = missed - fetched;
    const double cpu_s =
        on_cpu * cpu_expert_s * cpu_factor * (1 + disturbance * fetched / std::max(1.0, missed));
    const double pcie_s = fetched == 0 ? 0 : 20e-6 + fetched * pcie_expert_s;
    return std::max(cpu_s, pcie_s) + (fetched > 0 ? 4e-6 : 0);
  }
  // A step at this share; `at`: steps so far. Layers miss the mean or one more.
  [[nodiscard]] double step_s(double share, int64_t at, int64_t missed) const {
    const double factor = 1 + drift * std::sin(static_cast<double>(at) / 300);
    const double each = std::floor(static_cast<double>(missed) / kLayers);
    const double with_more = static_cast<double>(missed) - each * kLayers;
    return gpu_s + (kLayers - with_more) * layer_s(share, each, factor) +
           with_more * layer_s(share, each + 1, factor);
  }
  [[nodiscard]] double best_share() const {
    double best = 0, least = std::numeric_limits<double>::max();
    for (int i = 0; i <= 16; ++i) {
      const double seconds =
          step_s(i / 16.0, 0, static_cast<int64_t>(std::lround(kLayers * missed_a_layer)));
      if (seconds < least) best = i / 16.0;
      least = std::min(least, seconds);
    }
    return best;
  }
};

struct Played {
  double cost = 0;   // of all steps, over those of the best fixed share
  double end = 0;    // of a usual step at the share settled on, likewise
  double share = 0;  // that was settled on
  double tried = 0;  // share of steps with another than the settled share
};

Played play(const Machine& m, uint64_t seed, int64_t num_steps, FetchShareSearch& search) {
  Noise noise(seed);
  const double best = m.best_share();
  double total = 0, best_total = 0;
  int64_t num_tried = 0;
  for (int64_t at = 0; at < num_steps; ++at) {
    const double miss_factor = std::max(0.0, 1 + m.missed_noise * noise.normal());
    const int64_t missed = std::lround(kLayers * m.missed_a_layer * miss_factor);
    double factor = std::exp(m.noise * noise.normal());
    if (noise.uniform() < m.bursts) factor *= 1.5;
    const double seconds = m.step_s(search.share(), at, missed) * factor;
    num_tried += search.share() != search.settled() ? 1 : 0;
    total += seconds;
    best_total += m.step_s(best, at, missed) * factor;
    search.step_took(seconds, missed);
  }
  const auto usual = static_cast<int64_t>(std::lround(kLayers * m.missed_a_layer));
  return {.cost = total / best_total - 1,
          .end = m.step_s(search.settled(), 0, usual) / m.step_s(best, 0, usual) - 1,
          .share = search.settled(),
          .tried = static_cast<double>(num_tried) / static_cast<double>(num_steps)};
}

FetchLimits limits_of(const Machine& m) {
  return {.expert_s = m.pcie_expert_s, .max_fetched = 24.0 * kLayers};
}

// Seconds of an expert: 1.6 MB at 125 GB/s is 13 µs, at 50 GB/s 32 µs.
std::vector<Machine> machines() {
  return {
      {"a fast CPU that suffers beside PCIe", 2.9e-3, 13e-6, 32e-6, 1.6, 6, 0.04},
      {"a fast CPU with many tokens", 8e-3, 9.5e-6, 32e-6, 0.6, 95, 0.02},
      {"eight threads", 2.9e-3, 20e-6, 32e-6, 0.5, 6, 0.04},
      {"a desktop", 6e-3, 32e-6, 67e-6, 0.25, 6, 0.06},
      {"a slow CPU beside PCIe 5", 3e-3, 90e-6, 32e-6, 0.1, 6, 0.04},
      {"few misses, another number in every step", 4e-3, 32e-6, 67e-6, 0.25, 1.4, 0.5},
      {"a slow bus", 3e-3, 15e-6, 250e-6, 0.2, 6, 0.04},
      {"noisy neighbours", 2.9e-3, 20e-6, 32e-6, 0.5, 6, 0.04, 0.08, 0.05},
      {"a rate that drifts", 2.9e-3, 13e-6, 32e-6, 1.6, 6, 0.04, 0.03, 0.01, 0.15},
      {"a slow CPU whose rate drifts", 3e-3, 60e-6, 40e-6, 0.2, 6, 0.04, 0.03, 0.01, 0.15},
  };
}

// 4,000 steps to learn in; the 16,000 after them, trials included, against the best fixed share.
TEST(FetchShareSearch, EndsNearTheBestFixedShare) {
  for (const Machine& machine : machines()) {
    double worst_end = 0, worst_cost = 0, mean_tried = 0;
    constexpr uint64_t kSeeds = 10;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      FetchShareSearch search(limits_of(machine));
      worst_end = std::max(worst_end, play(machine, seed, 4000, search).end);
      const Played later = play(machine, seed + 1000, 16000, search);
      worst_cost = std::max(worst_cost, later.cost);
      mean_tried += later.tried / kSeeds;
    }
    fmt::print("{}: best {:.3f}, at the end {:.2f} % slower, steps {:.2f} %, {:.1f} % tried\n",
               machine.name, machine.best_share(), 100 * worst_end, 100 * worst_cost,
               100 * mean_tried);
    EXPECT_LE(worst_end, 0.03) << machine.name;
    EXPECT_LE(worst_cost, 0.02) << machine.name;
    EXPECT_LE(mean_tried, machine.drift == 0 ? 0.05 : 0.15) << machine.name;
  }
}

// What it costs from the first step on where nothing is to be gained, and what is left to gain
// after so few steps where there is something.
TEST(FetchShareSearch, LearnsInTheFirstHundredsOfSteps) {
  for (const Machine& machine : machines()) {
    const auto usual = std::lround(kLayers * machine.missed_a_layer);
    const double none =
        machine.step_s(0, 0, usual) / machine.step_s(machine.best_share(), 0, usual) - 1;
    double mean = 0, worst_end = 0;
    constexpr uint64_t kSeeds = 10;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      FetchShareSearch search(limits_of(machine));
      mean += play(machine, seed, 256, search).cost / kSeeds;
      worst_end = std::max(worst_end, play(machine, seed + 50, 512, search).end);
    }
    fmt::print("{}: 256 steps {:.2f} % slower than the best share, without fetching {:.2f} %\n",
               machine.name, 100 * mean, 100 * none);
    EXPECT_LE(mean, 0.02 + none / 2) << machine.name;
    EXPECT_LE(worst_end, 0.02 + none / 3) << machine.name;
  }
}

// The CPU gets slower for good, say because it is hot; steps say so at once. When it is fast again
// they do not, being bound by PCIe: the next round of trials finds out.
TEST(FetchShareSearch, LooksAgainWhenTheMachineChanges) {
  const Machine fast{"", 3e-3, 15e-6, 80e-6, 0.3, 6, 0.04};
  Machine slow = fast;
  slow.cpu_expert_s *= 3;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    FetchShareSearch search(limits_of(fast));
    play(fast, seed, 40000, search);
    EXPECT_LE(play(slow, seed, 2000, search).end, 0.03);
    EXPECT_GT(search.settled(), 0.2);
    play(slow, seed, 20000, search);
    EXPECT_LE(play(fast, seed, 6000, search).end, 0.03);
    EXPECT_LT(search.settled(), 0.1);
  }
}

// A machine on which fetching costs nothing: the limits alone hold it back.
TEST(FetchShareSearch, StaysBelowWhatPcieCouldBring) {
  const Machine dream{"", 1e-3, 20e-6, 0, 0, 10, 0.02};
  FetchShareSearch room({.expert_s = 0, .max_fetched = 3 * kLayers});
  EXPECT_LE(play(dream, 1, 5000, room).share, 0.3);
  FetchShareSearch slow_bus({.expert_s = 100e-6, .max_fetched = 24 * kLayers});
  double highest = 0;
  for (int64_t at = 0; at < 20000; ++at) {
    const double seconds = 10e-3 * (1 - 0.5 * slow_bus.share());  // for 480 missed ones
    highest = std::max(highest, slow_bus.share() * 480 * 100e-6 / seconds);
    slow_bus.step_took(seconds, 480);
  }
  EXPECT_LE(highest, 1.2);  // of the step: the limit is set by what steps took before the trial
  EXPECT_GT(slow_bus.settled(), 0.1);
}

TEST(FetchShareSearch, NothingIsTriedWithoutMisses) {
  FetchShareSearch search({.expert_s = 30e-6, .max_fetched = 24 * kLayers});
  for (int i = 0; i < 5000; ++i) {
    EXPECT_EQ(search.share(), 0);
    search.step_took(4e-3, 0);
  }
}

TEST(FetchShareSearch, NothingIsTriedWithFewMisses) {
  FetchShareSearch search({.expert_s = 30e-6, .max_fetched = 24 * kLayers, .min_missed = kLayers});
  for (int i = 0; i < 5000; ++i) {
    EXPECT_EQ(search.share(), 0);
    search.step_took(4e-3 * (1 - search.share()), 20 + i % 20);
  }
  for (int i = 0; i < 5000; ++i) search.step_took(8e-3 * (1 - search.share()), 288);
  EXPECT_GT(search.settled(), 0);
}

// Where a step with fetches can't be made, all but one step of each trial work.
TEST(FetchShareSearch, ATrialWhoseStepFailsIsOver) {
  FetchShareSearch search({.expert_s = 30e-6, .max_fetched = 24 * kLayers});
  int64_t num_failed = 0;
  for (int64_t at = 0; at < 20000; ++at) {
    if (search.share() > 0) {
      num_failed += 1;
      search.step_failed();
      EXPECT_EQ(search.share(), 0) << "the next step works";
    } else {
      search.step_failed();  // another failure, which says nothing about shares
      search.step_took(7e-3, 288);
    }
  }
  EXPECT_GE(num_failed, 3);
  EXPECT_LE(num_failed, 40);
  EXPECT_EQ(search.settled(), 0);
}

// Clocks that stand still, steps without misses and absurd times leave nothing behind.
TEST(FetchShareSearch, OddStepsDoNotSpoilIt) {
  const Machine slow{"", 1e-4, 90e-6, 32e-6, 0.1, 6, 0.04};  // misses are all of a step
  for (const double odd : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::denorm_min(), 1e-30, 1e6}) {
    FetchShareSearch search(limits_of(slow));
    Noise noise(1);
    for (int64_t at = 0; at < 2000; ++at) {
      const bool none_missed = noise.uniform() < 0.3;
      const int64_t missed = none_missed ? 0 : 288;
      const double usual_s = slow.step_s(search.share(), at, missed);
      search.step_took(noise.uniform() < 0.3 ? odd : usual_s, missed);
      ASSERT_TRUE(search.share() >= 0 && search.share() <= 1) << odd;
    }
    EXPECT_LE(play(slow, 2, 20000, search).end, 0.05) << odd;
  }
}

TEST(FetchShareSearch, ClassesOfTokens) {
  EXPECT_EQ(fetch_class(1), 0);
  EXPECT_EQ(fetch_class(2), 1);
  EXPECT_EQ(fetch_class(4), 1);
  EXPECT_EQ(fetch_class(5), 2);
  EXPECT_EQ(fetch_class(16), kNumFetchClasses - 1);
}

}  // namespace
}  // namespace hotset
