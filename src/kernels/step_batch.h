// SPDX-License-Identifier: Apache-2.0
// Which rows of a step belong to which sequence. Most operations see tokens only; the two mixers
// also need each sequence's memory, and find it here.
//
// On the CPU all pointers are host memory. On a GPU `sequences`, and what its members point to, is
// device memory at addresses that stay the same from step to step: a recorded graph reads what the
// step has put there. The counts outside of it are fixed when a graph is recorded.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hotset {

// One sequence's part of a step: rows token_begin … token_begin + num_tokens − 1 of every buffer.
struct SequenceRows {
  int64_t first_position = 0;  // of its first row
  int32_t token_begin = 0;
  int32_t num_tokens = 0;
  std::byte* const* pages =
      nullptr;             // its KV pages in order; a layer lies at a fixed offset in each
  float* state = nullptr;  // its state slot; a layer lies at a fixed offset in it
};

struct StepBatch {
  const SequenceRows* sequences = nullptr;  // [num_sequences], by rising token_begin
  int32_t num_sequences = 0;
  int32_t num_tokens = 0;     // of all sequences
  int32_t max_tokens = 0;     // of one sequence
  int64_t max_positions = 0;  // no sequence has more positions after this step
};

}  // namespace hotset
