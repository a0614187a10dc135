// SPDX-License-Identifier: Apache-2.0
#include "experts/value_heap.h"

#include <fmt/format.h>

#include "base/check.h"

namespace hotset {

ValueHeap::ValueHeap(int32_t num_layers, int32_t num_experts, const double* keys)
    : num_layers_(num_layers), num_experts_(num_experts), keys_(keys) {
  const size_t count = static_cast<size_t>(num_layers) * static_cast<size_t>(num_experts);
  heap_.assign(count, -1);
  place_.assign(count, -1);
  size_.assign(static_cast<size_t>(num_layers), 0);
}

void ValueHeap::put(size_t base, int32_t at, int32_t expert) {
  heap_[base + static_cast<size_t>(at)] = expert;
  place_[base + static_cast<size_t>(expert)] = at;
}

void ValueHeap::sift_up(int32_t layer, int32_t at) {
  const size_t b = base(layer);
  const int32_t expert = heap_[b + static_cast<size_t>(at)];
  while (at > 0) {
    const int32_t parent = (at - 1) / 2;
    const int32_t above = heap_[b + static_cast<size_t>(parent)];
    if (!less(b, expert, above)) break;
    put(b, at, above);
    at = parent;
  }
  put(b, at, expert);
}

void ValueHeap::sift_down(int32_t layer, int32_t at) {
  const size_t b = base(layer);
  const int32_t expert = heap_[b + static_cast<size_t>(at)];
  const int32_t count = size(layer);
  for (;;) {
    int32_t child = 2 * at + 1;
    if (child >= count) break;
    if (child + 1 < count &&
        less(b, heap_[b + static_cast<size_t>(child) + 1], heap_[b + static_cast<size_t>(child)])) {
      ++child;
    }
    const int32_t below = heap_[b + static_cast<size_t>(child)];
    if (!less(b, below, expert)) break;
    put(b, at, below);
    at = child;
  }
  put(b, at, expert);
}

void ValueHeap::insert(int32_t layer, int32_t expert) {
  HS_CHECK(!contains(layer, expert), "layer {} expert {} is in the heap", layer, expert);
  const int32_t at = size_[static_cast<size_t>(layer)]++;
  put(base(layer), at, expert);
  sift_up(layer, at);
}

void ValueHeap::remove(int32_t layer, int32_t expert) {
  HS_CHECK(contains(layer, expert), "layer {} expert {} is not in the heap", layer, expert);
  const size_t b = base(layer);
  const int32_t at = place_[b + static_cast<size_t>(expert)];
  const int32_t last = --size_[static_cast<size_t>(layer)];
  const int32_t moved = heap_[b + static_cast<size_t>(last)];
  place_[b + static_cast<size_t>(expert)] = -1;
  if (at == last) return;
  put(b, at, moved);
  key_changed(layer, moved);
}

void ValueHeap::key_changed(int32_t layer, int32_t expert) {
  sift_up(layer, place_[base(layer) + static_cast<size_t>(expert)]);
  sift_down(layer, place_[base(layer) + static_cast<size_t>(expert)]);
}

std::string ValueHeap::problem() const {
  for (int32_t layer = 0; layer < num_layers_; ++layer) {
    const size_t b = base(layer);
    int32_t placed = 0;
    for (int32_t expert = 0; expert < num_experts_; ++expert) {
      placed += place_[b + static_cast<size_t>(expert)] >= 0 ? 1 : 0;
    }
    if (placed != size(layer)) {
      return fmt::format("layer {}: {} experts have a place among {}", layer, placed, size(layer));
    }
    for (int32_t at = 0; at < size(layer); ++at) {
      const int32_t expert = heap_[b + static_cast<size_t>(at)];
      if (place_[b + static_cast<size_t>(expert)] != at) {
        return fmt::format("layer {} expert {}: its place is not {}", layer, expert, at);
      }
      if (at > 0 && less(b, expert, heap_[b + static_cast<size_t>((at - 1) / 2)])) {
        return fmt::format("layer {} expert {}: worth less than the one above", layer, expert);
      }
    }
  }
  return {};
}

}  // namespace hotset
