// SPDX-License-Identifier: Apache-2.0
// Synthetic checkpoints: the files agree with each other, the bytes with the seed, the tensor
// counts with the real models, and the weights have the deviation that was planned for.
#include "synth.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "base/float16.h"
#include "chat/chat_template.h"
#include "synth_fill.h"
#include "synth_model.h"
#include "synth_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// A directory that leaves with the test.
class Folder {
 public:
  explicit Folder(const std::string& name)
      : path_(fs::temp_directory_path() /
              ("hotset_synth_" + name + "_" + std::to_string(::getpid()))) {
    fs::remove_all(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  [[nodiscard]] std::string text() const { return path_.string(); }
  [[nodiscard]] fs::path operator/(const char* name) const { return path_ / name; }

 private:
  fs::path path_;
};

constexpr SynthFormat kFormats[] = {SynthFormat::kBf16, SynthFormat::kGptq,
                                    SynthFormat::kAwq,  SynthFormat::kCompressedTensors,
                                    SynthFormat::kNf4,  SynthFormat::kFp8};

TEST(Synth, ShardsTileAndTheIndexFindsEveryTensor) {
  for (const SynthFormat format : kFormats) {
    const Folder folder("shards");
    const SynthOptions options = {
        .like = "tiny", .format = format, .directory = folder.text(), .shard_bytes = 3'000'000};
    const auto status = write_synthetic_checkpoint(options);
    ASSERT_TRUE(status) << status.error().message;
    const auto index = nlohmann::json::parse(read_file(folder / "model.safetensors.index.json"));
    size_t found = 0;
    int64_t bytes = 0;
    std::string last_file;
    for (const auto& entry : fs::directory_iterator(folder.text())) {
      if (entry.path().extension() != ".safetensors") continue;
      const std::string file = read_file(entry.path());
      uint64_t header_bytes = 0;
      std::memcpy(&header_bytes, file.data(), 8);
      const auto header = nlohmann::json::parse(file.substr(8, header_bytes));
      int64_t end = 0;
      for (const auto& [name, tensor] : header.items()) {
        if (name == "__metadata__") continue;
        EXPECT_EQ(index["weight_map"][name], entry.path().filename().string());
        end = std::max(end, tensor["data_offsets"][1].get<int64_t>());
        bytes +=
            tensor["data_offsets"][1].get<int64_t>() - tensor["data_offsets"][0].get<int64_t>();
        ++found;
      }
      EXPECT_EQ(file.size(), 8 + header_bytes + static_cast<uint64_t>(end)) << entry.path();
    }
    EXPECT_EQ(found, index["weight_map"].size());
    EXPECT_EQ(bytes, index["metadata"]["total_size"].get<int64_t>());
    EXPECT_EQ(
        nlohmann::json::parse(read_file(folder / "config.json")).contains("quantization_config"),
        format != SynthFormat::kBf16);
  }
}

TEST(Synth, TheSameSeedGivesTheSameBytes) {
  std::string first;
  for (const auto& [name, seed] : {std::pair{"a", 7}, {"b", 7}, {"c", 8}}) {
    const Folder folder(name);
    ASSERT_TRUE(write_synthetic_checkpoint({.like = "tiny",
                                            .num_layers = 1,
                                            .directory = folder.text(),
                                            .seed = static_cast<uint64_t>(seed)}));
    const std::string bytes = read_file(folder / "model.safetensors");
    ASSERT_GT(bytes.size(), 1'000'000u);
    if (first.empty()) first = bytes;
    EXPECT_EQ(bytes == first, seed == 7);
  }
}

// The counts and sizes of the real checkpoint: 74,391 tensors, 159,348,782,592 bytes in bf16.
TEST(Synth, TheLargeModelIsTheRealOne) {
  SynthOptions options = {.format = SynthFormat::kBf16};
  const auto model = find_synth_model(options);
  ASSERT_TRUE(model);
  int64_t bytes = 0;
  const auto tensors = plan_synth_tensors(*model, options);
  for (const SynthTensor& tensor : tensors) bytes += tensor.bytes;
  EXPECT_EQ(tensors.size(), 74391u);
  EXPECT_EQ(bytes, 159'348'782'592);
}

TEST(Synth, ValuesHaveTheirDeviation) {
  SynthTensor tensor;
  tensor.bytes = 3 * kSynthBlockBytes;
  tensor.table = normal_values(ValueType::kBf16, 0.0, 0.25);
  std::vector<std::byte> bytes(kSynthBlockBytes);
  double squares = 0.0, total = 0.0;
  for (int64_t block = 0; block < 3; ++block) {
    fill_block(tensor, 5, block, bytes);
    for (int64_t i = 0; i < kSynthBlockBytes / 2; ++i) {
      uint16_t bits;
      std::memcpy(&bits, bytes.data() + 2 * i, 2);
      squares += std::pow(bf16_to_float(bits), 2.0);
      total += bf16_to_float(bits);
    }
  }
  const double count = 3.0 * static_cast<double>(kSynthBlockBytes) / 2.0;
  EXPECT_NEAR(std::sqrt(squares / count), 0.25, 0.005);
  EXPECT_NEAR(total / count, 0.0, 0.002);
}

// A mean of the weights would grow from layer to layer until all tokens look alike.
TEST(Synth, CodesHaveNoMean) {
  constexpr double kNf4[16] = {-1.0,   -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0,
                               0.0796, 0.1609,  0.2461,  0.3379,  0.4407,  0.5626,  0.7230,  1.0};
  std::vector<std::byte> bytes(kSynthBlockBytes);
  for (const CodeMean mean : {CodeMean::kEight, CodeMean::kNf4}) {
    SynthTensor tensor;
    tensor.bytes = kSynthBlockBytes;
    tensor.code_mean = mean;
    fill_block(tensor, 5, 0, bytes);
    double total = 0.0, squares = 0.0;
    for (const std::byte byte : bytes) {
      for (const size_t code :
           {std::to_integer<size_t>(byte) & 15, std::to_integer<size_t>(byte) >> 4}) {
        const double value = mean == CodeMean::kNf4 ? kNf4[code] : static_cast<double>(code) - 8.0;
        total += value;
        squares += value * value;
      }
    }
    EXPECT_LT(std::abs(total) / std::sqrt(squares * 2 * kSynthBlockBytes), 0.004);
  }
}

TEST(Synth, PatchesCrossBlocks) {
  SynthTensor tensor;
  tensor.bytes = 2 * kSynthBlockBytes;
  tensor.table = normal_values(ValueType::kBf16, 0.0, 1.0);
  const auto values = std::make_shared<const std::vector<uint32_t>>(std::vector<uint32_t>{1, 2, 3});
  const int64_t period = 300007;  // not a divisor of a block
  tensor.patch = {.period = period, .run = 5, .values = values};
  std::vector<uint16_t> all(2 * kSynthBlockBytes / 2);
  for (int64_t block = 0; block < 2; ++block) {
    fill_block(tensor, 5, block,
               {reinterpret_cast<std::byte*>(all.data()) + block * kSynthBlockBytes,
                static_cast<size_t>(kSynthBlockBytes)});
  }
  for (int64_t i = 0; i < std::ssize(all); ++i) {
    if (i % period < 5) {
      ASSERT_EQ(all[i], (*values)[i / period % 3]) << i;
    }
  }
}

TEST(Synth, RefusesWhatItCannotDo) {
  EXPECT_FALSE(write_synthetic_checkpoint({.like = "nobody/nothing", .directory = "x"}));
  EXPECT_FALSE(write_synthetic_checkpoint({.like = "tiny", .num_layers = -1, .directory = "x"}));
  EXPECT_FALSE(write_synthetic_checkpoint({.like = "tiny", .num_layers = 0, .directory = "x"}));
  EXPECT_FALSE(write_synthetic_checkpoint({.like = "tiny"}));
  EXPECT_FALSE(parse_synth_format("int3"));
  EXPECT_EQ(parse_synth_format("nf4").value(), SynthFormat::kNf4);
  EXPECT_EQ(parse_synth_routing("zipf:1.25").value(), 1.25);
  EXPECT_EQ(parse_synth_routing("uniform").value(), 0.0);
  for (const char* bad : {"zipf", "zipf:", "zipf:-1", "zipf:nan", "zipf:9", "zipf:1x", "flat"}) {
    EXPECT_FALSE(parse_synth_routing(bad)) << bad;
  }
  const Folder folder("twice");
  const SynthOptions options = {.like = "tiny", .num_layers = 1, .directory = folder.text()};
  EXPECT_TRUE(write_synthetic_checkpoint(options));
  EXPECT_FALSE(write_synthetic_checkpoint(options));
}

// Prompts go in and answers come out without a download; special tokens are where the model's
// config and the published vocabulary have them.
TEST(Synth, WritesATokenizerThatWorks) {
  for (const int64_t vocab_size : {int64_t{2048}, int64_t{151936}}) {
    const auto tokenizer = Tokenizer::parse(stand_in_tokenizer_json(vocab_size), "stand-in");
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    EXPECT_EQ(tokenizer->vocab_size(), std::min<int64_t>(vocab_size, 151669));
    for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
      ASSERT_FALSE(tokenizer->token_bytes(id).empty()) << id;
    }
    const std::string text = "Grüße,\t\"世界\"!\n <|im_end|>";
    const auto ids = tokenizer->tokenize(text);
    ASSERT_TRUE(ids);
    EXPECT_EQ(tokenizer->detokenize(*ids), text);
    EXPECT_EQ(ids->back(), first_special_token(vocab_size) + 2);
    EXPECT_EQ(std::ssize(*ids), std::ssize(text) - 10 + 1) << "a token a byte";
  }
  EXPECT_EQ(first_special_token(151936), 151643);

  const Folder folder("tokenizer");
  ASSERT_TRUE(
      write_synthetic_checkpoint({.like = "tiny", .num_layers = 1, .directory = folder.text()}));
  const fs::path written = folder.text();
  const auto tokenizer = Tokenizer::load((written / "tokenizer.json").string(),
                                         (written / "tokenizer_config.json").string());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  std::ifstream in(written / "config.json");
  const auto config = nlohmann::json::parse(in);
  EXPECT_EQ(tokenizer->eos_id(), config["eos_token_id"].get<int32_t>());
  const auto chat = ChatTemplate::load(written);
  ASSERT_TRUE(chat) << chat.error().message;
  const auto prompt = chat->render(
      {.messages = {{{"role", "user"}, {"content", "Hi"}}}, .tools = nullptr, .extra = {}});
  ASSERT_TRUE(prompt) << prompt.error().message;
  EXPECT_EQ(prompt->text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

// A tokenizer that is copied brings its own special tokens, and must fit the vocabulary.
TEST(Synth, TheConfigNamesTheTokensOfACopiedTokenizer) {
  const Folder source("source"), folder("copied"), none("none");
  fs::create_directories(source.text());
  const auto write = [&](int64_t vocab_size) {
    std::ofstream(source / "tokenizer.json") << stand_in_tokenizer_json(vocab_size);
  };
  const auto synth = [&](const Folder& to) {
    return write_synthetic_checkpoint(
        {.like = "tiny", .num_layers = 1, .directory = to.text(), .tokenizer = source.text()});
  };
  std::ofstream(source / "tokenizer_config.json") << stand_in_tokenizer_config_json();
  write(4096);
  const auto refused = synth(none);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("has 4096 tokens"), std::string::npos)
      << refused.error().message;
  EXPECT_FALSE(fs::exists(none.text()));
  write(1024);
  const auto status = synth(folder);
  ASSERT_TRUE(status) << status.error().message;
  const auto config = nlohmann::json::parse(read_file(folder / "config.json"));
  EXPECT_EQ(config["eos_token_id"], first_special_token(1024) + 2);
  EXPECT_FALSE(config.contains("bos_token_id")) << "the tokenizer names none";
}

}  // namespace
}  // namespace hotset
