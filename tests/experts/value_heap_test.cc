// SPDX-License-Identifier: Apache-2.0
#include "experts/value_heap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace hotset {
namespace {

TEST(ValueHeap, TopIsTheLeastOfARandomHistory) {
  constexpr int32_t kLayers = 3, kExperts = 20;
  std::vector<double> keys(kLayers * kExperts, 0);
  ValueHeap heap(kLayers, kExperts, keys.data());
  std::vector<std::set<int32_t>> inside(kLayers);
  std::mt19937 engine(7);
  for (int i = 0; i < 20000; ++i) {
    const auto layer = static_cast<int32_t>(engine() % kLayers);
    const auto expert = static_cast<int32_t>(engine() % kExperts);
    auto& set = inside[static_cast<size_t>(layer)];
    double& key = keys[static_cast<size_t>(layer * kExperts + expert)];
    if (set.count(expert) == 0) {
      key = static_cast<double>(engine() % 50);
      heap.insert(layer, expert);
      set.insert(expert);
    } else if (engine() % 2 == 0) {
      key = static_cast<double>(engine() % 50);
      heap.key_changed(layer, expert);
    } else if (engine() % 2 == 0) {
      key += static_cast<double>(engine() % 10);
      heap.key_rose(layer, expert);
    } else {
      heap.remove(layer, expert);
      set.erase(expert);
    }
    ASSERT_EQ(heap.size(layer), static_cast<int32_t>(set.size()));
    if (set.empty()) continue;
    const auto key_of = [&](int32_t e) { return keys[static_cast<size_t>(layer * kExperts + e)]; };
    const int32_t least = *std::min_element(
        set.begin(), set.end(), [&](int32_t a, int32_t b) { return key_of(a) < key_of(b); });
    ASSERT_EQ(key_of(heap.top(layer)), key_of(least));
    ASSERT_TRUE(i % 100 != 0 || heap.problem().empty()) << heap.problem();
  }
}

TEST(ValueHeap, SaysWhatIsWrong) {
  std::vector<double> keys = {1, 2, 3};
  ValueHeap heap(1, 3, keys.data());
  for (int32_t expert = 0; expert < 3; ++expert) heap.insert(0, expert);
  EXPECT_EQ(heap.problem(), "");
  keys[0] = 5;  // without telling the heap
  EXPECT_NE(heap.problem(), "");
}

}  // namespace
}  // namespace hotset
