// SPDX-License-Identifier: Apache-2.0
#include "experts/count_allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {
std::atomic<bool> counting{false};
std::atomic<int64_t> num_allocations{0};
}  // namespace

void* operator new(size_t bytes) {
  if (counting) ++num_allocations;
  if (void* const p = std::malloc(bytes == 0 ? 1 : bytes)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, size_t) noexcept {
  std::free(p);
}

namespace hotset {

void start_counting_allocations() {
  num_allocations = 0;
  counting = true;
}

int64_t stop_counting_allocations() {
  counting = false;
  return num_allocations;
}

}  // namespace hotset
