// SPDX-License-Identifier: Apache-2.0
// The door of a build without CUDA: closed, with the reason.
#include "cuda/runtime.h"

namespace hotset::cuda {
namespace {

tl::unexpected<Error> not_built() {
  return fail("this hotset was built without CUDA: install the CUDA toolkit (nvcc) and build again",
              ErrorKind::kUnsupported);
}

}  // namespace

bool is_built_with_cuda() {
  return false;
}

Result<std::vector<DeviceInfo>> list_devices() {
  return not_built();
}

Result<std::unique_ptr<Runtime>> open_runtime(int /*ordinal*/) {
  return not_built();
}

}  // namespace hotset::cuda
