// SPDX-License-Identifier: Apache-2.0
#include "engine/sequence.h"

#include <algorithm>
#include <utility>

namespace hotset {

Sequence::Sequence(Request r, std::shared_ptr<TokenStream> s, Sampler sampler_in)
    : request(std::move(r)), stream(std::move(s)), sampler(std::move(sampler_in)) {
  stats.num_prompt_tokens = num_prompt_tokens();
}

std::span<const int32_t> Sequence::next_ids(int64_t prefill_chunk) const {
  if (!is_prefilling()) return {&last_token, 1};
  const int64_t count =
      std::min(num_prompt_tokens() - num_fed(), std::max<int64_t>(1, prefill_chunk));
  return std::span(request.prompt_ids)
      .subspan(static_cast<size_t>(num_fed()), static_cast<size_t>(count));
}

}  // namespace hotset
