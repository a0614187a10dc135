// SPDX-License-Identifier: Apache-2.0
#include "engine/token_stream.h"

#include <utility>

namespace hotset {

std::optional<TokenEvent> TokenStream::try_next() {
  const std::lock_guard lock(mutex_);
  if (events_.empty()) return std::nullopt;
  return take_front();
}

TokenEvent TokenStream::next() {
  std::unique_lock lock(mutex_);
  arrived_.wait(lock, [this] { return !events_.empty(); });
  return take_front();
}

std::optional<TokenEvent> TokenStream::next_within(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  if (!arrived_.wait_for(lock, patience, [this] { return !events_.empty(); })) return std::nullopt;
  return take_front();
}

TokenEvent TokenStream::take_front() {
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
  if (wakeup_ && !events_.empty()) wakeup_();
}

bool TokenStream::push(TokenEvent event) {
  const std::lock_guard lock(mutex_);
  if (events_.size() >= kCapacity && !event.finish) return false;
  events_.push_back(std::move(event));
  arrived_.notify_one();
  if (wakeup_) wakeup_();
  return true;
}

bool TokenStream::is_cancelled() const {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

}  // namespace hotset
