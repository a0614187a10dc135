// SPDX-License-Identifier: Apache-2.0
#include "model/routing_log.h"

#include "base/check.h"

namespace hotset {

Result<std::unique_ptr<RoutingLog>> RoutingLog::create(cuda::Runtime& runtime, int64_t num_layers,
                                                       int64_t max_tokens, int32_t top_k) {
  std::unique_ptr<RoutingLog> log(new RoutingLog(max_tokens, top_k));
  HS_ASSIGN_OR_RETURN(log->memory_,
                      cuda::DeviceMemory::allocate(runtime, num_layers * max_tokens * top_k * 4,
                                                   cuda::MemoryKind::kPinned));
  return log;
}

void RoutingLog::add(cuda::Queue& queue, const MoeBatch& batch) {
  if (layer_ < 0) return;
  HS_CHECK(batch.top_k == top_k_ && next_row_ + batch.num_tokens <= max_tokens_,
           "{} rows of {} choices after {} of {}", batch.num_tokens, batch.top_k, next_row_,
           max_tokens_);
  queue.note(queue.runtime.copy(place(layer_, next_row_), batch.expert_ids,
                                batch.num_tokens * top_k_ * 4, queue.stream));
  next_row_ += batch.num_tokens;
}

}  // namespace hotset
