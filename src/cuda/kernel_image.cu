// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernel_image.h"

namespace hotset::cuda {
namespace {

__global__ void image_probe_kernel() {}

}  // namespace

const void* image_probe() {
  return reinterpret_cast<const void*>(&image_probe_kernel);
}

const char* built_architectures() {
  return HOTSET_ARCHITECTURES;
}

}  // namespace hotset::cuda
