// SPDX-License-Identifier: Apache-2.0
// The engine: requests of token ids go in, TokenEvents come out. It owns one thread that repeats
// step() (engine/step.cc); reading that function is reading the engine.
//
// submit() and stop() may be called from any thread. A full inbox is an answer
// (ErrorKind::kResource), not a wait. An error of one request ends that request and no other. The
// model's error in a step that several answers share ends these, because it leaves their states
// half-way; when the device is lost (ErrorKind::kDeviceLost) every request ends with that error and
// later ones are refused with it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/kept_sequences.h"
#include "engine/sequence.h"
#include "engine/token_stream.h"
#include "request/request.h"
#include "request/token_model.h"

namespace hotset {

struct EngineOptions {
  int64_t num_valid_tokens = 0;       // ids of the tokenizer; the model's further rows are padding
  std::vector<int32_t> eos_ids = {};  // end an answer unless the request ignores them
  size_t max_num_seqs = 4;            // sequences that run at once
  size_t max_queued = 64;             // requests that may wait for their turn
  size_t num_kept_sequences = 1;      // ended sequences kept for the next message
  // Room that an answer of no stated length gets before it begins; more comes as it grows. One with
  // max_tokens gets all of it.
  int64_t first_room = 1024;
  uint64_t seed = 0;                     // of requests that bring none; the n-th gets seed + n
  std::function<double()> clock_s = {};  // monotonic seconds; empty: the system's steady clock
};

// Totals since start; a snapshot.
struct EngineCounters {
  int64_t num_submitted = 0;
  int64_t num_refused = 0;  // inbox full
  int64_t num_ended = 0;
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;
  int64_t num_output_tokens = 0;
};

class Engine {
 public:
  // Borrows the model, which must outlive the engine. Fails when the options don't fit the model.
  [[nodiscard]] static Result<std::unique_ptr<Engine>> start(TokenModel& model,
                                                             EngineOptions options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // REQUIRES: validated params and at least one prompt id. Checks ids and context length again,
  // cheaply, because a wrong id here would reach the weights.
  [[nodiscard]] Result<std::shared_ptr<TokenStream>> submit(Request request);

  // Ends every request with an error event, then the thread. Later submits are refused.
  void stop();

  // Why no request will be answered any more, once the device is lost.
  [[nodiscard]] std::optional<Error> device_lost() const;

  [[nodiscard]] EngineCounters counters() const;
  [[nodiscard]] int64_t max_tokens() const { return model_.max_tokens(); }

 private:
  Engine(TokenModel& model, EngineOptions options);

  Status check(const Request& request) const;
  void run();      // the thread
  void end_all();  // on the thread, at stop
  void lose_device(Error error);
  double now_s() const { return options_.clock_s(); }

  // engine/step.cc; the engine's thread only.
  bool step();
  void take_inbox();
  void drop_cancelled();
  void admit_waiting();
  Status open_state(Sequence& sequence);
  Status continue_kept(Sequence& sequence, KeptSequences::Entry kept, int64_t num_expected);
  bool has_room(Sequence& sequence) noexcept;
  void choose();
  void take_prompt();
  void take_answers();
  void end_latest();
  [[nodiscard]] std::span<float> logits_of(size_t row) {
    const auto width = static_cast<size_t>(model_.vocab_size());
    return std::span(logits_).subspan(row * width, width);
  }
  Status extend_chosen();
  Status extend_prompt(Sequence& sequence, bool wants_head);
  Status extend_answers(bool wants_heads);
  Status say_next(Sequence& sequence, size_t row);
  Result<SampledToken> next_token(Sequence& sequence, size_t row);
  void deliver(Sequence& sequence, SampledToken sampled);
  void end_by(const Error& error, Sequence& sequence) noexcept;
  void finish(Sequence& sequence, FinishReason reason, Error error = {}) noexcept;
  void finish_with(Sequence& sequence, TokenEvent event) noexcept;
  void keep_state(Sequence& sequence) noexcept;

  TokenModel& model_;
  EngineOptions options_;

  mutable std::mutex mutex_;  // guards the five below
  std::condition_variable work_arrived_;
  std::list<std::unique_ptr<Sequence>> inbox_;
  bool stopping_ = false;
  std::optional<Error> lost_;
  EngineCounters counters_;

  // The engine thread's own.
  // Lists, because moving a request from one to the next takes no memory.
  std::list<std::unique_ptr<Sequence>> waiting_;
  std::list<std::unique_ptr<Sequence>> running_;  // the front has its turn next
  KeptSequences kept_;
  SamplerScratch scratch_;

  const size_t max_batch_;
  bool last_was_prompt_ = false;
  bool is_short_of_room_ = false;  // an answer sat out when they had their turn
  // Of this step, with room for max_batch_: one prompt or several answers, and a row for each.
  std::vector<Sequence*> chosen_;
  std::vector<SequenceStep> steps_;
  std::vector<float> logits_;  // [max_batch_, vocab_size]
  std::vector<LogitsHead> heads_;
  bool has_heads_ = false;  // instead of logits

  std::thread thread_;  // last: starts when everything above exists
};

}  // namespace hotset
