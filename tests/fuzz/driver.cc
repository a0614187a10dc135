// SPDX-License-Identifier: Apache-2.0
// A stand-in for libFuzzer where the compiler has none: replays every corpus file, then mutates
// them (bit flips, cuts, splices, repeated runs, boundary integers) for --seconds with a fixed
// seed.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t kMaxInputBytes = size_t{1} << 20;

std::vector<Bytes> read_corpus(const std::string& dir) {
  std::vector<Bytes> corpus;
  if (!std::filesystem::is_directory(dir)) return corpus;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(dir)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return corpus;
}

void mutate(Bytes& bytes, const std::vector<Bytes>& corpus, std::mt19937_64& rng) {
  const auto pick = [&](size_t n) { return n == 0 ? size_t{0} : rng() % n; };
  const size_t at = pick(bytes.size() + 1);
  switch (pick(6)) {
    case 0:
      if (!bytes.empty()) bytes[pick(bytes.size())] ^= static_cast<uint8_t>(1u << pick(8));
      break;
    case 1:
      bytes.resize(at);
      break;
    case 2: {
      const Bytes& other = corpus[pick(corpus.size())];
      const size_t from = pick(other.size() + 1);
      bytes.resize(at);
      bytes.insert(bytes.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
      break;
    }
    case 3: {  // a long run: the deep-nesting mutator
      static constexpr char kRunBytes[] = "[{(\"\\%a \xff";
      const auto byte = static_cast<uint8_t>(kRunBytes[pick(sizeof(kRunBytes) - 1)]);
      bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), size_t{1} << pick(14), byte);
      break;
    }
    case 4: {
      static const std::string kNumbers[] = {
          "0", "-1", "4294967296", "9223372036854775807", "18446744073709551615", "1e999", "null"};
      const std::string& text = kNumbers[pick(std::size(kNumbers))];
      bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), text.begin(), text.end());
      break;
    }
    default:
      if (!bytes.empty()) bytes[pick(bytes.size())] = static_cast<uint8_t>(rng());
      break;
  }
  if (bytes.size() > kMaxInputBytes) bytes.resize(kMaxInputBytes);
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 2;
  std::vector<Bytes> corpus{Bytes{}};
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--seconds" && i + 1 < argc) {
      seconds = std::atof(argv[++i]);
    } else {
      for (Bytes& bytes : read_corpus(argv[i])) corpus.push_back(std::move(bytes));
    }
  }
  for (const Bytes& bytes : corpus) LLVMFuzzerTestOneInput(bytes.data(), bytes.size());

  std::mt19937_64 rng(20261121);
  const auto start = std::chrono::steady_clock::now();
  size_t runs = 0;
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() <
         seconds) {
    Bytes bytes = corpus[rng() % corpus.size()];
    const size_t rounds = 1 + rng() % 4;
    for (size_t r = 0; r < rounds; ++r) mutate(bytes, corpus, rng);
    const auto run_start = std::chrono::steady_clock::now();
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    const double run_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - run_start).count();
    if (run_s > 10) {
      std::fprintf(stderr, "slow input: %zu bytes took %.1f s\n", bytes.size(), run_s);
      return 1;
    }
    ++runs;
  }
  std::printf("%zu corpus files, %zu mutated runs\n", corpus.size() - 1, runs);
  return 0;
}
