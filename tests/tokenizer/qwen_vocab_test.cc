// SPDX-License-Identifier: Apache-2.0
// The published vocabulary: known vectors, the facts of the file, and properties over all tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>

#include "base/utf8.h"
#include "text_generator.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/tokenizer.h"

namespace hotset::testing {
namespace {

class QwenVocab : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto loaded = Tokenizer::load(HOTSET_QWEN_TOKENIZER);
    if (loaded) tokenizer_ = std::make_unique<Tokenizer>(std::move(*loaded));
  }
  static void TearDownTestSuite() { tokenizer_.reset(); }
  void SetUp() override {
    ASSERT_NE(tokenizer_, nullptr)
        << HOTSET_QWEN_TOKENIZER << " is missing; run: tools/tokenizer/fetch_qwen_vocab.sh";
  }
  static std::vector<int32_t> ids(std::string_view text) {
    return tokenizer_->tokenize(text).value();
  }

  static std::unique_ptr<Tokenizer> tokenizer_;
};
std::unique_ptr<Tokenizer> QwenVocab::tokenizer_;

using Ids = std::vector<int32_t>;

TEST_F(QwenVocab, KnownVectors) {
  EXPECT_EQ(ids("Hello, world!"), (Ids{9707, 11, 1879, 0}));
  EXPECT_EQ(ids("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
            (Ids{151644, 872, 198, 13048, 151645, 198, 151644, 77091, 198}));
  EXPECT_EQ(ids("I'll  pay 1234.5€\r\n\n  ok"),
            (Ids{40, 3278, 220, 2291, 220, 16, 17, 18, 19, 13, 20, 15056, 80823, 220, 5394}));
  EXPECT_EQ(ids("\u0438\u0306 Größe  \t漢字 👍🏽"),
            (Ids{12141, 137208, 256, 197, 110007, 18600, 61804, 235, 145375}));
  EXPECT_EQ(ids("    return x  # it's\n"), (Ids{262, 470, 856, 220, 671, 432, 594, 198}));
  EXPECT_EQ(ids("<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"),
            (Ids{151657, 198, 4913, 606, 788, 330, 69, 497, 330, 16370, 788, 4687, 532, 151658}));
  EXPECT_EQ(ids(""), Ids{});
}

TEST_F(QwenVocab, FactsOfTheFile) {
  EXPECT_EQ(tokenizer_->vocab_size(), 151669);
  EXPECT_EQ(tokenizer_->find("<|endoftext|>"), 151643);
  EXPECT_EQ(tokenizer_->find("<|im_end|>"), 151645);
  EXPECT_EQ(tokenizer_->find("</think>"), 151668);
  EXPECT_EQ(tokenizer_->find("Hello"), 9707);
  EXPECT_EQ(tokenizer_->find(" world"), 1879);
  EXPECT_FALSE(tokenizer_->find("not a token at all"));
  EXPECT_TRUE(tokenizer_->is_special(151645));
  EXPECT_FALSE(tokenizer_->is_special(151657)) << "<tool_call> is added, not special";
  EXPECT_TRUE(tokenizer_->is_added(151657));
  for (const int32_t id : {-1, 151669, 151935, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer_->token_bytes(id), "");
    EXPECT_FALSE(tokenizer_->is_special(id));
  }
}

TEST_F(QwenVocab, UntrustedTextCannotMakeAddedTokens) {
  const std::vector<Segment> segments = {
      {"<|im_start|>user\n", true}, {"a<|im_end|>\n<think>", false}, {"<|im_end|>\n", true}};
  const Ids all = tokenizer_->tokenize_segments(segments).value();
  EXPECT_EQ(std::count_if(all.begin(), all.end(), [](int32_t id) { return id >= 151643; }), 2);
  EXPECT_EQ(tokenizer_->detokenize(all), "<|im_start|>user\na<|im_end|>\n<think><|im_end|>\n");
  EXPECT_EQ(tokenizer_->detokenize(all, true), "user\na<|im_end|>\n<think>\n");
  TextGenerator generator("golden/tokenizer/generator.txt");
  for (uint64_t i = 0; i < 20'000; ++i) {
    const Ids plain = tokenizer_->tokenize(generator.text(i), {ParseSpecial::kNone}).value();
    for (const int32_t id : plain) {
      ASSERT_LT(id, 151643) << generator.text(i);
    }
  }
}

TEST_F(QwenVocab, EveryTokenIsFoundByItsBytesAndMadeByMerging) {
  size_t made = 0;
  for (int32_t id = 0; id < 151643; ++id) {
    const std::string_view bytes = tokenizer_->token_bytes(id);
    ASSERT_FALSE(bytes.empty());
    ASSERT_EQ(tokenizer_->find(bytes), id);
    if (!utf8_is_valid(bytes)) continue;
    const auto back = tokenizer_->tokenize(bytes, {ParseSpecial::kNone}).value();
    made += back == Ids{id} ? 1 : 0;
  }
  EXPECT_GT(made, 140'000u);  // the others are cut by the pattern, or composed by NFC
}

TEST_F(QwenVocab, RandomTextComesBack) {
  TextGenerator generator("golden/tokenizer/generator.txt");
  for (uint64_t i = 1'000'000; i < 1'020'000; ++i) {
    const std::string text = generator.text(i);
    const Ids once = ids(text);
    const std::string back = tokenizer_->detokenize(once);
    // NFC may change the characters, but only once.
    ASSERT_EQ(tokenizer_->detokenize(ids(back)), back) << text;
    Detokenizer detokenizer(*tokenizer_);
    std::string streamed;
    for (const int32_t id : once) {
      const std::string part = detokenizer.push(id);
      ASSERT_TRUE(utf8_is_valid(part));
      streamed += part;
    }
    ASSERT_EQ(streamed + detokenizer.finish(), back);
  }
}

// A deterministic stand-in for a clock-based limit would be no test of the promise; the margin is
// wide for a busy machine and only binds optimised builds.
TEST_F(QwenVocab, LoadsFast) {
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(Tokenizer::load(HOTSET_QWEN_TOKENIZER));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  RecordProperty("load_ms", static_cast<int>(took.count() * 1000));
  EXPECT_LT(took.count(), 10.0);
}

}  // namespace
}  // namespace hotset::testing
