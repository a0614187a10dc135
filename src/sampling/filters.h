// SPDX-License-Identifier: Apache-2.0
// Which tokens may be drawn: temperature, then top_k, top_p and min_p in the order and meaning of
// Hugging Face transformers. Every filter works on what the one before left. No full sort of the
// vocabulary: top_k is a selection, and top_p sorts only the head that carries the mass.
//
// A candidate list is always in ascending id order, so a draw does not depend on how it was made.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hotset {

struct Candidate {
  int32_t token = 0;
  float score = 0;
};

// Ids with a score above -inf, divided by the temperature (> 0).
void list_candidates(std::span<const float> scores, float temperature,
                     std::vector<Candidate>& candidates);

// Keeps the ids whose score is at least the k-th largest; ties at the edge stay. k ≤ 0: no change.
void keep_top_k(int64_t k, std::vector<Candidate>& candidates);

// Keeps the smallest set of most probable ids whose mass reaches p, at least one; among equal
// scores the lower id goes in first. p ≥ 1: no change.
void keep_top_p(double p, std::vector<Candidate>& candidates);

// Drops ids less probable than min_p times the most probable one. min_p ≤ 0: no change.
void keep_min_p(double min_p, std::vector<Candidate>& candidates);

// The candidate at `uniform` (in [0, 1)) of the cumulative softmax, walked in ascending id order.
// REQUIRES: not empty.
[[nodiscard]] int32_t draw_candidate(double uniform, std::span<const Candidate> candidates);

}  // namespace hotset
