// SPDX-License-Identifier: Apache-2.0
// Ended sequences that are kept for a while, because the next message of a conversation usually
// extends them. Reuse is exact and all or nothing: a recurrent state can't be cut shorter, so a
// kept state serves a prompt only when everything it has seen is a proper prefix of that prompt.
//
// Bound: `capacity` states; the one unused for longest goes first. Engine thread only.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "request/token_model.h"

namespace hotset {

class KeptSequences {
 public:
  struct Entry {
    std::vector<int32_t> fed_ids;
    std::unique_ptr<SequenceState> state;
  };

  explicit KeptSequences(size_t capacity) : capacity_(capacity) {}

  void keep(Entry entry);
  // Takes out the entry that covers most of `prompt_ids`, leaving at least one id to feed.
  [[nodiscard]] std::optional<Entry> take_prefix_of(std::span<const int32_t> prompt_ids);
  // Frees the oldest state; false when there is none.
  bool drop_oldest();
  [[nodiscard]] size_t size() const { return entries_.size(); }

 private:
  size_t capacity_;
  std::list<Entry> entries_;  // oldest first
};

}  // namespace hotset
