// SPDX-License-Identifier: Apache-2.0
// The chunked delta rule by passes of as many chunks as the scratch holds.
#include <algorithm>

#include "kernels/cuda/delta_mixer.h"
#include "kernels/cuda/delta_mixer_chunks.cuh"

namespace hotset::cuda {
namespace {

constexpr int kChunk = kDeltaChunk;
constexpr int64_t kScratchBytes = int64_t{32} << 20;

constexpr int64_t kSlotFloats = kChunk * kDeltaDim + kChunk * kChunk + 2 * kChunk;

// How many chunks of all heads fit the scratch; one does in any case.
int64_t slots_of(int64_t value_heads) {
  const int64_t bytes = kSlotFloats * value_heads * static_cast<int64_t>(sizeof(float));
  return std::max<int64_t>(kScratchBytes / bytes, 1);
}

}  // namespace

int64_t delta_mixer_scratch_bytes(const DeltaNetShape& shape, int64_t max_tokens) {
  if (max_tokens <= kMaxStepTokens || shape.key_head_dim != kDeltaDim) return 0;
  const int64_t values = slots_of(shape.num_value_heads) * shape.num_value_heads * kSlotFloats;
  return values * static_cast<int64_t>(sizeof(float)) + 3 * 256;
}

// Passes are as many chunks of as many sequences as the scratch holds, chunks first; those of a
// long sequence are equally long.
void delta_chunks(Queue& queue, const DeltaTask& task, const StepBatch& batch) {
  const ScratchScope scope(queue);
  const int64_t all_chunks = blocks_for(batch.max_tokens, kChunk);
  const int64_t slots = std::min(slots_of(task.value_heads), all_chunks * batch.num_sequences);
  const int64_t passes = blocks_for(all_chunks, slots);
  const int64_t num_chunks = blocks_for(all_chunks, passes);
  const int64_t num_sequences = std::max<int64_t>(slots / num_chunks, 1);
  const int64_t parts = slots * task.value_heads;
  DeltaPass pass{};
  pass.keys = queue.take<float>(parts * kChunk * kDeltaDim);
  pass.weights = queue.take<float>(parts * kChunk * kChunk);
  pass.decays = queue.take<float>(parts * 2 * kChunk);
  pass.num_chunks = static_cast<int>(num_chunks);
  if (!queue.status) return;
  for (int64_t s = 0; s < batch.num_sequences; s += num_sequences) {
    pass.first_sequence = static_cast<int>(s);
    const int64_t here = std::min(num_sequences, batch.num_sequences - s);
    for (int64_t first = 0; first < all_chunks; first += num_chunks) {
      pass.first_chunk = static_cast<int>(first);
      delta_prepare(queue, task, pass, static_cast<int>(here));
      delta_sweep(queue, task, pass, static_cast<int>(here));
    }
  }
}

}  // namespace hotset::cuda
