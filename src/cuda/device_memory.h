// SPDX-License-Identifier: Apache-2.0
// Owners of device memory and of pinned host memory. Move-only; the Runtime outlives them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/result.h"
#include "cuda/runtime.h"

namespace hotset::cuda {

enum class MemoryKind : uint8_t { kDevice, kPinned };

class DeviceMemory {
 public:
  DeviceMemory() = default;
  // `bytes` may be 0 (nothing is allocated).
  static Result<DeviceMemory> allocate(Runtime& runtime, int64_t bytes,
                                       MemoryKind kind = MemoryKind::kDevice);
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceMemory();

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] int64_t size() const { return size_; }

 private:
  void swap(DeviceMemory& other) {
    std::swap(runtime_, other.runtime_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(kind_, other.kind_);
  }

  Runtime* runtime_ = nullptr;
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
  MemoryKind kind_ = MemoryKind::kDevice;
};

}  // namespace hotset::cuda
