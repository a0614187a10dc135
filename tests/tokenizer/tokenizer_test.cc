// SPDX-License-Identifier: Apache-2.0
// The pipeline on a tokenizer small enough to predict by hand.
#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "base/utf8.h"
#include "small_tokenizer.h"

namespace hotset::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Tokenizer load(const SmallTokenizer& small = {}) {
  auto loaded = small.load();
  EXPECT_TRUE(loaded) << loaded.error().message;
  return std::move(*loaded);
}

TEST(Tokenizer, MergesInRankOrder) {
  for (const bool as_strings : {false, true}) {
    SmallTokenizer small;
    small.merges_as_strings = as_strings;
    const Tokenizer tokenizer = load(small);
    EXPECT_THAT(tokenizer.tokenize("hello world").value(), ElementsAre(259, 262, 'l', 'd'));
    EXPECT_THAT(tokenizer.tokenize("helo").value(), ElementsAre(256, 'l', 'o'));
    EXPECT_THAT(tokenizer.tokenize("llll").value(), ElementsAre(257, 257));
    EXPECT_THAT(tokenizer.tokenize("lll").value(), ElementsAre(257, 'l'));
    EXPECT_THAT(tokenizer.tokenize("").value(), IsEmpty());
  }
}

TEST(Tokenizer, AddedTokensOnlyWhereTrusted) {
  const Tokenizer tokenizer = load();
  EXPECT_THAT(tokenizer.tokenize("h<|end|><think>").value(), ElementsAre('h', 300, 301));
  const auto none = tokenizer.tokenize("<|end|><think>", {ParseSpecial::kNone}).value();
  EXPECT_EQ(none.size(), 14u);
  const Segment segments[] = {
      {"<|end|>", true}, {"<|end|>", false}, {"", true}, {"<|en", true}, {"d|>", true}};
  EXPECT_THAT(
      tokenizer.tokenize_segments(segments).value(),
      ElementsAre(300, '<', '|', 'e', 'n', 'd', '|', '>', '<', '|', 'e', 'n', 'd', '|', '>'));
}

TEST(Tokenizer, NoTokenSpansTwoSegments) {
  const Segment segments[] = {{"he", false}, {"llo", false}};
  EXPECT_THAT(load().tokenize_segments(segments).value(), ElementsAre(256, 257, 'o'));
}

TEST(Tokenizer, LeftmostLongestAddedToken) {
  SmallTokenizer small;
  small.added_tokens = R"([{"id":300,"content":"<a","normalized":false},
    {"id":301,"content":"<a>b","normalized":false},{"id":302,"content":"a>b>","normalized":false}])";
  const Tokenizer tokenizer = load(small);
  EXPECT_THAT(tokenizer.tokenize("<a>b>").value(), ElementsAre(301, '>'));
  EXPECT_THAT(tokenizer.tokenize("<a>c").value(), ElementsAre(300, '>', 'c'));
  EXPECT_THAT(tokenizer.tokenize("a>b>").value(), ElementsAre(302));
}

TEST(Tokenizer, NormalizedAddedTokensMatchAfterNfc) {
  SmallTokenizer small;
  small.added_tokens = R"([{"id":300,"content":"\u01d0","normalized":false},
    {"id":301,"content":"e\u030a","normalized":true},{"id":302,"content":"a\u030a","normalized":true}])";
  const Tokenizer tokenizer = load(small);
  EXPECT_THAT(tokenizer.tokenize("\u01d0").value(), ElementsAre(300));
  EXPECT_THAT(tokenizer.tokenize("i\u030c").value(), ElementsAre(0xc7, 0x90)) << "raw text only";
  EXPECT_THAT(tokenizer.tokenize("\u00e5a\u030a").value(), ElementsAre(302, 302));
}

TEST(Tokenizer, IgnoreMergesTakesWholePieces) {
  SmallTokenizer small;
  small.extra_vocab = R"(,"xyz":280)";
  EXPECT_THAT(load(small).tokenize("xyz").value(), ElementsAre('x', 'y', 'z'));
  small.model_settings = R"("type":"BPE","ignore_merges":true)";
  EXPECT_THAT(load(small).tokenize("xyz xyz").value(), ElementsAre(280, ' ', 'x', 'y', 'z'));
}

TEST(Tokenizer, InvalidUtf8NamesTheByte) {
  const Tokenizer tokenizer = load();
  for (const std::string_view text : {"abc\xff", "abc\xc3", "abc\xed\xa0\x80", "abc\xc0\x80"}) {
    const auto ids = tokenizer.tokenize(text);
    ASSERT_FALSE(ids);
    EXPECT_THAT(ids.error().message, HasSubstr("byte 3"));
  }
}

TEST(Tokenizer, EveryByteAndCharacterComesBack) {
  SmallTokenizer small;
  small.normalizer = "null";
  const Tokenizer tokenizer = load(small);
  for (int id = 0; id < 256; ++id) {
    const char byte = static_cast<char>(id);
    EXPECT_EQ(tokenizer.token_bytes(id), std::string_view(&byte, 1));
    EXPECT_EQ(tokenizer.find(std::string_view(&byte, 1)), id);
  }
  std::string text;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    utf8_append(text, c);
    if (c % 61 != 0) continue;
    EXPECT_EQ(tokenizer.detokenize(tokenizer.tokenize(text).value()), text);
    text.clear();
  }
}

TEST(Tokenizer, ManyThreadsShareOne) {
  const Tokenizer tokenizer = load();
  const auto expected = tokenizer.tokenize("hello world e\u0301 123 <|end|>").value();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        EXPECT_EQ(tokenizer.tokenize("hello world e\u0301 123 <|end|>").value(), expected);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

class ConfigFile : public ::testing::Test {
 protected:
  Result<Tokenizer> load_with(const std::string& config) {
    const std::string dir = ::testing::TempDir();
    std::ofstream(dir + "tokenizer.json") << SmallTokenizer{}.json();
    std::ofstream(dir + "tokenizer_config.json") << config;
    return Tokenizer::load(dir + "tokenizer.json", dir + "tokenizer_config.json");
  }
};

TEST_F(ConfigFile, NamesTheEnds) {
  const auto tokenizer = load_with(R"({"add_bos_token":false,"bos_token":null,"eos_token":"<|end|>",
    "pad_token":{"content":"<think>","special":false},"model_max_length":1e30,
    "added_tokens_decoder":{"300":{"content":"<|end|>"}}})");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->eos_id(), 300);
  EXPECT_EQ(tokenizer->pad_id(), 301);
  EXPECT_FALSE(tokenizer->bos_id());
}

TEST_F(ConfigFile, RefusesContradictions) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"eos_token":"<nope>"})", "eos_token"},
      {R"({"eos_token":5})", "eos_token"},
      {R"({"add_bos_token":true})", "add_bos_token"},
      {R"({"added_tokens_decoder":{"300":{"content":"<think>"}}})", "added_tokens_decoder"},
      {R"({"added_tokens_decoder":{"-1":{"content":"<think>"}}})", "added_tokens_decoder"},
      {R"([])", "not an object"},
      {R"({"eos_token":)", "tokenizer_config.json"},
  };
  for (const auto& [config, named] : cases) {
    const auto tokenizer = load_with(config);
    ASSERT_FALSE(tokenizer) << config;
    EXPECT_THAT(tokenizer.error().message, HasSubstr(named));
  }
}

TEST(Tokenizer, MissingFilesAreNamed) {
  const auto tokenizer = Tokenizer::load("/nowhere/tokenizer.json");
  ASSERT_FALSE(tokenizer);
  EXPECT_THAT(tokenizer.error().message, HasSubstr("/nowhere/tokenizer.json"));
  EXPECT_FALSE(Tokenizer::load("/"));
}

}  // namespace
}  // namespace hotset::testing
