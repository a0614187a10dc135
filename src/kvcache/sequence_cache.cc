// SPDX-License-Identifier: Apache-2.0
#include "kvcache/sequence_cache.h"

#include <utility>

#include "base/checked_math.h"

namespace hotset {

Result<SequenceCache> SequenceCache::create(PagePool& pages, StatePool& states) {
  HS_ASSIGN_OR_RETURN(const int32_t slot, states.acquire());
  return SequenceCache(pages, states, slot);
}

SequenceCache::SequenceCache(SequenceCache&& other) noexcept
    : page_pool_(other.page_pool_),
      state_pool_(other.state_pool_),
      slot_(std::exchange(other.slot_, -1)),
      num_tokens_(std::exchange(other.num_tokens_, 0)),
      pages_(std::exchange(other.pages_, {})),
      page_data_(std::exchange(other.page_data_, {})) {}

SequenceCache& SequenceCache::operator=(SequenceCache&& other) noexcept {
  if (this == &other) return *this;
  release();
  page_pool_ = other.page_pool_;
  state_pool_ = other.state_pool_;
  slot_ = std::exchange(other.slot_, -1);
  num_tokens_ = std::exchange(other.num_tokens_, 0);
  pages_ = std::exchange(other.pages_, {});
  page_data_ = std::exchange(other.page_data_, {});
  return *this;
}

SequenceCache::~SequenceCache() {
  release();
}

void SequenceCache::release() {
  for (const int32_t page : pages_) page_pool_->release(page);
  pages_.clear();
  page_data_.clear();
  if (slot_ >= 0) state_pool_->release(std::exchange(slot_, -1));
}

Status SequenceCache::reserve(int64_t num_tokens) {
  const auto had = pages_.size();
  const auto need = static_cast<size_t>(ceil_div(num_tokens, page_pool_->shape().page_tokens));
  pages_.reserve(need);  // a page that was acquired is in a list, whatever fails
  page_data_.reserve(need);
  while (pages_.size() < need) {
    auto page = page_pool_->acquire();
    if (!page) {
      for (; pages_.size() > had; pages_.pop_back()) page_pool_->release(pages_.back());
      return fail(std::move(page).error());
    }
    pages_.push_back(*page);
  }
  for (size_t i = page_data_.size(); i < need; ++i) {
    page_data_.push_back(page_pool_->layer_data(pages_[i], 0));
  }
  return {};
}

}  // namespace hotset
