// SPDX-License-Identifier: Apache-2.0
// The largest logits of tokens, picked on the GPU, so that a few kilobytes cross PCIe instead of
// all of them (request/logits_head.h).
//
// Ids are dealt to groups in stripes of 32. A group lists its largest few, and the largest that it
// did not list: no unlisted id of the whole vocabulary is above the largest of those.
#pragma once

#include <cstdint>

#include "kernels/cuda/queue.h"

namespace hotset::cuda {

inline constexpr int kLogitGroups = 256;
inline constexpr int kListedLogits = 8;

struct LogitGroup {
  float next = 0;                   // the largest that is not listed; −inf: all are
  uint32_t not_finite = 0;          // 1: a NaN or an infinity is among the group's logits
  int32_t ids[kListedLogits] = {};  // −1: the group has no more
  float logits[kListedLogits] = {};
};

// The widest vocabulary that it takes.
[[nodiscard]] int64_t max_top_logits();

// logits: [num_rows, row_width] on the device; the first num_valid (1 … max_top_logits()) of a row
// are looked at. groups: [num_rows, kLogitGroups], on the device or pinned. Lower ids come first
// among equals.
void top_logits(Queue& queue, const float* logits, int64_t num_rows, int64_t row_width,
                int64_t num_valid, LogitGroup* groups);

}  // namespace hotset::cuda
