// SPDX-License-Identifier: Apache-2.0
// Everything that is decided before a weight is read: what the directory holds, which processor
// computes, what was left open in the options, and the plan of every byte of GPU memory and RAM.
// A model that does not fit is refused here, with figures. `hotset plan` prints it; load() follows
// it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/quant_config.h"
#include "cuda/runtime.h"
#include "experts/placement.h"
#include "experts/routing_trace.h"
#include "kernels/cpu/worker_pool.h"
#include "model/config.h"
#include "model/language_model.h"
#include "model/weights.h"
#ifdef HOTSET_HAS_CUDA
#include "model/gpu_plan.h"
#endif

namespace hotset {

// The directory, opened and understood.
struct OpenModel {
  Checkpoint checkpoint;
  QuantConfig quant;
  ModelConfig config;
  WeightPlan plan;
};
Result<OpenModel> open_model(const std::string& directory, const LoadOptions& options);
// What of a model's options decides how weights are laid out.
[[nodiscard]] LoadOptions layout_options(const ModelOptions& options);

[[nodiscard]] int64_t packed_bytes(const WeightPlan& plan);  // in RAM
// Of traces and profiles of this model: layers that have experts, routed experts alone.
[[nodiscard]] RoutingShape routing_shape(const ModelConfig& config);

struct ModelPlan {
  OpenModel open;
  ModelOptions options;                         // zeros, kAuto settled
  ModelOptions asked;                           // as they were given
  std::unique_ptr<cuda::Runtime> runtime = {};  // null: the CPU, or a GPU that is only imagined
  std::unique_ptr<cpu::WorkerPool> pool = {};
  std::string gpu_name = {};       // empty: the CPU
  std::string why_cpu = {};        // after kAuto chose it
  bool rates_are_typical = false;  // of the GPU
  MachineRates rates = {};
  Placement placement = {};             // without GPU lines on the CPU
  int64_t num_pages = 0;                // of the KV cache on the CPU
  std::vector<std::string> notes = {};  // what a user should know of the conditions, a line each
#ifdef HOTSET_HAS_CUDA
  GpuSizes gpu_sizes = {};
  PlacementInput placement_input = {};
  [[nodiscard]] GpuPlan gpu_plan() const {
    return {gpu_sizes, placement, rates, placement_input};
  }
#endif
};

// `imagine_gpu`: where there is no GPU, --gpu-memory describes one, of typical rates.
Result<ModelPlan> plan_model(const std::string& directory, const ModelOptions& options,
                             bool imagine_gpu = false);

// A refusal of the CPU also says why no GPU computes, where kAuto tried one.
[[nodiscard]] Error with_why_cpu(Error refusal, const std::string& why_cpu);

#ifdef HOTSET_HAS_CUDA
[[nodiscard]] GpuBackendOptions gpu_backend_options(const ModelOptions& options);
#endif

}  // namespace hotset
