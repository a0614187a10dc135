// SPDX-License-Identifier: Apache-2.0
// Damaged and hostile copies of the demo model, given to the real program: refused with exit code
// 2, one line that names the file or tensor, a second of work at most and next to no memory. What
// can't be told from sound weights runs without harm.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>

#include "apps/run_program.h"
#include "server/strict_json.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;
using test::ProgramResult;
using test::run_program;

constexpr int64_t kMaxExtraKib = 64 << 10;
constexpr double kMaxCpu_s = 1.0;

const fs::path kDemo = fs::path(HOTSET_SOURCE_DIR) / "models/demo";
constexpr const char* kWeights = "model.safetensors";

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void write_file(const fs::path& path, const std::string& bytes) {
  fs::remove(path);  // the folder holds links into the real model
  std::ofstream(path, std::ios::binary) << bytes;
}

// `size` bytes of nothing, which take no space.
void make_sparse(const fs::path& path, uintmax_t size) {
  write_file(path, "");
  fs::resize_file(path, size);
}

// A folder with the demo's files; one that is changed is replaced first.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/hotset-hostile-XXXXXX";
    path_ = ::mkdtemp(name);
    for (const auto& entry : fs::directory_iterator(kDemo)) {
      fs::create_hard_link(entry.path(), path_ / entry.path().filename(), error_);
      if (error_) fs::copy_file(entry.path(), path_ / entry.path().filename());
    }
  }
  ~Folder() { fs::remove_all(path_, error_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  fs::path operator/(const char* name) const { return path_ / name; }
  [[nodiscard]] ProgramResult run() const {
    return run_program({"complete", path_.string(), "-p", "Once", "-n", "2", "--quiet"});
  }

 private:
  fs::path path_;
  std::error_code error_;
};

struct Weights {
  std::string bytes = read_file(kDemo / kWeights);
  Json header;
  size_t data_begin = 0;

  Weights() {
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    header = *parse_strict_json(std::string_view(bytes).substr(8, length));
    data_begin = 8 + length;
  }
  [[nodiscard]] size_t offset_of(const std::string& tensor, size_t end = 0) const {
    return data_begin + header[tensor]["data_offsets"][end].get<size_t>();
  }
};

std::string with_length(uint64_t length, const std::string& rest) {
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + rest;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

void expect_refusal(const std::string& what, const std::string& named,
                    const std::function<void(const Folder&)>& damage) {
  static const int64_t base_kib = run_program({"version"}).max_rss_kib;
  const Folder folder;
  damage(folder);
  const ProgramResult result = folder.run();
  EXPECT_EQ(result.exit_code, 2) << what << ": " << result.err.substr(0, 500);
  EXPECT_EQ(result.err.rfind("hotset: error: ", 0), 0u) << what << ": " << result.err;
  EXPECT_NE(result.err.find(named), std::string::npos) << what << ": " << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << what << result.err;
  EXPECT_LE(result.cpu_s, kMaxCpu_s) << what;
  EXPECT_LE(result.max_rss_kib, base_kib + kMaxExtraKib) << what << ": KiB resident";
}

TEST(HostileFiles, HeadersTakeNoMemory) {
  const Weights weights;
  const std::string header(weights.header.dump());
  for (const uint64_t length : {uint64_t{0}, uint64_t{7}, uint64_t{1} << 31, uint64_t{1} << 40,
                                uint64_t{1} << 62, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    expect_refusal("header length", kWeights, [&](const Folder& folder) {
      write_file(folder / kWeights, with_length(length, header));
    });
  }
  expect_refusal("a huge header that is there", kWeights, [&](const Folder& folder) {
    write_file(folder / kWeights, with_length(uint64_t{3} << 30, "{"));
    fs::resize_file(folder / kWeights, uint64_t{4} << 30);
  });
  for (const char* shape : {"[4611686018427387904,4]", "[1152921504606846976]", "[-1,768]",
                            "[1099511627776,1099511627776]", "[768,4,1e3]"}) {
    const std::string hostile =
        replaced(header, "\"shape\":[4,768]", std::string("\"shape\":") + shape);
    expect_refusal(shape, kWeights, [&](const Folder& folder) {
      write_file(folder / kWeights,
                 with_length(hostile.size(), hostile) + weights.bytes.substr(weights.data_begin));
    });
  }
}

TEST(HostileFiles, ConfigsTakeNoMemory) {
  const std::string config = read_file(kDemo / "config.json");
  const Json json = *parse_strict_json(config);
  for (const char* field :
       {"num_hidden_layers", "hidden_size", "num_experts", "vocab_size", "num_attention_heads",
        "num_key_value_heads", "head_dim", "linear_num_value_heads", "moe_intermediate_size",
        "shared_expert_intermediate_size", "linear_conv_kernel_dim", "num_experts_per_tok"}) {
    for (const char* value :
         {"1000000000", "2147483648", "9223372036854775807", "-1", "0", "\"8\"", "null", "1e300"}) {
      const bool has_default = std::string(field) == "linear_conv_kernel_dim";
      if (has_default && std::string(value) == "null") continue;
      Json changed = json;
      changed[field] = *parse_strict_json(value);
      expect_refusal(std::string(field) + " " + value, "", [&](const Folder& folder) {
        write_file(folder / "config.json", changed.dump());
      });
    }
  }
}

TEST(HostileFiles, OfAnySizeAreNotRead) {
  for (const char* name : {"config.json", "generation_config.json", "tokenizer.json",
                           "tokenizer_config.json", "chat_template.jinja", kWeights}) {
    expect_refusal(std::string(name) + " of 8 GiB", name,
                   [&](const Folder& folder) { make_sparse(folder / name, uintmax_t{8} << 30); });
    // Half of a template may be one, and without one there may be another in tokenizer_config.json.
    if (std::string(name) == "chat_template.jinja") continue;
    expect_refusal(std::string(name) + " is a folder", name, [&](const Folder& folder) {
      fs::remove(folder / name);
      fs::create_directory(folder / name);
    });
    const std::string whole = read_file(kDemo / name);
    expect_refusal(std::string(name) + " cut in half", name, [&](const Folder& folder) {
      write_file(folder / name, whole.substr(0, whole.size() / 2));
    });
    expect_refusal(std::string(name) + " empty", name,
                   [&](const Folder& folder) { write_file(folder / name, ""); });
  }
}

TEST(HostileFiles, ScalesThatAreNoNumbersAreNamed) {
  const Weights weights;
  const std::string tensor = "model.layers.3.mlp.experts.17.down_proj.scales";
  for (const uint16_t scale : {uint16_t{0x7c00}, uint16_t{0xfc00}, uint16_t{0x7e01}}) {
    for (const bool last : {false, true}) {
      std::string bytes = weights.bytes;
      const size_t at = last ? weights.offset_of(tensor, 1) - 2 : weights.offset_of(tensor);
      std::memcpy(bytes.data() + at, &scale, sizeof(scale));
      const Folder folder;
      write_file(folder / kWeights, bytes);
      const ProgramResult result = folder.run();
      EXPECT_EQ(result.exit_code, 2) << result.err;
      EXPECT_NE(result.err.find("'" + tensor + "'"), std::string::npos) << result.err;
      EXPECT_NE(result.err.find("not a finite number"), std::string::npos) << result.err;
    }
  }
}

// A flipped bit in a weight is another weight; one in the header is a refusal or, inside of a name
// of what nobody reads, nothing. No flip may crash or hang; logits that are no numbers are told.
TEST(HostileFiles, FlippedBitsDoNoHarm) {
  const Weights weights;
  std::mt19937_64 random(1);
  int num_refused = 0, num_fine = 0;
  for (int i = 0; i < 24; ++i) {
    std::string bytes = weights.bytes;
    const size_t limit = i % 2 == 0 ? weights.data_begin : bytes.size();
    const size_t at = random() % limit;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << (random() % 8)));
    const Folder folder;
    write_file(folder / kWeights, bytes);
    const ProgramResult result = folder.run();
    const std::string what = "byte " + std::to_string(at) + ": " + result.err;
    EXPECT_TRUE(result.exit_code >= 0 && result.exit_code <= 2) << what;
    EXPECT_EQ(result.exit_code == 0, result.err.empty()) << what;
    EXPECT_TRUE(result.exit_code != 1 || result.err.find("numerical") != std::string::npos) << what;
    num_refused += result.exit_code == 2;
    num_fine += result.exit_code == 0;
  }
  EXPECT_GT(num_refused, 4);
  EXPECT_GT(num_fine, 4);
}

}  // namespace
}  // namespace hotset
