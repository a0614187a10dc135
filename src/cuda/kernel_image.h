// SPDX-License-Identifier: Apache-2.0
// Which GPUs this program's kernels were compiled for. All are compiled alike, so that one that
// does nothing tells of all of them whether a device can run them.
#pragma once

namespace hotset::cuda {

// For cudaFuncGetAttributes.
[[nodiscard]] const void* image_probe();
// As CMAKE_CUDA_ARCHITECTURES: "80-real 86-real 89-real 90 120-real".
[[nodiscard]] const char* built_architectures();

}  // namespace hotset::cuda
