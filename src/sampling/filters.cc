// SPDX-License-Identifier: Apache-2.0
#include "sampling/filters.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/check.h"

namespace hotset {
namespace {

bool more_probable(const Candidate& a, const Candidate& b) {
  return a.score > b.score || (a.score == b.score && a.token < b.token);
}

float max_score(std::span<const Candidate> candidates) {
  float best = -std::numeric_limits<float>::infinity();
  for (const Candidate& candidate : candidates) best = std::max(best, candidate.score);
  return best;
}

double weight(const Candidate& candidate, float best) {
  return std::exp(static_cast<double>(candidate.score) - static_cast<double>(best));
}

double total_weight(std::span<const Candidate> candidates, float best) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += weight(candidate, best);
  return total;
}

// One pass with a heap of the k largest so far: for the usual k of 20 to 40 nearly every score of a
// vocabulary is turned away by one comparison.
float kth_largest_score(size_t k, std::span<const Candidate> candidates) {
  std::vector<float> largest(k);  // the smallest of them is at the front
  for (size_t i = 0; i < k; ++i) largest[i] = candidates[i].score;
  std::make_heap(largest.begin(), largest.end(), std::greater<>());
  for (const Candidate& candidate : candidates.subspan(k)) {
    if (candidate.score <= largest.front()) continue;
    std::pop_heap(largest.begin(), largest.end(), std::greater<>());
    largest.back() = candidate.score;
    std::push_heap(largest.begin(), largest.end(), std::greater<>());
  }
  return largest.front();
}

// The least probable candidate that top_p keeps. Looks at the 64 most probable first and at eight
// times more in every further round: real distributions nearly always end in the first.
Candidate find_top_p_edge(double p, std::vector<Candidate> pool) {
  const float best = max_score(pool);
  const double target = p * total_weight(pool, best);
  double mass = 0;
  size_t num_sorted = 0;
  for (size_t head = 64; num_sorted < pool.size(); head *= 8) {
    const size_t end = std::min(pool.size(), num_sorted + head);
    const auto first = pool.begin() + static_cast<std::ptrdiff_t>(num_sorted);
    const auto last = pool.begin() + static_cast<std::ptrdiff_t>(end);
    if (end < pool.size()) std::nth_element(first, last, pool.end(), more_probable);
    std::sort(first, last, more_probable);
    for (; num_sorted < end; ++num_sorted) {
      mass += weight(pool[num_sorted], best);
      if (mass >= target) return pool[num_sorted];
    }
  }
  return pool.back();
}

}  // namespace

void list_candidates(std::span<const float> scores, float temperature,
                     std::vector<Candidate>& candidates) {
  candidates.clear();
  for (size_t id = 0; id < scores.size(); ++id) {
    if (scores[id] == -std::numeric_limits<float>::infinity()) continue;
    candidates.push_back({static_cast<int32_t>(id), scores[id] / temperature});
  }
}

void keep_top_k(int64_t k, std::vector<Candidate>& candidates) {
  if (k <= 0 || static_cast<size_t>(k) >= candidates.size()) return;
  const float edge = kth_largest_score(static_cast<size_t>(k), candidates);
  std::erase_if(candidates, [edge](const Candidate& c) { return c.score < edge; });
}

void keep_top_p(double p, std::vector<Candidate>& candidates) {
  if (p >= 1 || candidates.size() < 2) return;
  const Candidate edge = find_top_p_edge(p, candidates);
  std::erase_if(candidates, [&](const Candidate& c) { return more_probable(edge, c); });
}

void keep_min_p(double min_p, std::vector<Candidate>& candidates) {
  if (min_p <= 0) return;
  const float best = max_score(candidates);
  std::erase_if(candidates,
                [&](const Candidate& c) { return c.score < best && weight(c, best) < min_p; });
}

int32_t draw_candidate(double uniform, std::span<const Candidate> candidates) {
  HS_CHECK(!candidates.empty(), "nothing to draw from");
  const float best = max_score(candidates);
  const double target = uniform * total_weight(candidates, best);
  double mass = 0;
  for (const Candidate& candidate : candidates) {
    mass += weight(candidate, best);
    if (mass > target) return candidate.token;
  }
  return candidates.back().token;  // rounding left the sum a hair short
}

}  // namespace hotset
