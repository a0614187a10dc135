// SPDX-License-Identifier: Apache-2.0
// The largest logits as the GPU picks them: every list is its group's, in order, with what comes
// next, for vocabularies that fill no group, one row of a group, or the 80B's.
#include "kernels/cuda/top_logits.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "cuda/gpu_testing.h"
#include "kernels/op_testing.h"

namespace hotset {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

struct Entry {
  int32_t id;
  float logit;
};

std::vector<std::vector<Entry>> groups_of(const std::vector<float>& logits) {
  std::vector<std::vector<Entry>> groups(cuda::kLogitGroups);
  for (size_t id = 0; id < logits.size(); ++id) {
    groups[id / 32 % cuda::kLogitGroups].push_back({static_cast<int32_t>(id), logits[id]});
  }
  for (auto& group : groups) {
    std::stable_sort(group.begin(), group.end(),
                     [](const Entry& a, const Entry& b) { return a.logit > b.logit; });
  }
  return groups;
}

class TopLogits : public testing::GpuTest {
 protected:
  // Of the first num_valid of each row.
  std::vector<cuda::LogitGroup> picked(const std::vector<float>& logits, int64_t num_rows,
                                       int64_t num_valid) {
    const float* on_device = upload(logits);
    const int64_t num_groups = num_rows * cuda::kLogitGroups;
    auto* groups = reinterpret_cast<cuda::LogitGroup*>(
        garbage<float>(num_groups * static_cast<int64_t>(sizeof(cuda::LogitGroup)) / 4));
    cuda::top_logits(queue(), on_device, num_rows, std::ssize(logits) / num_rows, num_valid,
                     groups);
    EXPECT_TRUE(queue().status) << queue().status.error().message;
    return download(groups, num_groups);
  }
  std::vector<cuda::LogitGroup> picked(const std::vector<float>& logits) {
    return picked(logits, 1, std::ssize(logits));
  }
};

TEST_F(TopLogits, AreEachGroupsLargest) {
  for (const int64_t vocab : {1, 31, 500, 8192, 8193, 151669, 151936}) {
    testing::Numbers numbers(static_cast<uint32_t>(vocab));
    std::vector<float> logits = numbers.normal(vocab, 3.0f);
    // Rounded, so that equal logits are common.
    for (float& logit : logits) logit = std::round(logit * 64) / 64;
    const auto expected = groups_of(logits);
    const auto groups = picked(logits);
    for (size_t g = 0; g < groups.size(); ++g) {
      const auto& wanted = expected[g];
      for (size_t i = 0; i < cuda::kListedLogits; ++i) {
        const bool is_there = i < wanted.size();
        ASSERT_EQ(groups[g].ids[i], is_there ? wanted[i].id : -1) << vocab << ", group " << g;
        ASSERT_EQ(groups[g].logits[i], is_there ? wanted[i].logit : kNone) << vocab;
      }
      const bool has_next = wanted.size() > cuda::kListedLogits;
      ASSERT_EQ(groups[g].next, has_next ? wanted[cuda::kListedLogits].logit : kNone) << vocab;
      ASSERT_EQ(groups[g].not_finite, 0u) << vocab;
    }
  }
}

TEST_F(TopLogits, OfSeveralRowsAreThoseOfEach) {
  constexpr int64_t kRows = 5, kWidth = 9000, kValid = 8997;
  const std::vector<float> logits = testing::Numbers(7).normal(kRows * kWidth, 3.0f);
  const auto together = picked(logits, kRows, kValid);
  for (int64_t row = 0; row < kRows; ++row) {
    const auto begin = logits.begin() + row * kWidth;
    const auto alone = picked({begin, begin + kValid});
    for (size_t g = 0; g < alone.size(); ++g) {
      const auto& got = together[static_cast<size_t>(row) * alone.size() + g];
      ASSERT_EQ(std::memcmp(&got, &alone[g], sizeof(got)), 0) << "row " << row << ", group " << g;
    }
  }
}

TEST_F(TopLogits, SeeWhatIsNotFiniteWhereverItIs) {
  for (const float bad : {kNone, -kNone, std::numeric_limits<float>::quiet_NaN()}) {
    for (const size_t at : {0, 777, 151935}) {
      std::vector<float> logits(151936, 1.0f);
      logits[at] = bad;
      const auto groups = picked(logits);
      for (size_t g = 0; g < groups.size(); ++g) {
        EXPECT_EQ(groups[g].not_finite, g == at / 32 % cuda::kLogitGroups ? 1u : 0u) << at;
      }
    }
  }
}

}  // namespace
}  // namespace hotset
