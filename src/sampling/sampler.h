// SPDX-License-Identifier: Apache-2.0
// Logits → token id, for one sequence. The order is fixed:
//   cut the padded rows → refuse non-finite logits → repetition penalty → frequency and presence
//   penalty → logit_bias → mask end-of-text before min_tokens → greedy, or
//   temperature → top_k → top_p → min_p → draw.
// A penalty state and a draw counter belong to the sequence; the scratch may be shared by all.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "request/logits_head.h"
#include "request/sampling_params.h"
#include "request/token_event.h"
#include "sampling/filters.h"
#include "sampling/penalties.h"

namespace hotset {

// Buffers reused from call to call; one per thread that samples.
struct SamplerScratch {
  std::vector<float> scores;
  std::vector<Candidate> candidates;
};

struct SampledToken {
  int32_t token = 0;
  float logprob = 0;                       // filled when params.num_logprobs is set
  std::vector<TokenLogprob> top_logprobs;  // params.num_logprobs entries
};

class Sampler {
 public:
  // `params` are validated. `ending_ids`: ids that end the answer, masked until min_tokens are out.
  // `num_valid_tokens`: ids from there on are padding and never drawn.
  Sampler(const SamplingParams& params, uint64_t seed, int64_t num_valid_tokens,
          std::vector<int32_t> ending_ids, std::span<const int32_t> prompt_ids);

  // Chooses the next token and remembers it. Fails with "numerical: …" on a NaN or an infinity.
  [[nodiscard]] Result<SampledToken> sample(std::span<const float> logits, SamplerScratch& scratch);

  // The same token from the largest logits alone, or nothing where a smaller one could matter: then
  // nothing has changed, and sample() is to be asked with all of them.
  [[nodiscard]] Result<std::optional<SampledToken>> sample_head(const LogitsHead& head,
                                                                SamplerScratch& scratch);
  // Could sample_head() find a token at all?
  [[nodiscard]] bool can_sample_head() const;

 private:
  void shape_scores(std::span<float> scores) const;
  Result<int32_t> choose(SamplerScratch& scratch) const;
  [[nodiscard]] Error not_finite() const;
  [[nodiscard]] int32_t draw(std::span<const Candidate> candidates) const;
  void remember(int32_t token);

  // sampling/sampler_head.cc
  [[nodiscard]] float shaped(int32_t token, float logit) const;
  void list_head(const LogitsHead& head, std::vector<Candidate>& candidates) const;
  [[nodiscard]] std::optional<int32_t> choose_in_head(float cut,
                                                      std::vector<Candidate>& candidates) const;

  SamplingParams params_;
  uint64_t seed_;
  int64_t num_valid_tokens_;
  std::vector<int32_t> ending_ids_;
  TokenHistory history_;
  int64_t num_sampled_ = 0;
};

}  // namespace hotset
