// SPDX-License-Identifier: Apache-2.0
// One step: new requests come in, cancelled ones leave, and one sequence moves on by one piece of
// its prompt or by one token. Sequences take turns, so a long answer does not hold up a short one,
// and what a sequence says does not depend on its neighbours: each has its own state and its own
// random numbers.
#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include "engine/engine.h"

namespace hotset {
namespace {

// The exception of one sequence, as that sequence's error. The words for a lack of memory are so
// short that a string holds them without asking for any.
Error error_of(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return {ErrorKind::kResource, "out of memory"};
  }
  return {ErrorKind::kInternal, error.what()};
}

}  // namespace

bool Engine::step() {
  take_inbox();
  drop_cancelled();
  admit_waiting();
  if (running_.empty()) return false;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
  }
  running_.splice(running_.end(), running_,
                  running_.begin());  // its turn; others come before again
  Sequence& sequence = *running_.back();
  bool is_over = false;
  if (Status status = advance(sequence, is_over); !status) {
    if (status.error().kind == ErrorKind::kDeviceLost) lose_device(status.error());
    finish(sequence, FinishReason::kError, std::move(status).error());
    is_over = true;
  }
  if (is_over) running_.pop_back();
  return true;
}

void Engine::take_inbox() {
  const std::lock_guard lock(mutex_);
  waiting_.splice(waiting_.end(), inbox_);
}

void Engine::drop_cancelled() {
  const auto drop = [this](const std::unique_ptr<Sequence>& sequence) {
    if (!sequence->stream->is_cancelled()) return false;
    finish(*sequence, FinishReason::kCancelled);
    return true;
  };
  std::erase_if(running_, drop);
  std::erase_if(waiting_, drop);
}

// First come, first served. A request that the model has no room for waits while another one runs,
// and fails when it would have to wait for nothing.
void Engine::admit_waiting() {
  while (!waiting_.empty() && running_.size() < options_.max_num_seqs) {
    Sequence& sequence = *waiting_.front();
    if (Status status = open_state(sequence); !status) {
      if (status.error().kind == ErrorKind::kResource && !running_.empty()) return;
      if (status.error().kind == ErrorKind::kDeviceLost) lose_device(status.error());
      finish(sequence, FinishReason::kError, std::move(status).error());
      waiting_.pop_front();
      continue;
    }
    sequence.started_s = now_s();
    running_.splice(running_.begin(), waiting_, waiting_.begin());
    const std::lock_guard lock(mutex_);
    ++counters_.num_running;
    --counters_.num_waiting;
    counters_.num_prompt_tokens += sequence.stats.num_prompt_tokens;
    counters_.num_cached_tokens += sequence.stats.num_cached_tokens;
  }
}

// Continues a kept sequence when the prompt extends it, else starts anew; other kept ones give way
// when memory is short.
Status Engine::open_state(Sequence& sequence) {
  const int64_t num_expected = sequence.num_prompt_tokens() + sequence.max_output_tokens;
  try {
    if (auto kept = kept_.take_prefix_of(sequence.request.prompt_ids)) {
      return continue_kept(sequence, std::move(*kept), num_expected);
    }
    while (true) {
      auto state = model_.new_sequence(num_expected);
      if (state) {
        sequence.state = std::move(state).value();
        return {};
      }
      if (state.error().kind != ErrorKind::kResource || !kept_.drop_oldest()) {
        return fail(std::move(state).error());
      }
    }
  } catch (const std::exception& error) {
    return fail(error_of(error));
  }
}

// A kept sequence was given room for its last answer, not for this one. What can't get more room
// now goes back, to be found again when another sequence has ended.
Status Engine::continue_kept(Sequence& sequence, KeptSequences::Entry kept, int64_t num_expected) {
  while (true) {
    const Status status = model_.reserve(*kept.state, num_expected);
    if (status) break;
    if (status.error().kind == ErrorKind::kResource && kept_.drop_oldest()) continue;
    kept_.keep(std::move(kept));
    return status;
  }
  sequence.state = std::move(kept.state);
  sequence.fed_ids = std::move(kept.fed_ids);
  sequence.stats.num_cached_tokens = sequence.num_fed();
  return {};
}

Status Engine::advance(Sequence& sequence, bool& is_over) {
  try {
    const auto ids = sequence.next_ids(model_.prefill_chunk());
    bool has_head = false;
    if (sequence.sampler.can_sample_head()) {
      HS_ASSIGN_OR_RETURN(
          has_head, model_.extend_head(*sequence.state, ids, options_.num_valid_tokens, head_));
    }
    if (!has_head) HS_RETURN_IF_ERROR(model_.extend(*sequence.state, ids, logits_));
    sequence.fed_ids.insert(sequence.fed_ids.end(), ids.begin(), ids.end());
    if (sequence.is_prefilling()) return {};
    HS_ASSIGN_OR_RETURN(SampledToken sampled, has_head
                                                  ? sample_head(sequence)
                                                  : sequence.sampler.sample(logits_, scratch_));
    is_over = deliver(sequence, std::move(sampled));
    return {};
  } catch (const std::exception& error) {
    return fail(error_of(error));
  }
}

// From the largest logits, or from all of them where those do not settle it.
Result<SampledToken> Engine::sample_head(Sequence& sequence) {
  HS_ASSIGN_OR_RETURN(std::optional<SampledToken> sampled,
                      sequence.sampler.sample_head(head_, scratch_));
  if (sampled) return std::move(*sampled);
  HS_RETURN_IF_ERROR(model_.read_logits(logits_));
  return sequence.sampler.sample(logits_, scratch_);
}

// True when the answer has ended with this token.
bool Engine::deliver(Sequence& sequence, SampledToken sampled) {
  if (sequence.stats.num_output_tokens == 0) sequence.first_token_s = now_s();
  ++sequence.stats.num_output_tokens;
  sequence.last_token = sampled.token;
  TokenEvent event;
  event.token = sampled.token;
  event.logprob = sampled.logprob;
  event.top_logprobs = std::move(sampled.top_logprobs);
  const auto& ending = sequence.ending_ids;
  if (std::find(ending.begin(), ending.end(), sampled.token) != ending.end()) {
    event.finish = FinishReason::kStop;
  } else if (sequence.stats.num_output_tokens >= sequence.max_output_tokens) {
    event.finish = FinishReason::kLength;
  }
  if (event.finish) {
    finish_with(sequence, std::move(event));
    return true;
  }
  if (sequence.stream->push(std::move(event))) return false;
  finish(sequence, FinishReason::kCancelled);  // nobody reads
  return true;
}

void Engine::finish(Sequence& sequence, FinishReason reason, Error error) noexcept {
  TokenEvent event;
  event.finish = reason;
  event.error = std::move(error);
  finish_with(sequence, std::move(event));
}

void Engine::finish_with(Sequence& sequence, TokenEvent event) noexcept {
  const double now = now_s();
  const bool has_run = sequence.state != nullptr;
  const bool has_output = sequence.stats.num_output_tokens > 0;
  RequestStats& stats = sequence.stats;
  stats.queue_s = (has_run ? sequence.started_s : now) - sequence.submitted_s;
  if (has_run) stats.prefill_s = (has_output ? sequence.first_token_s : now) - sequence.started_s;
  if (has_output) stats.decode_s = now - sequence.first_token_s;
  event.stats = stats;
  if (has_run && event.finish != FinishReason::kError) keep_state(sequence);
  {
    const std::lock_guard lock(mutex_);
    ++counters_.num_ended;
    --(has_run ? counters_.num_running : counters_.num_waiting);
    counters_.num_output_tokens += stats.num_output_tokens;
  }
  sequence.stream->push_last(std::move(event));
}

// For the next message; without memory for that, the next message starts anew.
void Engine::keep_state(Sequence& sequence) noexcept {
  if (sequence.fed_ids.empty()) return;
  try {
    kept_.keep({std::move(sequence.fed_ids), std::move(sequence.state)});
  } catch (const std::bad_alloc&) {
    return;
  }
}

}  // namespace hotset
