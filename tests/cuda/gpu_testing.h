// SPDX-License-Identifier: Apache-2.0
// What tests on a GPU share: the device, and arrays that live on both sides.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/runtime.h"
#include "kernels/cuda/queue.h"

namespace hotset::testing {

// A test fixture with a queue on device 0.
class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto opened = cuda::open_runtime(0);
    ASSERT_TRUE(opened) << opened.error().message;
    runtime_ = std::move(*opened);
    auto scratch = cuda::Scratch::create(*runtime_, int64_t{512} << 20);
    auto stream = runtime_->create_stream();
    ASSERT_TRUE(scratch && stream);
    queue_.reset(
        new cuda::Queue{.runtime = *runtime_, .stream = *stream, .scratch = std::move(*scratch)});
  }
  void TearDown() override {
    if (queue_ != nullptr) runtime_->destroy(queue_->stream);
    memory_.clear();
    queue_.reset();
  }

  [[nodiscard]] cuda::Queue& queue() { return *queue_; }

  // A copy of `values` on the device, freed with the test.
  template <typename T>
  [[nodiscard]] T* upload(std::span<const T> values) {
    auto memory =
        cuda::DeviceMemory::allocate(*runtime_, static_cast<int64_t>(values.size_bytes()) + 1);
    EXPECT_TRUE(memory) << memory.error().message;
    memory_.push_back(std::move(*memory));
    std::byte* to = memory_.back().data();
    const auto bytes = static_cast<int64_t>(values.size_bytes());
    EXPECT_TRUE(runtime_->copy(to, values.data(), bytes, queue_->stream));
    EXPECT_TRUE(runtime_->synchronize(queue_->stream));
    return reinterpret_cast<T*>(to);
  }
  template <typename T>
  [[nodiscard]] T* upload(const std::vector<T>& values) {
    return upload(std::span<const T>(values));
  }
  // `count` elements of garbage (0xff bytes: NaNs), so that what is not written is seen.
  template <typename T>
  [[nodiscard]] T* garbage(int64_t count) {
    return upload(std::vector<T>(static_cast<size_t>(count), garbage_value<T>()));
  }
  // Waits for the queue, and fails the test when an operation failed.
  template <typename T>
  [[nodiscard]] std::vector<T> download(const T* from, int64_t count) {
    std::vector<T> values(static_cast<size_t>(count));
    EXPECT_TRUE(queue_->status) << queue_->status.error().message;
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    EXPECT_TRUE(runtime_->copy(values.data(), from, bytes, queue_->stream));
    const Status done = runtime_->synchronize(queue_->stream);
    EXPECT_TRUE(done) << done.error().message;
    return values;
  }

 private:
  template <typename T>
  static T garbage_value() {
    T value;
    std::memset(static_cast<void*>(&value), 0xff, sizeof(T));
    return value;
  }

  std::unique_ptr<cuda::Runtime> runtime_;
  std::unique_ptr<cuda::Queue> queue_;
  std::vector<cuda::DeviceMemory> memory_;
};

}  // namespace hotset::testing
