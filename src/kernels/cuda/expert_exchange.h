// SPDX-License-Identifier: Apache-2.0
// The hand-over between a GPU step and the CPU that computes the experts the GPU does not have.
// No call into the driver is on this path: both sides read and write one piece of mapped host
// memory, so a whole step can be one recorded graph.
//
//   GPU  hand_over: choices whose expert has no address become misses (id −1 for the GPU's own
//        kernels); x and all ids go to the CPU; then request ← n, the number of this hand-over
//   CPU  sees request ≥ n, computes rows[t, k, :] of the misses (unweighted), then reply ← n
//   GPU  await_reply: the stream waits for reply ≥ n, or goes on at once when nothing missed
//   GPU  moe_join (expert_table.h) reads the rows where they lie
//
// n counts hand-overs from 1, over steps, on both sides. x and rows serve all layers, since the
// stream joins before it hands over again; ids, missed and num_misses are a layer's own, so that
// the CPU can read them when the step has gone on without it (nothing missed) or is over. If the
// CPU cannot answer it sets `abort`; every wait then ends at once and the step's result is void. A
// wait also ends, and sets `expired`, after kReplyTimeoutSeconds.
#pragma once

#include <cstdint>

#include "kernels/cuda/expert_table.h"

namespace hotset::cuda {

inline constexpr double kReplyTimeoutSeconds = 20;

// In mapped host memory, each flag in a line of its own. The CPU reads and writes flags with
// acquire and release.
struct ExchangeFlags {
  alignas(64) uint32_t request = 0;
  alignas(64) uint32_t reply = 0;
  alignas(64) uint32_t abort = 0;
  alignas(64) uint32_t expired = 0;
};

struct ExpertExchange {
  ExchangeFlags* flags = nullptr;  // mapped
  uint32_t* num_misses = nullptr;  // mapped, of this layer
  int32_t* ids = nullptr;          // mapped [max_tokens, top_k]: as the router chose
  int32_t* missed = nullptr;       // mapped [max_tokens, top_k]: 1 where the CPU is asked
  float* x = nullptr;              // mapped [max_tokens, hidden]
  float* rows = nullptr;           // mapped [max_tokens, top_k, hidden]: the CPU's answer
  uint32_t* last = nullptr;        // device [2]: number and misses of the last hand-over
};

// ids: [num_tokens, top_k] device; gpu_ids: the same with −1 for misses. num_tokens ≤ max_tokens.
void hand_over(Queue& queue, const ExpertTable& experts, const MoeBatch& batch,
               const ExpertExchange& exchange, int32_t* gpu_ids);
void await_reply(Queue& queue, const ExpertExchange& exchange);

// entries[changes[i].index] ← changes[i].address for i < *count; both in mapped host memory.
struct AddressChange {
  int64_t index = 0;
  ExpertAddress address;
};
void apply_address_changes(Queue& queue, ExpertAddress* entries, const AddressChange* changes,
                           const int32_t* count, int32_t max_count);

}  // namespace hotset::cuda
