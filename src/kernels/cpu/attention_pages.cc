// SPDX-License-Identifier: Apache-2.0
// Around attention: the query/gate split, and storing keys and values in pages.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/float16.h"
#include "kernels/attention.h"
#include "kernels/cpu/parallel.h"

namespace hotset {

int64_t kv_type_bytes(KvType type) {
  return type == KvType::kF32 ? 4 : 2;
}

void split_query_gate(cpu::Queue& queue, const QueryGateParams& params, const float* query_gate,
                      float* q, float* gate) {
  const int64_t dim = params.head_dim;
  const int64_t rows = params.num_tokens * params.num_heads;
  cpu::for_shares(queue, rows, 2 * dim, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::copy_n(query_gate + row * 2 * dim, dim, q + row * dim);
      std::copy_n(query_gate + row * 2 * dim + dim, dim, gate + row * dim);
    }
  });
}

namespace {

void store_row(KvType type, int64_t n, const float* from, std::byte* to) {
  if (type == KvType::kF32) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  auto* out = reinterpret_cast<uint16_t*>(to);
  if (type == KvType::kBF16) {
    for (int64_t i = 0; i < n; ++i) out[i] = float_to_bf16(from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = float_to_half(from[i]);
  }
}

}  // namespace

void kv_append(cpu::Queue& queue, const KvPages& kv, int64_t first_position, int64_t num_tokens,
               const float* k, const float* v) {
  HS_CHECK(first_position >= 0 && kv.page_tokens > 0, "append at {} to pages of {}", first_position,
           kv.page_tokens);
  const int64_t row_bytes = kv.head_dim * kv_type_bytes(kv.type);
  const int64_t row_floats = kv.num_kv_heads * kv.head_dim;
  cpu::for_shares(queue, num_tokens, 4 * row_floats, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t position = first_position + t;
      std::byte* page = kv.pages[position / kv.page_tokens];
      for (int64_t head = 0; head < kv.num_kv_heads; ++head) {
        const int64_t row = head * kv.page_tokens + position % kv.page_tokens;
        const int64_t from = t * row_floats + head * kv.head_dim;
        store_row(kv.type, kv.head_dim, k + from, page + row * row_bytes);
        store_row(kv.type, kv.head_dim, v + from, page + kv.plane_bytes() + row * row_bytes);
      }
    }
  });
}

}  // namespace hotset
