// SPDX-License-Identifier: Apache-2.0
// A request's running state inside the engine. Only the engine's thread touches it, save for the
// stream, which is made to be shared.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/token_stream.h"
#include "request/request.h"
#include "request/token_model.h"
#include "sampling/sampler.h"

namespace hotset {

struct Sequence {
  Sequence(Request request, std::shared_ptr<TokenStream> stream, Sampler sampler);

  [[nodiscard]] int64_t num_fed() const { return static_cast<int64_t>(fed_ids.size()); }
  [[nodiscard]] int64_t num_prompt_tokens() const {
    return static_cast<int64_t>(request.prompt_ids.size());
  }
  // Prompt and answer at their longest.
  [[nodiscard]] int64_t max_total_tokens() const { return num_prompt_tokens() + max_output_tokens; }
  [[nodiscard]] bool is_prefilling() const { return num_fed() < num_prompt_tokens(); }

  // The ids of the next extend(): a piece of the prompt, or the token sampled last.
  [[nodiscard]] std::span<const int32_t> next_ids(int64_t prefill_chunk) const;

  Request request;
  std::shared_ptr<TokenStream> stream;
  Sampler sampler;
  std::vector<int32_t> ending_ids;  // ids that end the answer (none with ignore_eos alone)
  int64_t max_output_tokens = 0;    // max_tokens cut to what the context leaves
  int64_t num_reserved = 0;  // tokens, prompt and answer together, that the model has promised room
  std::unique_ptr<SequenceState> state;  // null while waiting in the queue
  std::vector<int32_t> fed_ids;          // exactly what `state` has seen
  int32_t last_token = -1;
  bool is_over = false;  // its last event is out; leaves at the end of the step
  RequestStats stats;
  double submitted_s = 0;    // engine clock
  double started_s = 0;      // first work
  double first_token_s = 0;  // 0: none yet
};

}  // namespace hotset
