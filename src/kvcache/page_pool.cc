// SPDX-License-Identifier: Apache-2.0
#include "kvcache/page_pool.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace hotset {

Result<PagePool> PagePool::create(const PagePoolShape& shape) {
  PagePool pool = PagePool(shape);
  HS_ASSIGN_OR_RETURN(pool.owned_, HugeBuffer::allocate(shape.bytes()));
  pool.base_ = pool.owned_.data();
  return pool;
}

PagePool PagePool::create_in(const PagePoolShape& shape, std::byte* memory) {
  PagePool pool = PagePool(shape);
  pool.base_ = memory;
  return pool;
}

PagePool::PagePool(const PagePoolShape& shape) : shape_(shape) {
  HS_CHECK(shape.num_pages >= 0 && shape.page_tokens > 0, "{} pages of {} tokens", shape.num_pages,
           shape.page_tokens);
  in_use_.assign(static_cast<size_t>(shape.num_pages), false);
  for (int64_t page = shape.num_pages; page > 0; --page) {
    free_.push_back(static_cast<int32_t>(page - 1));
  }
}

Result<int32_t> PagePool::acquire() {
  if (free_.empty()) {
    return fail(fmt::format("the KV cache is full: all {} pages of {} tokens are in use",
                            shape_.num_pages, shape_.page_tokens),
                ErrorKind::kResource);
  }
  const int32_t page = free_.back();
  free_.pop_back();
  in_use_[static_cast<size_t>(page)] = true;
  return page;
}

void PagePool::release(int32_t page) {
  HS_CHECK(page >= 0 && page < shape_.num_pages && in_use_[static_cast<size_t>(page)],
           "page {} is not in use", page);
  in_use_[static_cast<size_t>(page)] = false;
  free_.push_back(page);
}

bool PagePool::check_integrity() const {
  std::vector<bool> seen(in_use_.size(), false);
  for (const int32_t page : free_) {
    const auto index = static_cast<size_t>(page);
    if (index >= seen.size() || seen[index] || in_use_[index]) return false;
    seen[index] = true;
  }
  const auto used = std::count(in_use_.begin(), in_use_.end(), true);
  return free_.size() + static_cast<size_t>(used) == in_use_.size();
}

}  // namespace hotset
