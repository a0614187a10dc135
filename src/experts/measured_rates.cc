// SPDX-License-Identifier: Apache-2.0
#include "experts/measured_rates.h"

#include <algorithm>
#include <cmath>

namespace hotset {
namespace {

constexpr double kWeight = 0.25;  // of the newest measurement: a prompt has some 48 layers
constexpr double kMaxFactor = 4;  // a thread that was put off for long says little

double correction(double predicted_s, double measured_s) {
  return std::pow(std::clamp(predicted_s / measured_s, 1 / kMaxFactor, kMaxFactor), kWeight);
}

}  // namespace

void MeasuredRates::cpu_took(const ExpertCost& cost, std::span<const int32_t> tokens,
                             bool overlapped, double seconds) {
  if (tokens.empty() || seconds <= 0) return;
  const double rate = overlapped ? rates_.cpu_overlapped_bytes_per_s : rates_.cpu_bytes_per_s;
  const double read_s = static_cast<double>(cost.bytes) / rate;
  double read_bound_s = 0, arithmetic_bound_s = 0;
  for (const int32_t t : tokens) {
    const double arithmetic_s = t * cost.flops_per_token / rates_.cpu_flops;
    (arithmetic_s > read_s ? arithmetic_bound_s : read_bound_s) += std::max(read_s, arithmetic_s);
  }
  const double factor = correction(rates_.handshake_s + read_bound_s + arithmetic_bound_s, seconds);
  if (read_bound_s >= arithmetic_bound_s) {
    rates_.cpu_bytes_per_s *= factor;
    rates_.cpu_overlapped_bytes_per_s *= factor;
  } else {
    rates_.cpu_flops *= factor;
  }
}

void MeasuredRates::fetch_took(int64_t bytes, double seconds) {
  if (bytes <= 0 || seconds <= 0) return;
  const double factor =
      correction(static_cast<double>(bytes) / rates_.pcie_overlapped_bytes_per_s, seconds);
  rates_.pcie_bytes_per_s *= factor;
  rates_.pcie_overlapped_bytes_per_s *= factor;
}

}  // namespace hotset
