// SPDX-License-Identifier: Apache-2.0
// Part of every test program that needs a GPU: without one it says so in a line, runs nothing, and
// ends with 77, by which ctest and other runners know a test that was skipped.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "cuda/runtime.h"

namespace hotset {
namespace {

constexpr int kSkipped = 77;

class NeedsGpu final : public ::testing::Environment {
  void SetUp() override {
    const auto devices = cuda::list_devices();
    if (devices || devices.error().kind != ErrorKind::kNotFound) return;
    std::printf("skipped: these tests need a GPU (%s)\n", devices.error().message.c_str());
    std::fflush(nullptr);
    std::_Exit(kSkipped);
  }
};

[[maybe_unused]] const auto* const kNeedsGpu =
    ::testing::AddGlobalTestEnvironment(new NeedsGpu);  // googletest owns it

}  // namespace
}  // namespace hotset
