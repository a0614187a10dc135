// SPDX-License-Identifier: Apache-2.0
// A model's weights as the GPU sees them: the same structs of views, pointing into device memory.
//
// Dense modules, vectors, codebooks and input orders are copied; routed experts are not (their
// views keep shape and encoding, data is null: gpu_experts.h knows where each one lies). The
// embedding table stays in host memory, which the device reads: a step needs a few rows of it.
#pragma once

#include <memory>

#include "cuda/device_memory.h"
#include "model/weights.h"

namespace hotset {

struct GpuWeights {
  std::unique_ptr<ModelWeights> views;
  cuda::DeviceMemory memory;
};

// Where the embedding table lies; on the device where RAM can't be pinned.
enum class EmbeddingPlace : uint8_t { kHost, kDevice };

// What upload_weights() takes of device memory.
[[nodiscard]] int64_t gpu_weight_bytes(const ModelWeights& host,
                                       EmbeddingPlace place = EmbeddingPlace::kHost);

// `host` outlives the result; for kHost its dense memory is pinned by the caller. Waits for the
// copies.
Result<GpuWeights> upload_weights(cuda::Runtime& runtime, cuda::Stream stream,
                                  const ModelWeights& host, EmbeddingPlace place);

}  // namespace hotset
