// SPDX-License-Identifier: Apache-2.0
// The hand-over between a GPU step and the CPU that computes the experts the GPU does not have.
// No call into the driver is on this path: both sides read and write one piece of mapped host
// memory, so a whole step can be one recorded graph.
//
//   GPU  hand_over: choices whose expert has no address are missed. Of the experts missed the GPU
//        fetches the last few: fetch copies them over PCIe into slots of their own, where its
//        kernels find them. The others are the CPU's (id −1 for the GPU's own kernels); x and all
//        ids go to it; then request ← n, the number of this hand-over
//   CPU  sees request ≥ n, computes rows[t, k, :] of its choices (unweighted), then reply ← n
//   CPU  while it waits for the next request, it may read experts ahead that the layer's input made
//        the next layer's router choose (`predicted`); only speed depends on that
//   GPU  join_replies: the stream waits for reply ≥ n, or goes on at once when the CPU has nothing,
//        and sums all rows; the CPU's are read where they lie
//
// n counts hand-overs from 1, over steps, on both sides. x and rows serve all layers, since the
// stream joins before it hands over again; counts, ids, places and predicted are a layer's own, so
// that the CPU can read them when the step has gone on without it (nothing to do) or is over. If
// the CPU cannot answer it sets `abort`; every wait then ends at once and the step's result is
// void. A wait also ends, and sets `expired`, after kReplyTimeoutSeconds.
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

enum class ChoicePlace : int32_t { kResident = 0, kCpu = 1, kFetched = 2 };

// Choices of one layer's hand-over, by place.
struct HandOverCounts {
  uint32_t cpu = 0;
  uint32_t fetched = 0;
};

struct ExpertExchange {
  ExchangeFlags* flags = nullptr;    // mapped
  HandOverCounts* counts = nullptr;  // mapped, of this layer
  int32_t* ids = nullptr;            // mapped [max_tokens, top_k]: as the router chose
  ChoicePlace* places = nullptr;     // mapped [max_tokens, top_k]
  int32_t* predicted = nullptr;      // mapped [max_tokens, top_k], the next layer's; may be null
  float* x = nullptr;                // mapped [max_tokens, hidden]
  float* rows = nullptr;             // mapped [max_tokens, top_k, hidden]: the CPU's answer
  uint32_t* last = nullptr;          // device [2]: number and CPU choices of the last hand-over
};

// An expert in pinned host memory; its matrices lie within `bytes` from `record`, both multiples of
// 16.
struct BankExpert {
  const std::byte* record = nullptr;
  int64_t bytes = 0;
  ExpertAddress address;
};
struct FetchJob {
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  int64_t bytes = 0;
};

// Which of a layer's missed experts the GPU fetches, and to where.
struct FetchRule {
  const BankExpert* bank = nullptr;      // device [experts of the layer]; null: none
  const int32_t* num_fetched = nullptr;  // device [max_tokens · top_k + 1]: by experts missed
  std::byte* slots = nullptr;            // device [max_fetched, slot_bytes]
  int64_t slot_bytes = 0;
  int32_t max_fetched = 0;
  FetchJob* jobs = nullptr;     // device [max_fetched]
  int32_t* num_jobs = nullptr;  // device
};

// What the GPU's kernels take in place of the router's choices; device [num_tokens, top_k].
struct GpuChoices {
  int32_t* ids = nullptr;              // −1: the CPU's
  ExpertAddress* addresses = nullptr;  // ExpertTable::choice_addresses
};

// batch.expert_ids: [num_tokens, top_k] device, behind them as many that are predicted, where they
// are wanted; num_tokens ≤ max_tokens.
void hand_over(Queue& queue, const ExpertTable& experts, const MoeBatch& batch,
               const ExpertExchange& exchange, const FetchRule& fetch, const GpuChoices& to);
// The copies that the last hand_over asked for.
void fetch(Queue& queue, const FetchRule& rule);
// moe_join (expert_table.h) of rows and exchange.rows, once the CPU has replied.
void join_replies(Queue& queue, const MoeBatch& batch, const float* rows,
                  const ExpertExchange& exchange, float* y);

// entries[changes[i].index] ← changes[i].address for i < *count; both in mapped host memory.
struct AddressChange {
  int64_t index = 0;
  ExpertAddress address;
};
void apply_address_changes(Queue& queue, ExpertAddress* entries, const AddressChange* changes,
                           const int32_t* count, int32_t max_count);

}  // namespace hotset::cuda
