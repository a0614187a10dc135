// SPDX-License-Identifier: Apache-2.0
// The one place of `hotset bench` that looks behind the model at the GPU.
#include "bench_run.h"
#ifdef HOTSET_HAS_CUDA
#include "model/gpu_backend.h"
#endif

namespace hotset {

#ifdef HOTSET_HAS_CUDA
std::optional<ExpertWork> expert_work(const LanguageModel& model, int64_t num_tokens) {
  const GpuBackend* gpu = model.gpu_backend();
  if (gpu == nullptr) return std::nullopt;
  const GpuExpertsCounts& counts = gpu->expert_counts();
  return ExpertWork{.choices = counts.choices,
                    .misses = counts.misses,
                    .fetched = counts.fetched,
                    .foreseen = counts.foreseen,
                    .streamed_bytes = counts.streamed_bytes,
                    .cpu_seconds = counts.cpu_seconds,
                    .wait_seconds = counts.wait_seconds,
                    .fetch_share = gpu->fetch_share(num_tokens)};
}

int64_t recorded_nodes(const LanguageModel& model) {
  const GpuBackend* gpu = model.gpu_backend();
  return gpu == nullptr ? 0 : gpu->step_nodes();
}

Result<BenchRates> gpu_rates(LanguageModel& model) {
  GpuBackend* gpu = model.gpu_backend();
  if (gpu == nullptr) return BenchRates{};
  HS_ASSIGN_OR_RETURN(const MachineRates rates, gpu->measure_rates());
  return BenchRates{.device_read = rates.gpu_bytes_per_s,
                    .pinned_copy = rates.pcie_bytes_per_s,
                    .products = rates.gpu_flops,
                    .launch = rates.node_s};
}
#else
std::optional<ExpertWork> expert_work(const LanguageModel& /*model*/, int64_t /*num_tokens*/) {
  return std::nullopt;
}

int64_t recorded_nodes(const LanguageModel& /*model*/) {
  return 0;
}

Result<BenchRates> gpu_rates(LanguageModel& /*model*/) {
  return BenchRates{};
}
#endif

}  // namespace hotset
