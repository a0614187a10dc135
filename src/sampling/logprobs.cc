// SPDX-License-Identifier: Apache-2.0
#include "sampling/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace hotset {

double log_sum_exp(std::span<const float> logits) {
  const double best = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit) - best);
  return best + std::log(total);
}

std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, double log_normalizer,
                                       size_t n) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  n = std::min(n, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n), ids.end(),
                    [&](int32_t a, int32_t b) {
                      const float x = logits[static_cast<size_t>(a)];
                      const float y = logits[static_cast<size_t>(b)];
                      return x > y || (x == y && a < b);
                    });
  std::vector<TokenLogprob> top(n);
  for (size_t i = 0; i < n; ++i) {
    const double logit = logits[static_cast<size_t>(ids[i])];
    top[i] = {ids[i], static_cast<float>(logit - log_normalizer)};
  }
  return top;
}

}  // namespace hotset
