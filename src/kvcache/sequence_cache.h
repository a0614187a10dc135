// SPDX-License-Identifier: Apache-2.0
// What one running sequence remembers: its KV pages in order and its state slot. Both go back to
// their pools when the cache is destroyed. A prefix can be continued only where pages and state
// agree, which is at `num_tokens` and nowhere else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "kvcache/page_pool.h"
#include "kvcache/state_pool.h"

namespace hotset {

class SequenceCache {
 public:
  // The pools outlive the cache.
  static Result<SequenceCache> create(PagePool& pages, StatePool& states);
  SequenceCache(SequenceCache&& other) noexcept;
  SequenceCache& operator=(SequenceCache&& other) noexcept;
  ~SequenceCache();

  // Makes room for tokens up to position `num_tokens`; on failure nothing changes.
  Status reserve(int64_t num_tokens);
  // Tokens whose K, V and state are in the cache.
  [[nodiscard]] int64_t num_tokens() const { return num_tokens_; }
  void commit(int64_t num_tokens) { num_tokens_ = num_tokens; }

  [[nodiscard]] const std::vector<int32_t>& pages() const { return pages_; }
  // Where they begin, in the same order; valid until reserve().
  [[nodiscard]] const std::vector<std::byte*>& page_data() const { return page_data_; }
  [[nodiscard]] int32_t state_slot() const { return slot_; }
  [[nodiscard]] float* state_data() const { return state_pool_->slot_data(slot_); }

 private:
  SequenceCache(PagePool& pages, StatePool& states, int32_t slot)
      : page_pool_(&pages), state_pool_(&states), slot_(slot) {}
  void release();

  PagePool* page_pool_;
  StatePool* state_pool_;
  int32_t slot_;
  int64_t num_tokens_ = 0;
  std::vector<int32_t> pages_;
  std::vector<std::byte*> page_data_;
};

}  // namespace hotset
