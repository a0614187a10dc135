// SPDX-License-Identifier: Apache-2.0
#include "engine/token_stream.h"

#include <new>
#include <utility>

#include "base/check.h"

namespace hotset {

std::optional<TokenEvent> TokenStream::try_next() {
  const std::lock_guard lock(mutex_);
  if (!has_event()) return std::nullopt;
  return take_front();
}

TokenEvent TokenStream::next() {
  std::unique_lock lock(mutex_);
  arrived_.wait(lock, [this] { return has_event(); });
  return take_front();
}

std::optional<TokenEvent> TokenStream::next_within(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  if (!arrived_.wait_for(lock, patience, [this] { return has_event(); })) return std::nullopt;
  return take_front();
}

TokenEvent TokenStream::take_front() {
  if (events_.empty()) {
    TokenEvent event = std::move(*last_);
    last_.reset();
    return event;
  }
  TokenEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void TokenStream::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
}

void TokenStream::set_wakeup(std::function<void()> wakeup) {
  const std::lock_guard lock(mutex_);
  wakeup_ = std::move(wakeup);
  if (wakeup_ && has_event()) wakeup_();
}

bool TokenStream::push(TokenEvent event) {
  const std::lock_guard lock(mutex_);
  HS_CHECK(!event.finish, "a last event goes to push_last");
  if (events_.size() >= kCapacity) return false;
  events_.push_back(std::move(event));
  wake_reader();
  return true;
}

void TokenStream::push_last(TokenEvent event) noexcept {
  const std::lock_guard lock(mutex_);
  last_ = std::move(event);
  wake_reader();
}

// A wake-up that finds no memory is lost; readers look again by themselves after a while.
void TokenStream::wake_reader() noexcept {
  arrived_.notify_one();
  if (!wakeup_) return;
  try {
    wakeup_();
  } catch (const std::bad_alloc&) {
    return;
  }
}

bool TokenStream::is_cancelled() const {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

}  // namespace hotset
