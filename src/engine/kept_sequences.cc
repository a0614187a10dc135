// SPDX-License-Identifier: Apache-2.0
#include "engine/kept_sequences.h"

#include <algorithm>
#include <utility>

namespace hotset {

void KeptSequences::keep(Entry entry) {
  if (capacity_ == 0) return;
  while (entries_.size() >= capacity_) drop_oldest();
  entries_.push_back(std::move(entry));
}

std::optional<KeptSequences::Entry> KeptSequences::take_prefix_of(
    std::span<const int32_t> prompt_ids) {
  auto best = entries_.end();
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    const std::vector<int32_t>& ids = it->fed_ids;
    if (ids.empty() || ids.size() >= prompt_ids.size()) continue;
    if (best != entries_.end() && ids.size() <= best->fed_ids.size()) continue;
    if (std::equal(ids.begin(), ids.end(), prompt_ids.begin())) best = it;
  }
  if (best == entries_.end()) return std::nullopt;
  Entry entry = std::move(*best);
  entries_.erase(best);
  return entry;
}

bool KeptSequences::drop_oldest() {
  if (entries_.empty()) return false;
  entries_.pop_front();
  return true;
}

}  // namespace hotset
