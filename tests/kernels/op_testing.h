// SPDX-License-Identifier: Apache-2.0
// What the tests of the operations share: repeatable numbers, comparison that names the worst
// element, and a run over every instruction set this machine has.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/queue.h"

namespace hotset::testing {

class Numbers {
 public:
  explicit Numbers(uint64_t seed) : engine_(seed) {}
  std::vector<float> normal(int64_t n, float deviation = 1.0f, float mean = 0.0f) {
    std::normal_distribution<float> draw(mean, deviation);
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = draw(engine_);
    return values;
  }
  std::vector<float> uniform(int64_t n, float low, float high) {
    std::uniform_real_distribution<float> draw(low, high);
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = draw(engine_);
    return values;
  }

 private:
  std::mt19937_64 engine_;
};

// |actual − expected| <= tolerance · (1 + |expected|), for every element.
inline void expect_close(std::span<const float> actual, std::span<const double> expected,
                         double tolerance, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  size_t worst = 0;
  double worst_error = -1.0;
  for (size_t i = 0; i < actual.size(); ++i) {
    double error = std::abs(actual[i] - expected[i]) / (1.0 + std::abs(expected[i]));
    if (std::isnan(error)) error = INFINITY;
    if (error > worst_error) worst_error = error, worst = i;
  }
  EXPECT_LE(worst_error, tolerance)
      << what << ": worst element " << worst << " of " << actual.size() << ": " << actual[worst]
      << ", expected " << expected[worst];
}

// Σ(actual − expected)² / Σ expected²
inline double nmse(std::span<const float> actual, std::span<const double> expected) {
  double error = 0.0, power = 0.0;
  for (size_t i = 0; i < actual.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    power += expected[i] * expected[i];
  }
  return error / (power > 0.0 ? power : 1.0);
}

inline void expect_same_bits(std::span<const float> a, std::span<const float> b,
                             const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i], b[i]) << what << ": element " << i << " of " << a.size();
  }
}

inline std::vector<double> widened(std::span<const float> values) {
  return {values.begin(), values.end()};
}

// body(queue, label) with one thread, for each instruction set.
template <typename Body>
void for_each_isa(const Body& body) {
  for (const cpu::Isa isa : cpu::available_isas()) {
    cpu::WorkerPool pool(1, false);
    cpu::Queue queue{.pool = pool, .isa = isa};
    SCOPED_TRACE(cpu::isa_name(isa));
    body(queue, std::string(cpu::isa_name(isa)));
  }
}

// The result of compute(queue) must have the same bits on 1, 2, 3 and 7 threads.
template <typename Compute>
void expect_thread_invariance(const Compute& compute, const std::string& what) {
  for (const cpu::Isa isa : cpu::available_isas()) {
    std::vector<float> alone;
    for (const int threads : {1, 2, 3, 7}) {
      cpu::WorkerPool pool(threads, false, 0);
      cpu::Queue queue{.pool = pool, .isa = isa};
      const std::vector<float> result = compute(queue);
      if (threads == 1) {
        alone = result;
      } else {
        expect_same_bits(result, alone,
                         what + ", " + cpu::isa_name(isa) + ", threads " + std::to_string(threads));
      }
    }
  }
}

}  // namespace hotset::testing
