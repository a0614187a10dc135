// SPDX-License-Identifier: Apache-2.0
// Prompts that can't fit are refused early: the work follows the context, not the body.
#include <gtest/gtest.h>

#include <chrono>

#include "server/strict_json.h"
#include "support/test_server.h"

namespace hotset {
namespace {

using test::http_post;
using test::TestServer;

constexpr size_t kHuge = 4 << 20;

std::string code_of(const std::string& body) {
  const auto json = parse_strict_json(body);
  if (!json || !json->contains("error")) return body.substr(0, 200);
  return (*json)["error"].value("code", "");
}

TEST(PromptLength, TheLimitIsExact) {
  TestServer server({.model = {.vocab_size = 300, .max_tokens = 64}});
  const auto status = [&](size_t length) {
    return http_post(server.port(), "/v1/completions",
                     R"({"prompt":")" + std::string(length, 'x') + "\"}")
        .status;
  };
  EXPECT_EQ(status(63), 200) << "one token of room";
  EXPECT_EQ(status(64), 400);
  EXPECT_EQ(status(65), 400);
}

// Texts that differ in what stops them: the byte bound, the count of ids, added tokens in a row.
TEST(PromptLength, HugePromptsAreRefusedQuickly) {
  TestServer server;
  std::string words, added;
  while (words.size() < kHuge) words += "word and ";
  while (added.size() < kHuge) added += "<|im_end|>";
  for (const std::string& text : {std::string(kHuge, 'x'), words, added}) {
    for (const bool is_chat : {true, false}) {
      const std::string body = is_chat
                                   ? R"({"messages":[{"role":"user","content":")" + text + "\"}]}"
                                   : R"({"prompt":")" + text + "\"}";
      const auto answer =
          http_post(server.port(), is_chat ? "/v1/chat/completions" : "/v1/completions", body);
      EXPECT_EQ(answer.status, 400);
      EXPECT_EQ(code_of(answer.body), "context_length_exceeded");
    }
  }
}

// What is measured is the tokenizer's own share: the same call with and without a limit.
TEST(PromptLength, TheTokenizerStopsAtTheLimit) {
  const Tokenizer tokenizer = test::make_toy_tokenizer();
  const auto time_of = [&](const std::string& text, size_t max_tokens) {
    const Segment segment{text, true};
    const auto begin = std::chrono::steady_clock::now();
    const auto ids = tokenizer.tokenize_segments({&segment, 1}, max_tokens);
    EXPECT_EQ(ids.has_value(), max_tokens > text.size());
    EXPECT_TRUE(ids.has_value() || ids.error().kind == ErrorKind::kResource);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  std::string text;
  while (text.size() < kHuge) text += "a word, another one; 12345 \n";
  const double whole_s = time_of(text, SIZE_MAX);
  const double limited_s = time_of(text, 1000);
  EXPECT_LT(limited_s, whole_s / 2) << "validation only";
  const Segment word{"hello", false};
  EXPECT_EQ(tokenizer.tokenize_segments({&word, 1}, 5)->size(), 5u);
  EXPECT_FALSE(tokenizer.tokenize_segments({&word, 1}, 4).has_value());
  EXPECT_FALSE(tokenizer.tokenize_segments({&word, 1}, 0).has_value());
}

}  // namespace
}  // namespace hotset
