// SPDX-License-Identifier: Apache-2.0
// Files that must be refused, and that the message names what is wrong.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "small_tokenizer.h"

namespace hotset::testing {
namespace {

using ::testing::HasSubstr;

void expect_refused(const std::string& json, const std::string& named) {
  const auto tokenizer = Tokenizer::parse(json, "small.json");
  ASSERT_FALSE(tokenizer) << "accepted, though it should name: " << named;
  EXPECT_THAT(tokenizer.error().message, HasSubstr(named));
  EXPECT_THAT(tokenizer.error().message, HasSubstr("small.json"));
}

// The small file with one piece of its text replaced.
std::string bent(std::string_view from, std::string_view to) {
  std::string json = SmallTokenizer{}.json();
  const size_t at = json.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return json.replace(at, from.size(), to);
}

TEST(TokenizerFile, TheUnbentFileLoads) {
  ASSERT_TRUE(Tokenizer::parse(bent("\"1.0\"", "\"1.0\""), "small.json"));
}

TEST(TokenizerFile, NotEvenJson) {
  for (const char* json :
       {"", " ", "null", "[]", "3", "\"x\"", "{", "{\"model\":", "{}", "\xff",
        "{\"model\":{\"type\":\"BPE\"}}", "{\"model\":3}", "{\"a\":1 \"b\":2}"}) {
    expect_refused(json, "small.json");
  }
  expect_refused(std::string(100'000, '['), "small.json");
  expect_refused("{\"x\":" + std::string(100'000, '['), "small.json");
}

TEST(TokenizerFile, Model) {
  expect_refused(bent(R"("type":"BPE")", R"("type":"Unigram")"), "model.type 'Unigram'");
  expect_refused(bent(R"("dropout":null)", R"("dropout":0.1)"), "model.dropout");
  expect_refused(bent(R"("dropout":null)", R"("byte_fallback":true)"), "model.byte_fallback");
  expect_refused(bent(R"("dropout":null)", R"("end_of_word_suffix":"</w>")"), "end_of_word_suffix");
  expect_refused(bent(R"("ignore_merges":false)", R"("ignore_merges":"no")"), "ignore_merges");
  expect_refused(bent(R"("model":)", R"("modell":)"), "model is missing");
  expect_refused(bent(R"("vocab":)", R"("vocabulary":)"), "model.vocab is missing");
  expect_refused(bent(R"("merges":)", R"("merge":)"), "model.merges is missing");
  expect_refused(bent(R"("version":"1.0")", R"("model":{},"version":"1.0")"), "model");
  expect_refused(bent(R"("version":"1.0")", R"("normalizer":null)"), "'normalizer' twice");
}

TEST(TokenizerFile, Vocabulary) {
  for (const char* id : {"-1", "4194304", "9223372036854775807", "18446744073709551616", "1.5",
                         "1e9", "null", "\"7\"", "[]", "true"}) {
    expect_refused(bent(R"("a":97)", fmt::format(R"("a":{})", id)), "model.vocab['a']");
  }
  expect_refused(bent(R"("a":97)", R"("a":98)"), "two tokens have id 98");
  expect_refused(bent(R"("a":97)", R"("a":97,"a":290)"), "the same token");
  expect_refused(bent(R"("a":97,)", ""), "no token for the byte 0x61");
  expect_refused(bent(R"("a":97)", R"("a":97,"":290)"), "empty");
  expect_refused(bent(R"("a":97)", R"("a":97,"漢":290)"), "stands for no byte");
  expect_refused(bent(R"("a":97)", R"("a":97,"a b":290)"), "stands for no byte");
}

TEST(TokenizerFile, Merges) {
  const std::string first = R"(["h","e"])";
  for (const char* merge : {"[]", "[\"h\"]", "[\"h\",\"e\",\"l\"]", "3", "null", "\"he\"",
                            "\"h e l\"", "{}", "[\"h\",5]"}) {
    expect_refused(bent(first, merge), "model.merges[0]");
  }
  expect_refused(bent(first, R"(["h","x"])"), "model.merges[0]");
  expect_refused(bent(first, R"(["qq","x"])"), "model.merges[0]");
  expect_refused(bent(first, R"(["","he"])"), "model.merges[0]");
  expect_refused(bent(first, R"(["h","e"],["h","e"])"), "model.merges[1]");
  expect_refused(bent(R"("merges":[)", R"("merges":[["h","e"],)"), "model.merges[1]");
  SmallTokenizer small;  // a merge may not write a special token
  small.extra_vocab = R"(,"<|":310,"<|end|>":300,"end|>":311)";
  EXPECT_TRUE(small.load());
  std::string json = small.json();
  json.insert(json.find(R"("merges":[)") + 10, R"(["<|","end|>"],)");
  expect_refused(json, "model.merges[0]");
}

TEST(TokenizerFile, AddedTokens) {
  expect_refused(bent(R"("id":300)", R"("id":97)"), "two tokens have id 97");
  expect_refused(bent(R"("id":300)", R"("id":301)"), "two tokens have id 301");
  expect_refused(bent(R"("id":300)", R"("id":-1)"), "added_tokens[0].id");
  expect_refused(bent(R"("id":300)", R"("id":4294967297)"), "added_tokens[0].id");
  expect_refused(bent(R"("id":300,)", ""), "added_tokens[0]");
  expect_refused(bent(R"("content":"<|end|>")", R"("content":"")"), "empty");
  expect_refused(bent(R"("content":"<|end|>")", R"("content":"<think>")"), "<think>");
  expect_refused(bent(R"("content":"<|end|>")", R"("content":7)"), "added_tokens[0].content");
  expect_refused(bent(R"("lstrip":false)", R"("lstrip":true)"), "added_tokens[0].lstrip");
  expect_refused(bent(R"("single_word":false)", R"("single_word":true)"), "single_word");
  expect_refused(bent(R"("special":true)", R"("special":1)"), "added_tokens[0].special");
  expect_refused(
      bent(R"("content":"<|end|>")", fmt::format(R"("content":"{}")", std::string(600, 'x'))),
      "600 bytes");
  std::string many = "[";
  for (int i = 0; i <= 100'000; ++i) many += R"({"id":300,"content":"x"},)";
  SmallTokenizer crowded;
  crowded.added_tokens = many + "{}]";
  expect_refused(crowded.json(), "more than 100000");
  SmallTokenizer small;
  small.extra_vocab = R"(,"<|end|>":299)";
  expect_refused(small.json(), "'<|end|>' has id 299 in model.vocab and 300");
}

TEST(TokenizerFile, NormalizerAndPreTokenizer) {
  expect_refused(bent(R"("type":"NFC")", R"("type":"NFKC")"), "normalizer.type 'NFKC'");
  expect_refused(bent(R"({"type":"NFC"})", R"("NFC")"), "normalizer");
  expect_refused(bent(R"("pre_tokenizer":)", R"("pre":)"), "pre_tokenizer is missing");
  const auto with = [](const std::string& pre_tokenizer) {
    SmallTokenizer small;
    small.pre_tokenizer = pre_tokenizer;
    return small.json();
  };
  expect_refused(with("null"), "pre_tokenizer");
  expect_refused(with(R"({"type":"Metaspace"})"), "pre_tokenizer.type 'Metaspace'");
  expect_refused(with(R"({"type":"ByteLevel","add_prefix_space":true})"), "add_prefix_space");
  expect_refused(with(R"({"type":"Sequence","pretokenizers":[]})"), "pre_tokenizer");
  expect_refused(with(R"({"type":"Sequence","pretokenizers":[{"type":"Sequence"}]})"),
                 "pretokenizers[0].type");
  const std::string split = SmallTokenizer::split("a|b");
  EXPECT_TRUE(Tokenizer::parse(with(split), "small.json"));
  const auto bent_split = [&](std::string_view from, std::string_view to) {
    std::string text = split;
    return with(text.replace(text.find(from), from.size(), to));
  };
  expect_refused(bent_split("Isolated", "Removed"), "pretokenizers[0].behavior 'Removed'");
  expect_refused(bent_split(R"("invert":false)", R"("invert":true)"), "invert");
  expect_refused(bent_split("Regex", "String"), "pattern 'String'");
  expect_refused(bent_split(R"({"Regex":"a|b"})", "7"), "pattern");
  expect_refused(bent_split(R"("use_regex":false)", R"("use_regex":true)"), "use_regex");
  expect_refused(bent(R"("decoder":{"type":"ByteLevel")", R"("decoder":{"type":"WordPiece")"),
                 "decoder.type 'WordPiece'");
  expect_refused(
      bent(R"("post_processor":null)", R"("post_processor":{"type":"TemplateProcessing"})"),
      "post_processor.type");
}

TEST(TokenizerFile, HostilePatterns) {
  const auto with = [](const std::string& pattern) {
    SmallTokenizer small;
    small.pre_tokenizer = SmallTokenizer::split(pattern);
    return small.json();
  };
  std::string nested;
  for (int i = 0; i < 60; ++i) nested = "(" + nested + ")";
  for (const std::string& pattern :
       {std::string("(a+)+$"), std::string("(a|aa)+$"), std::string("(.*)*x"),
        std::string("a*a*a*b"), std::string("(?:a{65535}){65535}"), std::string("(a"),
        std::string("[z-a]"), std::string("a*"), std::string(""), nested, std::string(5000, 'a'),
        std::string("(?:(?:a+)+)+b"), std::string("(\\\\s+)+\\\\d"), std::string("(?R)?a|(?R)b"),
        std::string("\\\\C")}) {
    expect_refused(with(pattern), "pattern");
  }
}

}  // namespace
}  // namespace hotset::testing
