// SPDX-License-Identifier: Apache-2.0
// How fast a row of `hotset bench` could be at best: what it has to move, over what this machine
// was measured to move. Launches, hand-overs and waiting are not in it; they are what the distance
// between a row and its bound is made of.
#pragma once

#include <cstdint>
#include <optional>

#include "bench_plan.h"
#include "model/language_model.h"

namespace hotset {

// Measured when a bench begins; 0: not measured, or not there.
struct BenchRates {
  double host_read = 0;    // bytes/s, by the CPU's threads, reading only
  double device_read = 0;  // bytes/s, by a kernel that only reads
  double pinned_copy = 0;  // bytes/s, host to device
  double products = 0;     // int8 operations/s out of registers
  double launch = 0;       // seconds of an empty kernel in a graph
};

// What computing with a model takes.
struct ModelLoad {
  int64_t dense_bytes = 0;  // all that every decode step reads: no routed experts, no embedding
  int64_t expert_bytes = 0;
  int64_t state_bytes = 0;  // of a sequence
  int64_t kv_bytes_per_token = 0;
  double ops_per_token = 0;  // of products with weights, two for each; the head's not counted
};
[[nodiscard]] ModelLoad model_load(const ModelSummary& summary);

// What the GPU's experts did during all repetitions of a row; choices are of decode steps that the
// CPU shares.
struct ExpertWork {
  int64_t choices = 0;
  int64_t misses = 0;    // computed by the CPU
  int64_t fetched = 0;   // missing too, and read over PCIe by the GPU
  int64_t foreseen = 0;  // of the misses: predicted a layer before
  int64_t streamed_bytes = 0;
  double cpu_seconds = 0;
  double wait_seconds = 0;
  double fetch_share = 0;  // of missed experts, as it was at the end

  [[nodiscard]] int64_t hits() const { return choices - misses - fetched; }
};

// Bytes and operations of one repetition, and the least time that they take.
struct Bound {
  double device_bytes = 0;
  double host_bytes = 0;  // read by the CPU's threads, or by the GPU over PCIe
  double pcie_bytes = 0;
  double operations = 0;
  double seconds = 0;
};

// Nothing where a rate that it takes was not measured. `experts`: of all `repetitions`; absent on
// the CPU. The CPU's rows count what they move as they run (`cpu_bytes`, in all repetitions).
[[nodiscard]] std::optional<Bound> cpu_bound(const BenchRates& rates, int64_t cpu_bytes,
                                             int64_t repetitions);
[[nodiscard]] std::optional<Bound> gpu_bound(const BenchRates& rates, const ModelLoad& load,
                                             const BenchTest& test, const ExpertWork& experts,
                                             int64_t repetitions);

}  // namespace hotset
