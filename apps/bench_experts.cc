// SPDX-License-Identifier: Apache-2.0
// The one place of `hotset bench` that looks behind the model at the GPU.
#include "bench_run.h"
#ifdef HOTSET_HAS_CUDA
#include "model/gpu_backend.h"
#endif

namespace hotset {

#ifdef HOTSET_HAS_CUDA
std::optional<ExpertWork> expert_work(const LanguageModel& model) {
  const GpuBackend* gpu = model.gpu_backend();
  if (gpu == nullptr) return std::nullopt;
  const GpuExpertsCounts& counts = gpu->expert_counts();
  return ExpertWork{.choices = counts.choices,
                    .misses = counts.misses,
                    .streamed_bytes = counts.streamed_bytes,
                    .cpu_seconds = counts.cpu_seconds,
                    .wait_seconds = counts.wait_seconds};
}
#else
std::optional<ExpertWork> expert_work(const LanguageModel& /*model*/) {
  return std::nullopt;
}
#endif

}  // namespace hotset
