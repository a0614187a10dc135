// SPDX-License-Identifier: Apache-2.0
// The door to the GPU (cuda/runtime.h) of a program that has none: behind it is one that computes
// nothing, and that is lost at SIGUSR1.
#include <csignal>

#include "cuda/fake_runtime.h"

namespace hotset::cuda {
namespace {

constexpr int64_t kBytes = int64_t{4} << 30;

volatile std::sig_atomic_t is_lost = 0;

}  // namespace

bool is_built_with_cuda() {
  return true;
}

Result<std::vector<DeviceInfo>> list_devices() {
  return std::vector<DeviceInfo>{testing::FakeRuntime(kBytes).info()};
}

Result<std::unique_ptr<Runtime>> open_runtime(int /*ordinal*/) {
  std::signal(SIGUSR1, [](int) { is_lost = 1; });
  auto runtime = std::make_unique<testing::FakeRuntime>(kBytes);
  runtime->lose_when([] { return is_lost != 0; });
  return runtime;
}

}  // namespace hotset::cuda
