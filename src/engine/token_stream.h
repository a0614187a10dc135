// SPDX-License-Identifier: Apache-2.0
// The pipe from the engine to one reader: a bounded queue of TokenEvents.
//
//   engine thread                    reader (any one thread)
//   push(event) ── queue, bounded ──▶ try_next() / next()
//   is_cancelled() ◀── one flag ───── cancel()
//
// The engine never waits: when the queue is full because nobody reads, push() says so and the
// engine ends the request. All members may be called from any thread. The last event has a place of
// its own, so that a request can be ended when there is no memory for anything else.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>

#include "request/token_event.h"

namespace hotset {

class TokenStream {
 public:
  // Events a slow reader may leave behind, about 1 MiB with 20 logprobs each.
  static constexpr size_t kCapacity = 4096;

  // Reader side. -----------------------------------------------------------------------------
  // The next event, or nothing yet.
  [[nodiscard]] std::optional<TokenEvent> try_next();
  // Waits for the next event. REQUIRES: the last event (finish set) has not been taken yet.
  [[nodiscard]] TokenEvent next();
  // Waits at most `patience`.
  [[nodiscard]] std::optional<TokenEvent> next_within(std::chrono::milliseconds patience);
  // Asks the engine to stop at its next step; a last event still arrives.
  void cancel();
  // `wakeup` is called on the engine's thread after every push, and once right now when something
  // is waiting. It must not block and must not call back into this stream (post instead).
  void set_wakeup(std::function<void()> wakeup);

  // Engine side. -----------------------------------------------------------------------------
  // False when the queue is full: the event is dropped.
  // REQUIRES: the event is not the last one.
  bool push(TokenEvent event);
  // The last event; always has room and never throws.
  void push_last(TokenEvent event) noexcept;
  [[nodiscard]] bool is_cancelled() const;

 private:
  [[nodiscard]] bool has_event() const { return !events_.empty() || last_.has_value(); }
  TokenEvent take_front();
  void wake_reader() noexcept;

  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<TokenEvent> events_;
  std::optional<TokenEvent> last_;  // after everything in events_
  std::function<void()> wakeup_;
  bool cancelled_ = false;
};

}  // namespace hotset
