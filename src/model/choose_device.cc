// SPDX-License-Identifier: Apache-2.0
#include "model/choose_device.h"

#include <fmt/format.h>

#include <algorithm>

namespace hotset {
namespace {

// Caches, buffers and a first few experts; the exact plan is made when the shapes are known.
constexpr int64_t kLeastBesideWeights = int64_t{1} << 30;

double gib(int64_t bytes) {
  return static_cast<double>(bytes) / (int64_t{1} << 30);
}

Result<std::unique_ptr<cuda::Runtime>> open_gpu(int gpu, int64_t gpu_memory_bytes,
                                                int64_t dense_bytes) {
  HS_ASSIGN_OR_RETURN(std::unique_ptr<cuda::Runtime> runtime, cuda::open_runtime(gpu));
  HS_ASSIGN_OR_RETURN(const int64_t free, runtime->free_bytes());
  const int64_t budget = gpu_memory_bytes > 0 ? std::min(gpu_memory_bytes, free) : free;
  if (dense_bytes + kLeastBesideWeights > budget) {
    return fail(fmt::format("{}: the dense weights take {:.2f} GiB and need {:.2f} GiB beside "
                            "them; {:.2f} GiB are free and the budget is {:.2f} GiB "
                            "(--dense-8bit halves 16-bit weights; --device cpu needs no GPU)",
                            runtime->info().name, gib(dense_bytes), gib(kLeastBesideWeights),
                            gib(free), gib(budget)),
                ErrorKind::kResource);
  }
  return runtime;
}

}  // namespace

Result<DeviceChoice> choose_device(Device device, int gpu, int64_t gpu_memory_bytes,
                                   int64_t dense_bytes) {
  DeviceChoice choice;
  if (device == Device::kCpu) return choice;
  auto opened = open_gpu(gpu, gpu_memory_bytes, dense_bytes);
  if (opened) {
    choice.runtime = std::move(*opened);
  } else if (device == Device::kCuda) {
    return fail(opened.error());
  } else {
    choice.why_cpu = opened.error().message;
  }
  return choice;
}

int64_t default_gpu_context(int64_t budget_bytes, int64_t kv_token_bytes,
                            int64_t max_position_embeddings) {
  constexpr int64_t kLeast = 8192, kShare = 16, kStep = 1024;
  const int64_t fits = budget_bytes / kShare / std::max<int64_t>(1, kv_token_bytes);
  return std::min(max_position_embeddings, std::max(kLeast, fits / kStep * kStep));
}

}  // namespace hotset
