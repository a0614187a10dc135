// SPDX-License-Identifier: Apache-2.0
// What a model on a GPU hands over instead of all logits: the same logits, and texts that are drawn
// from them are those that all logits give.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "model/language_model.h"
#include "sampling/sampler.h"

namespace hotset {
namespace {

const std::string kDemo = "../models/demo";

class GpuHead : public testing::Test {
 protected:
  void SetUp() override {
    auto model = LanguageModel::load(
        kDemo, {.device = Device::kCuda, .isa = cpu::detect_isa(), .max_model_len = 512}, {});
    ASSERT_TRUE(model) << model.error().message;
    model_ = std::move(*model);
    logits_.resize(static_cast<size_t>(model_->vocab_size()));
  }
  // 48 tokens after a prompt; from heads where they settle it.
  std::vector<int32_t> text(const SamplingParams& params, bool by_heads) {
    std::vector<int32_t> ids = {5, 99, 17, 300};
    const int64_t valid = model_->vocab_size() - 3;
    Sampler sampler(params, 7, valid, {}, ids);
    SamplerScratch scratch;
    auto sequence = model_->new_sequence(100);
    EXPECT_TRUE(sequence);
    std::vector<int32_t> next = ids;
    for (int step = 0; step < 48; ++step) {
      LogitsHead head;
      std::optional<SampledToken> token;
      if (by_heads) {
        const auto has_head = model_->extend_head(**sequence, next, valid, head);
        EXPECT_TRUE(has_head && *has_head);
        EXPECT_TRUE(model_->read_logits(0, logits_));
        expect_listed(head, valid);
        const auto sampled = sampler.sample_head(head, scratch);
        EXPECT_TRUE(sampled);
        token = sampled.value_or(std::nullopt);
        num_settled_ += token ? 1 : 0;
      } else {
        EXPECT_TRUE(model_->extend(**sequence, next, logits_));
      }
      if (!token) token = *sampler.sample(logits_, scratch);
      next = {token->token};
      ids.push_back(token->token);
    }
    return ids;
  }
  void expect_listed(const LogitsHead& head, int64_t valid) {
    std::vector<bool> listed(logits_.size());
    for (const LogitsHead::Entry& entry : head.largest) {
      const auto id = static_cast<size_t>(entry.token);
      ASSERT_LT(id, static_cast<size_t>(valid));
      EXPECT_EQ(entry.logit, logits_[id]);
      listed[id] = true;
    }
    float largest = -std::numeric_limits<float>::infinity();
    for (size_t id = 0; id < static_cast<size_t>(valid); ++id) {
      if (!listed[id]) largest = std::max(largest, logits_[id]);
    }
    EXPECT_EQ(largest, head.cut);
    EXPECT_TRUE(head.all_finite);
  }

  std::unique_ptr<LanguageModel> model_;
  std::vector<float> logits_;
  int num_settled_ = 0;
};

TEST_F(GpuHead, OfABatchAreThoseOfEachSequence) {
  const int64_t valid = model_->vocab_size() - 3;
  std::vector<std::unique_ptr<SequenceState>> sequences;
  std::vector<SequenceStep> steps;
  std::vector<LogitsHead> heads(3);
  for (int32_t s = 0; s < 3; ++s) {
    auto sequence = model_->new_sequence(100);
    ASSERT_TRUE(sequence);
    sequences.push_back(std::move(*sequence));
    const std::vector<int32_t> prompt = {5 + s, 99, 17 * s, 300};
    ASSERT_TRUE(model_->extend(*sequences.back(), prompt, logits_));
    steps.push_back({sequences.back().get(), 40 + s});
  }
  ASSERT_EQ(model_->max_decode_batch(), 4) << "as many as may hold state";
  for (int step = 0; step < 4; ++step) {
    const auto has_heads = model_->extend_batch_heads(steps, valid, heads);
    ASSERT_TRUE(has_heads && *has_heads);
    for (const int64_t row : {2, 0, 1}) {
      ASSERT_TRUE(model_->read_logits(row, logits_));
      expect_listed(heads[static_cast<size_t>(row)], valid);
    }
  }
}

TEST_F(GpuHead, GivesTheTextThatAllLogitsGive) {
  SamplingParams greedy, usual, cold, all;
  greedy.temperature = 0;
  usual.temperature = 0.7;
  usual.top_k = 20;
  usual.top_p = 0.8;
  cold = usual;
  cold.top_k = 0;
  cold.top_p = 1;
  cold.min_p = 0.1;
  cold.repetition_penalty = 1.2;
  int num_texts = 0;
  for (const SamplingParams& params : {greedy, usual, cold, all}) {
    EXPECT_EQ(text(params, true), text(params, false)) << "text " << num_texts;
    ++num_texts;
  }
  EXPECT_GT(num_settled_, 96) << "of 144 that heads can settle";
}

}  // namespace
}  // namespace hotset
