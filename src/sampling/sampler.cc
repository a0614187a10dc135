// SPDX-License-Identifier: Apache-2.0
#include "sampling/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "base/check.h"
#include "sampling/logprobs.h"
#include "sampling/random.h"

namespace hotset {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

// An exponent of all ones is a NaN or an infinity. Integer compares keep this loop vectorized, so
// the check costs far less than reading the logits from memory.
bool all_finite(std::span<const float> values) {
  uint32_t largest = 0;
  for (const float value : values) {
    largest = std::max(largest, std::bit_cast<uint32_t>(value) & 0x7fffffffu);
  }
  return largest < 0x7f800000u;
}

}  // namespace

Sampler::Sampler(const SamplingParams& params, uint64_t seed, int64_t num_valid_tokens,
                 std::vector<int32_t> ending_ids, std::span<const int32_t> prompt_ids)
    : params_(params),
      seed_(seed),
      num_valid_tokens_(num_valid_tokens),
      ending_ids_(std::move(ending_ids)),
      history_(params, prompt_ids) {}

Result<SampledToken> Sampler::sample(std::span<const float> logits, SamplerScratch& scratch) {
  HS_CHECK(num_valid_tokens_ > 0 && static_cast<size_t>(num_valid_tokens_) <= logits.size(),
           "{} valid tokens, {} logits", num_valid_tokens_, logits.size());
  logits = logits.first(static_cast<size_t>(num_valid_tokens_));
  if (!all_finite(logits)) return fail(not_finite());
  scratch.scores.assign(logits.begin(), logits.end());
  shape_scores(scratch.scores);
  SampledToken out;
  HS_ASSIGN_OR_RETURN(out.token, choose(scratch));
  if (params_.num_logprobs) {
    const double normalizer = log_sum_exp(logits);
    out.logprob = static_cast<float>(logits[static_cast<size_t>(out.token)] - normalizer);
    const auto n = static_cast<size_t>(*params_.num_logprobs);
    if (n > 0) out.top_logprobs = top_logprobs(logits, normalizer, n);
  }
  remember(out.token);
  return out;
}

Error Sampler::not_finite() const {
  return {ErrorKind::kInternal,
          fmt::format("numerical: the model's logits are not finite at output token {}",
                      num_sampled_ + 1)};
}

void Sampler::remember(int32_t token) {
  history_.append_generated(token);
  ++num_sampled_;
}

void Sampler::shape_scores(std::span<float> scores) const {
  history_.apply_penalties(scores);
  for (const LogitBias& entry : params_.logit_bias) {
    if (static_cast<size_t>(entry.token) < scores.size()) {
      scores[static_cast<size_t>(entry.token)] += entry.bias;
    }
  }
  if (num_sampled_ >= params_.min_tokens) return;
  for (const int32_t id : ending_ids_) {
    if (id >= 0 && static_cast<size_t>(id) < scores.size())
      scores[static_cast<size_t>(id)] = kMasked;
  }
}

Result<int32_t> Sampler::choose(SamplerScratch& scratch) const {
  const auto best = std::max_element(scratch.scores.begin(), scratch.scores.end());
  if (*best == kMasked) {
    return fail("min_tokens: every token of the vocabulary ends the answer");
  }
  if (params_.temperature == 0) return static_cast<int32_t>(best - scratch.scores.begin());
  std::vector<Candidate>& candidates = scratch.candidates;
  list_candidates(scratch.scores, static_cast<float>(params_.temperature), candidates);
  keep_top_k(params_.top_k, candidates);
  keep_top_p(params_.top_p, candidates);
  keep_min_p(params_.min_p, candidates);
  return draw(candidates);
}

int32_t Sampler::draw(std::span<const Candidate> candidates) const {
  return draw_candidate(uniform_draw(seed_, static_cast<uint64_t>(num_sampled_)), candidates);
}

}  // namespace hotset
