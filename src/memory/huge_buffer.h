// SPDX-License-Identifier: Apache-2.0
// Anonymous memory for weights: 2 MiB aligned, huge pages asked for, zeroed by the kernel.
//
// Weights are read into such memory with pread, never mapped from the file: a mapped file thrashes
// when RAM is short, dies by SIGBUS when the file shrinks, and hides truncation behind zeros.
// Pages become resident on first touch, so the thread that fills a part decides where it lies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

namespace hotset {

inline constexpr int64_t kHugePageBytes = int64_t{2} << 20;

class HugeBuffer {
 public:
  HugeBuffer() = default;
  // `bytes` may be 0 (an empty buffer). The error names what was asked and what is available.
  [[nodiscard]] static Result<HugeBuffer> allocate(int64_t bytes);

  HugeBuffer(HugeBuffer&& other) noexcept;
  HugeBuffer& operator=(HugeBuffer&& other) noexcept;
  HugeBuffer(const HugeBuffer&) = delete;
  HugeBuffer& operator=(const HugeBuffer&) = delete;
  ~HugeBuffer();

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] int64_t size() const {
    return size_;
  }  // as asked; the mapping is a multiple of 2 MiB
  [[nodiscard]] std::span<std::byte> span() const { return {data_, static_cast<size_t>(size_)}; }

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace hotset
