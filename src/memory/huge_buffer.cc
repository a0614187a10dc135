// SPDX-License-Identifier: Apache-2.0
// mmap with room to align, then the ends are given back: transparent huge pages need 2 MiB borders.
#include "memory/huge_buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/checked_math.h"
#include "memory/memory_info.h"

namespace hotset {
namespace {

std::string available_text() {
  const auto info = read_memory_info();
  if (!info) return "free memory unknown";
  return fmt::format("{:.2f} GiB available", static_cast<double>(info->usable_bytes()) / (1 << 30));
}

tl::unexpected<Error> no_memory(int64_t bytes, int error) {
  return fail(
      fmt::format("cannot reserve {} bytes ({:.2f} GiB) of memory: {}; {}", bytes,
                  static_cast<double>(bytes) / (1 << 30), std::strerror(error), available_text()),
      ErrorKind::kResource);
}

}  // namespace

Result<HugeBuffer> HugeBuffer::allocate(int64_t bytes) {
  HugeBuffer buffer;
  if (bytes == 0) return buffer;
  const auto padded = checked_add(bytes, 2 * kHugePageBytes);
  if (bytes < 0 || !padded) return no_memory(bytes, EINVAL);
  const auto mapped = static_cast<size_t>(round_up(bytes, kHugePageBytes));
  const size_t asked = mapped + static_cast<size_t>(kHugePageBytes);
  void* raw = ::mmap(nullptr, asked, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return no_memory(bytes, errno);
  auto* begin = static_cast<std::byte*>(raw);
  const size_t head = (static_cast<size_t>(kHugePageBytes) -
                       reinterpret_cast<uintptr_t>(begin) % static_cast<size_t>(kHugePageBytes)) %
                      static_cast<size_t>(kHugePageBytes);
  if (head > 0) ::munmap(begin, head);
  const size_t tail = asked - head - mapped;
  if (tail > 0) ::munmap(begin + head + mapped, tail);
  buffer.data_ = begin + head;
  buffer.size_ = bytes;
  ::madvise(buffer.data_, mapped, MADV_HUGEPAGE);  // a wish; works without
  return buffer;
}

HugeBuffer::HugeBuffer(HugeBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

HugeBuffer& HugeBuffer::operator=(HugeBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

HugeBuffer::~HugeBuffer() {
  if (data_ != nullptr) ::munmap(data_, static_cast<size_t>(round_up(size_, kHugePageBytes)));
}

}  // namespace hotset
