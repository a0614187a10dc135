// SPDX-License-Identifier: Apache-2.0
// Pages of the KV cache. One page holds `page_tokens` positions of one sequence for every full
// attention layer: per layer K [num_key_value_heads, page_tokens, head_dim], then V of the same
// shape (kernels/attention.h reads exactly this). The pool is one reservation made at start; the
// system backs a page with memory when it is first written.
//
// One thread (the engine's) uses a pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "memory/huge_buffer.h"

namespace hotset {

struct PagePoolShape {
  int64_t num_layers = 0;  // full attention layers only
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t value_bytes = 2;  // of one K or V element
  int64_t page_tokens = 64;
  int64_t num_pages = 0;

  [[nodiscard]] int64_t layer_bytes() const {
    return 2 * num_key_value_heads * page_tokens * head_dim * value_bytes;
  }
  [[nodiscard]] int64_t page_bytes() const { return num_layers * layer_bytes(); }
  [[nodiscard]] int64_t bytes() const { return num_pages * page_bytes(); }
};

class PagePool {
 public:
  static Result<PagePool> create(const PagePoolShape& shape);  // in host memory
  // In `memory`, of shape.bytes() bytes anywhere, which outlives the pool; the pool never touches
  // it.
  static PagePool create_in(const PagePoolShape& shape, std::byte* memory);

  [[nodiscard]] const PagePoolShape& shape() const { return shape_; }
  [[nodiscard]] int64_t num_free() const { return static_cast<int64_t>(free_.size()); }

  // A page's contents are whatever its last owner left; attention never reads past what was
  // written.
  Result<int32_t> acquire();
  void release(int32_t page);

  // `layer` counts full attention layers. Valid while the pool lives.
  [[nodiscard]] std::byte* layer_data(int32_t page, int64_t layer) const {
    return base_ + page * shape_.page_bytes() + layer * shape_.layer_bytes();
  }

  // Every page is either free once or in use; for tests and the idle loop.
  [[nodiscard]] bool check_integrity() const;

 private:
  explicit PagePool(const PagePoolShape& shape);

  PagePoolShape shape_;
  HugeBuffer owned_;
  std::byte* base_ = nullptr;
  std::vector<int32_t> free_;
  std::vector<bool> in_use_;
};

}  // namespace hotset
