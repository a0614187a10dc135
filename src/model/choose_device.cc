// SPDX-License-Identifier: Apache-2.0
#include "model/choose_device.h"

#include <algorithm>

namespace hotset {

int64_t default_gpu_context(int64_t budget_bytes, int64_t kv_token_bytes,
                            int64_t max_position_embeddings) {
  constexpr int64_t kShare = 16, kStep = 1024;
  const int64_t fits = budget_bytes / kShare / std::max<int64_t>(1, kv_token_bytes);
  return std::min(max_position_embeddings, std::max(kLeastGpuContext, fits / kStep * kStep));
}

}  // namespace hotset
