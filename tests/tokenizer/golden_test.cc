// SPDX-License-Identifier: Apache-2.0
// 120,000 generated strings in many scripts against Hugging Face tokenizers: not one id may differ.
// Run in tests/; tools/tokenizer/make_golden.py makes the files.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "base/utf8.h"
#include "text_generator.h"
#include "tokenizer/tokenizer.h"

namespace hotset::testing {
namespace {

struct Case {
  std::string name, tokenizer, hint;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

struct Golden {
  uint64_t tokenizer = 0, texts = 0, count = 0;
  std::vector<std::vector<int32_t>> first;  // ids of the first strings
  std::string hashes;                       // 2 bytes a string
};

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Golden read_golden(const std::string& name) {
  Golden golden;
  std::istringstream lines(read_file(fmt::format("golden/tokenizer/{}.txt", name)));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key;
    words >> key;
    if (key == "tokenizer") words >> std::hex >> golden.tokenizer;
    if (key == "texts") words >> std::hex >> golden.texts;
    if (key == "count") words >> golden.count;
    if (key == "ids") {
      golden.first.emplace_back(std::istream_iterator<int32_t>(words),
                                std::istream_iterator<int32_t>());
    }
  }
  golden.hashes = read_file(fmt::format("golden/tokenizer/{}.hashes", name));
  return golden;
}

// 16 bits: one wrong string goes unseen once in 65,536 times, and a bug seldom breaks one alone.
uint16_t hash_of(const std::vector<int32_t>& ids) {
  Fnv fnv;
  for (const int32_t id : ids) fnv.add(static_cast<uint64_t>(id));
  const uint64_t half = fnv.value() ^ (fnv.value() >> 32);
  return static_cast<uint16_t>(half ^ (half >> 16));
}

uint16_t stored_hash(const std::string& hashes, size_t index) {
  const auto low = static_cast<uint8_t>(hashes[2 * index]);
  const auto high = static_cast<uint8_t>(hashes[2 * index + 1]);
  return static_cast<uint16_t>(low | (high << 8));
}

uint64_t text_hash(std::string_view text) {
  Fnv fnv;
  for (size_t at = 0; at < text.size();) {
    const auto lead = static_cast<uint8_t>(text[at]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    uint32_t code = length == 1 ? lead : lead & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; ++i)
      code = (code << 6) | (static_cast<uint8_t>(text[at + i]) & 0x3fu);
    fnv.add(code);
    at += length;
  }
  return fnv.value();
}

// Every tokenizer that has golden files.
std::vector<Case> cases() {
  std::vector<Case> all = {{"qwen", HOTSET_QWEN_TOKENIZER, "tools/tokenizer/fetch_qwen_vocab.sh"}};
  if (std::filesystem::exists("golden/tokenizer/demo.txt")) {
    all.push_back({"demo", HOTSET_DEMO_TOKENIZER, "git checkout models/demo"});
  }
  return all;
}

class GoldenTest : public ::testing::TestWithParam<Case> {};

TEST_P(GoldenTest, NoStringDiffersFromHuggingFace) {
  const Case& c = GetParam();
  const Golden golden = read_golden(c.name);
  ASSERT_GE(golden.count, 100'000u);
  ASSERT_EQ(golden.hashes.size(), 2 * golden.count);
  const std::string file = read_file(c.tokenizer);
  ASSERT_FALSE(file.empty()) << c.tokenizer << " is missing; run: " << c.hint;
  Fnv file_hash;
  for (const char byte : file) file_hash.add(static_cast<uint8_t>(byte));
  ASSERT_EQ(file_hash.value(), golden.tokenizer) << c.tokenizer << " changed since the golden ids";
  const auto tokenizer = Tokenizer::load(c.tokenizer);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;

  TextGenerator generator("golden/tokenizer/generator.txt");
  Fnv texts;
  size_t different = 0;
  for (size_t i = 0; i < golden.count; ++i) {
    const std::string text = generator.text(i);
    texts.add(text_hash(text));
    const auto ids = tokenizer->tokenize(text);
    ASSERT_TRUE(ids) << ids.error().message;
    if (i < golden.first.size()) {
      ASSERT_EQ(*ids, golden.first[i]) << "string " << i << ": " << text;
    }
    if (hash_of(*ids) == stored_hash(golden.hashes, i)) continue;
    if (++different <= 5)
      ADD_FAILURE() << "string " << i << ": " << text << "\n" << fmt::format("{}", *ids);
  }
  EXPECT_EQ(texts.value(), golden.texts) << "the two generators differ";
  EXPECT_EQ(different, 0u) << "of " << golden.count;
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenTest, ::testing::ValuesIn(cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace hotset::testing
