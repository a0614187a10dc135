// SPDX-License-Identifier: Apache-2.0
// Sampling from the largest logits alone. Everything that is not listed has at most the score
// `cut`, whatever it is: penalties, masks and negative biases only lower scores. So whoever is
// certain to be above the cut is in the same place as among all candidates, and when those are all
// that the filters would keep, the filters and the draw do the same arithmetic on the same list.
#include <algorithm>
#include <cmath>
#include <limits>

#include "sampling/sampler.h"

namespace hotset {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

bool larger_score(const Candidate& a, const Candidate& b) {
  return a.score > b.score;
}

}  // namespace

// top_p without top_k needs the sum over all tokens, log-probabilities too; a neutral setting draws
// from all of them.
bool Sampler::can_sample_head() const {
  if (params_.num_logprobs || history_.can_raise()) return false;
  const auto raises = [](const LogitBias& entry) { return entry.bias > 0; };
  if (std::any_of(params_.logit_bias.begin(), params_.logit_bias.end(), raises)) return false;
  if (params_.temperature == 0 || params_.top_k > 0) return true;
  return params_.top_p >= 1 && params_.min_p > 0;
}

Result<std::optional<SampledToken>> Sampler::sample_head(const LogitsHead& head,
                                                         SamplerScratch& scratch) {
  if (!head.all_finite) return fail(not_finite());
  if (!can_sample_head()) return std::nullopt;
  list_head(head, scratch.candidates);
  const std::optional<int32_t> token = choose_in_head(head.cut, scratch.candidates);
  if (!token) return std::nullopt;
  remember(*token);
  return SampledToken{.token = *token, .logprob = 0, .top_logprobs = {}};
}

// As shape_scores() does it.
float Sampler::shaped(int32_t token, float logit) const {
  float score = history_.penalized(token, logit);
  for (const LogitBias& entry : params_.logit_bias) {
    if (entry.token == token) score += entry.bias;
  }
  if (num_sampled_ < params_.min_tokens &&
      std::find(ending_ids_.begin(), ending_ids_.end(), token) != ending_ids_.end()) {
    return kMasked;
  }
  return score;
}

// Scores above the cut, in any order.
void Sampler::list_head(const LogitsHead& head, std::vector<Candidate>& candidates) const {
  candidates.clear();
  for (const LogitsHead::Entry& entry : head.largest) {
    if (entry.logit <= head.cut) continue;
    const float score = shaped(entry.token, entry.logit);
    if (score > head.cut) candidates.push_back({entry.token, score});
  }
}

std::optional<int32_t> Sampler::choose_in_head(float cut,
                                               std::vector<Candidate>& candidates) const {
  if (candidates.empty()) return std::nullopt;
  if (params_.temperature == 0) {
    return std::min_element(candidates.begin(), candidates.end(),
                            [](const Candidate& a, const Candidate& b) {
                              return a.score > b.score || (a.score == b.score && a.token < b.token);
                            })
        ->token;
  }
  const auto temperature = static_cast<float>(params_.temperature);
  for (Candidate& candidate : candidates) candidate.score /= temperature;
  const float scaled_cut = cut / temperature;  // scores above the cut may have become equal to it
  const auto k = static_cast<size_t>(std::max<int64_t>(0, params_.top_k));
  if (k > 0) {
    if (candidates.size() < k) return std::nullopt;
    const auto edge = candidates.begin() + static_cast<std::ptrdiff_t>(k) - 1;
    std::nth_element(candidates.begin(), edge, candidates.end(), larger_score);
    if (edge->score <= scaled_cut) return std::nullopt;
    keep_top_k(params_.top_k, candidates);
  } else {
    const float best = std::min_element(candidates.begin(), candidates.end(), larger_score)->score;
    const double at_cut = std::exp(static_cast<double>(scaled_cut) - static_cast<double>(best));
    if (at_cut >= params_.min_p * (1 - 1e-12)) return std::nullopt;
    keep_min_p(params_.min_p, candidates);
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  keep_top_p(params_.top_p, candidates);
  keep_min_p(params_.min_p, candidates);
  return draw(candidates);
}

}  // namespace hotset
