// SPDX-License-Identifier: Apache-2.0
#include "experts/speed_model.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace hotset {
namespace {

struct CurvePoint {
  double share, hit_rate;
};
constexpr CurvePoint kHitCurve[] = {{0, 0},        {0.06, 0.435}, {0.12, 0.62}, {0.18, 0.72},
                                    {0.24, 0.789}, {0.33, 0.85},  {1, 1}};

double miss_rate_bytes_per_s(const MachineRates& rates, MissPath path) {
  switch (path) {
    case MissPath::kCpu:
      return rates.cpu_bytes_per_s;
    case MissPath::kPcie:
      return rates.pcie_bytes_per_s;
    case MissPath::kSplit:
      break;
  }
  return std::min(rates.host_bytes_per_s,
                  rates.cpu_overlapped_bytes_per_s + rates.pcie_overlapped_bytes_per_s);
}

}  // namespace

DecodeEstimate estimate_decode(const MachineRates& rates, const DecodeLoad& load, double hit_rate,
                               double insertion_bytes, MissPath path) {
  const double touched = load.touched_bytes();
  const double missed = (1.0 - hit_rate) * touched;
  DecodeEstimate out;
  out.gpu_s = (load.dense_bytes + load.state_kv_bytes) / rates.gpu_bytes_per_s +
              load.num_kernels * rates.node_s;
  out.sync_s = load.num_layers * rates.handshake_s * (1.0 - std::pow(hit_rate, load.top_k));
  out.hot_s = hit_rate * touched / rates.gpu_bytes_per_s;
  out.miss_s = missed / miss_rate_bytes_per_s(rates, path);
  if (insertion_bytes > 0) {
    out.miss_s = std::max({out.miss_s, (missed + insertion_bytes) / rates.host_bytes_per_s,
                           insertion_bytes / rates.pcie_bytes_per_s});
  }
  return out;
}

double expected_decode_tok_s(const MachineRates& rates, const DecodeLoad& load, double hit_rate) {
  return estimate_decode(rates, load, hit_rate, 0, MissPath::kSplit).tok_s();
}

double expected_hit_rate(double cached_share) {
  const double share = std::clamp(cached_share, 0.0, 1.0);
  const auto* const upper =
      std::find_if(std::begin(kHitCurve) + 1, std::end(kHitCurve) - 1,
                   [&](const CurvePoint& point) { return share <= point.share; });
  const CurvePoint& lower = *(upper - 1);
  const double t = (share - lower.share) / (upper->share - lower.share);
  return lower.hit_rate + t * (upper->hit_rate - lower.hit_rate);
}

}  // namespace hotset
