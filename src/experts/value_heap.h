// SPDX-License-Identifier: Apache-2.0
// For each layer the experts that are resident, least valuable on top: a binary heap a layer over
// keys that lie elsewhere, with each expert's place in it, so that a use moves its expert in
// O(log residents of the layer). Memory is taken once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace hotset {

class ValueHeap {
 public:
  // keys: [num_layers * num_experts], owned by the caller, at the same address for life.
  ValueHeap(int32_t num_layers, int32_t num_experts, const double* keys);

  [[nodiscard]] int32_t size(int32_t layer) const { return size_[static_cast<size_t>(layer)]; }
  [[nodiscard]] bool empty(int32_t layer) const { return size(layer) == 0; }
  // The layer's least valuable resident expert; the layer is not empty.
  [[nodiscard]] int32_t top(int32_t layer) const { return heap_[base(layer)]; }
  [[nodiscard]] bool contains(int32_t layer, int32_t expert) const {
    return place_[base(layer) + static_cast<size_t>(expert)] >= 0;
  }
  // The layer's experts in heap order.
  [[nodiscard]] std::span<const int32_t> experts(int32_t layer) const {
    return {heap_.data() + base(layer), static_cast<size_t>(size(layer))};
  }

  void insert(int32_t layer, int32_t expert);
  void remove(int32_t layer, int32_t expert);
  void key_changed(int32_t layer, int32_t expert);
  void key_rose(int32_t layer, int32_t expert) {
    sift_down(layer, place_[base(layer) + static_cast<size_t>(expert)]);
  }

  // Empty when places and order are right, else what is wrong.
  [[nodiscard]] std::string problem() const;

 private:
  [[nodiscard]] size_t base(int32_t layer) const {
    return static_cast<size_t>(layer) * static_cast<size_t>(num_experts_);
  }
  [[nodiscard]] bool less(size_t base, int32_t a, int32_t b) const {
    return keys_[base + static_cast<size_t>(a)] < keys_[base + static_cast<size_t>(b)];
  }
  void put(size_t base, int32_t at, int32_t expert);
  void sift_up(int32_t layer, int32_t at);
  void sift_down(int32_t layer, int32_t at);

  int32_t num_layers_;
  int32_t num_experts_;
  const double* keys_;
  std::vector<int32_t> heap_;   // [num_layers, num_experts]: experts, the first size_ in use
  std::vector<int32_t> place_;  // [num_layers, num_experts]: index in the layer's heap or -1
  std::vector<int32_t> size_;   // [num_layers]
};

}  // namespace hotset
