// SPDX-License-Identifier: Apache-2.0
// One step: new requests come in, cancelled ones leave, and either one prompt moves on by a piece
// or the answers under way by one token each, together, so that they share what is read of the
// weights. More answers than the model takes together have their turns in groups. What a sequence
// says does not depend on its neighbours: each has its own state and its own random numbers, and a
// row of a batch has the bits that it has alone (experts of floats on a GPU: nearly;
// token_model.h).
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

// One error may end several requests.
Error copy_of(const Error& error) noexcept {
  try {
    return error;
  } catch (const std::bad_alloc&) {
    return {error.kind, "out of memory"};
  }
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
  choose();
  if (chosen_.empty()) end_latest();
  const Status extended = extend_chosen();
  for (size_t row = 0; row < chosen_.size(); ++row) {
    const Status said = extended ? say_next(*chosen_[row], row) : Status();
    if (!extended || !said) end_by(extended ? said.error() : extended.error(), *chosen_[row]);
  }
  std::erase_if(running_, [](const auto& sequence) { return sequence->is_over; });
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
// and fails when it would have to wait for nothing. Answers under way that need more come first.
void Engine::admit_waiting() {
  if (is_short_of_room_ && !running_.empty()) return;
  while (!waiting_.empty() && running_.size() < options_.max_num_seqs) {
    Sequence& sequence = *waiting_.front();
    if (Status status = open_state(sequence); !status) {
      if (status.error().kind == ErrorKind::kResource && !running_.empty()) return;
      end_by(status.error(), sequence);
      waiting_.pop_front();
      continue;
    }
    sequence.started_s = now_s();
    running_.splice(running_.end(), waiting_, waiting_.begin());
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
  const int64_t at_first =
      sequence.request.params.max_tokens ? sequence.max_output_tokens : options_.first_room;
  const int64_t num_expected =
      std::min(sequence.num_prompt_tokens() + at_first, sequence.max_total_tokens());
  sequence.num_reserved = num_expected;
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

// Room for one more token. An answer of no stated length gets it as it grows; while there is none,
// it sits out and the others go on.
bool Engine::has_room(Sequence& sequence) noexcept {
  if (sequence.num_fed() < sequence.num_reserved) return true;
  try {
    while (!model_.reserve(*sequence.state, sequence.num_fed() + 1)) {
      if (!kept_.drop_oldest()) return false;
    }
  } catch (const std::bad_alloc&) {
    return false;
  }
  sequence.num_reserved = sequence.num_fed() + 1;
  return true;
}

// When all answers wait for room, the one that began last has said what it could.
void Engine::end_latest() {
  const auto began_earlier = [](const auto& a, const auto& b) {
    return a->started_s < b->started_s;
  };
  finish(**std::max_element(running_.begin(), running_.end(), began_earlier),
         FinishReason::kLength);
}

// The sequences of this step: one prompt, or as many answers as the model takes together. While
// there are both, a piece of a prompt and a token of the answers follow each other, so that neither
// waits for the other's end. None when there are only answers, and room for none of them.
void Engine::choose() {
  const auto num_prompts = static_cast<size_t>(std::count_if(
      running_.begin(), running_.end(), [](const auto& s) { return s->is_prefilling(); }));
  const bool has_answers = num_prompts < running_.size();
  if (!has_answers) is_short_of_room_ = false;
  chosen_.clear();
  if (has_answers && (num_prompts == 0 || last_was_prompt_)) take_answers();
  last_was_prompt_ = chosen_.empty() && num_prompts > 0;
  if (last_was_prompt_) take_prompt();
}

// Who is taken has the next turn after all others.
void Engine::take_prompt() {
  const auto first = std::find_if(running_.begin(), running_.end(),
                                  [](const auto& s) { return s->is_prefilling(); });
  chosen_.push_back(first->get());
  running_.splice(running_.end(), running_, first);
}

void Engine::take_answers() {
  is_short_of_room_ = false;
  auto next = running_.begin();
  for (size_t i = running_.size(); i > 0 && chosen_.size() < max_batch_; --i) {
    const auto here = next++;
    if ((*here)->is_prefilling()) continue;
    if (!has_room(**here)) {
      is_short_of_room_ = true;
      continue;
    }
    chosen_.push_back(here->get());
    running_.splice(running_.end(), running_, here);
  }
}

// One pass over the weights.
Status Engine::extend_chosen() {
  if (chosen_.empty()) return {};
  const auto takes_head = [](const Sequence* s) { return s->sampler.can_sample_head(); };
  const bool wants_heads = std::any_of(chosen_.begin(), chosen_.end(), takes_head);
  has_heads_ = false;
  try {
    return last_was_prompt_ ? extend_prompt(*chosen_.front(), wants_heads)
                            : extend_answers(wants_heads);
  } catch (const std::exception& error) {
    return fail(error_of(error));
  }
}

Status Engine::extend_prompt(Sequence& sequence, bool wants_head) {
  const auto ids = sequence.next_ids(model_.prefill_chunk());
  if (wants_head) {
    HS_ASSIGN_OR_RETURN(
        has_heads_, model_.extend_head(*sequence.state, ids, options_.num_valid_tokens, heads_[0]));
  }
  return has_heads_ ? Status() : model_.extend(*sequence.state, ids, logits_of(0));
}

Status Engine::extend_answers(bool wants_heads) {
  steps_.clear();
  for (const Sequence* s : chosen_) steps_.push_back({s->state.get(), s->last_token});
  if (wants_heads) {
    HS_ASSIGN_OR_RETURN(has_heads_,
                        model_.extend_batch_heads(steps_, options_.num_valid_tokens,
                                                  std::span(heads_).first(steps_.size())));
  }
  const size_t num_logits = steps_.size() * static_cast<size_t>(model_.vocab_size());
  return has_heads_ ? Status() : model_.extend_batch(steps_, std::span(logits_).first(num_logits));
}

// After a sequence was extended: what it was fed and, once its prompt is through, its next token.
Status Engine::say_next(Sequence& sequence, size_t row) {
  try {
    const auto ids = sequence.next_ids(model_.prefill_chunk());
    sequence.fed_ids.insert(sequence.fed_ids.end(), ids.begin(), ids.end());
    if (sequence.is_prefilling()) return {};
    HS_ASSIGN_OR_RETURN(SampledToken sampled, next_token(sequence, row));
    deliver(sequence, std::move(sampled));
    return {};
  } catch (const std::exception& error) {
    return fail(error_of(error));
  }
}

// From the largest logits, or from all of them where those do not settle it.
Result<SampledToken> Engine::next_token(Sequence& sequence, size_t row) {
  if (has_heads_) {
    HS_ASSIGN_OR_RETURN(std::optional<SampledToken> sampled,
                        sequence.sampler.sample_head(heads_[row], scratch_));
    if (sampled) return std::move(*sampled);
    HS_RETURN_IF_ERROR(model_.read_logits(static_cast<int64_t>(row), logits_of(row)));
  }
  return sequence.sampler.sample(logits_of(row), scratch_);
}

void Engine::deliver(Sequence& sequence, SampledToken sampled) {
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
  } else if (!sequence.stream->push(std::move(event))) {
    finish(sequence, FinishReason::kCancelled);  // nobody reads
  }
}

void Engine::end_by(const Error& error, Sequence& sequence) noexcept {
  if (error.kind == ErrorKind::kDeviceLost) lose_device(copy_of(error));
  finish(sequence, FinishReason::kError, copy_of(error));
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
  sequence.is_over = true;
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
