// SPDX-License-Identifier: Apache-2.0
// How fast one thread packs each weight format from the page cache, against plainly reading the
// same file: what a load costs beyond the disk.
//
//   pack_bench [ROWS COLS]       (4096 × 4096 unless given; both multiples of 256)
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/linear_source.h"
#include "checkpoint/pack.h"
#include "checkpoint/quant_config.h"
#include "checkpoint/safetensors_writer.h"
#include "memory/huge_buffer.h"

namespace hotset {
namespace {

using Entries = std::vector<SafetensorsWriter::Entry>;

constexpr int64_t kGroup = 128;
constexpr int kRounds = 20;

constexpr int64_t kStateBytes = 128;

struct Case {
  const char* name;
  const char* config;
  PackOptions options;
  Entries (*entries)(int64_t rows, int64_t cols);
};

const Case kCases[] = {
    {"bf16",
     "{}",
     {},
     [](int64_t r, int64_t c) -> Entries {
       return {{"m.weight", DType::kBF16, {r, c}}};
     }},
    {"bf16 at 8 bits",
     "{}",
     {.keep_16bit_at_8 = true},
     [](int64_t r, int64_t c) -> Entries {
       return {{"m.weight", DType::kBF16, {r, c}}};
     }},
    {"gptq",
     R"({"quantization_config":{"quant_method":"gptq","bits":4,"sym":false}})",
     {},
     [](int64_t r, int64_t c) -> Entries {
       return {{"m.qweight", DType::kI32, {c / 8, r}},
               {"m.qzeros", DType::kI32, {c / kGroup, r / 8}},
               {"m.scales", DType::kF16, {c / kGroup, r}}};
     }},
    {"awq",
     R"({"quantization_config":{"quant_method":"awq","bits":4}})",
     {},
     [](int64_t r, int64_t c) -> Entries {
       return {{"m.qweight", DType::kI32, {c, r / 8}},
               {"m.qzeros", DType::kI32, {c / kGroup, r / 8}},
               {"m.scales", DType::kF16, {c / kGroup, r}}};
     }},
    {"compressed-tensors",
     R"({"quantization_config":{"quant_method":"compressed-tensors","config_groups":{"g":{
         "targets":["Linear"],"weights":{"num_bits":4,"group_size":128}}}}})",
     {},
     [](int64_t r, int64_t c) -> Entries {
       return {{"m.weight_shape", DType::kI64, {2}},
               {"m.weight_packed", DType::kI32, {r, c / 8}},
               {"m.weight_scale", DType::kBF16, {r, c / kGroup}}};
     }},
    {"bitsandbytes nf4",
     R"({"quantization_config":{"quant_method":"bitsandbytes","load_in_4bit":true,
         "bnb_4bit_quant_type":"nf4"}})",
     {.codebook_scales_at_16 = true},
     [](int64_t r, int64_t c) -> Entries {
       return {{"m.weight", DType::kU8, {r * c / 2, 1}},
               {"m.weight.absmax", DType::kF32, {r * c / 64}},
               {"m.weight.quant_map", DType::kF32, {16}},
               {"m.weight.quant_state.bitsandbytes__nf4", DType::kU8, {kStateBytes}}};
     }},
    {"fp8",
     R"({"quantization_config":{"quant_method":"fp8"}})",
     {},
     [](int64_t r, int64_t c) -> Entries {
       return {{"m.weight", DType::kF8E4M3, {r, c}},
               {"m.weight_scale_inv", DType::kBF16, {r / 128, c / 128}}};
     }},
};

// Halves near 1, so that nothing is NaN; any bits do for codes.
void write_model(const std::string& dir, const Case& one, int64_t rows, int64_t cols) {
  const Entries entries = one.entries(rows, cols);
  auto writer = SafetensorsWriter::create(dir + "/model.safetensors", entries);
  HS_CHECK(writer.has_value(), "{}", writer.error().message);
  std::mt19937 rng(1);
  for (const auto& entry : entries) {
    int64_t numel = 1;
    for (const int64_t dim : entry.shape) numel *= dim;
    std::vector<uint16_t> halves(static_cast<size_t>(numel * dtype_bits(entry.dtype) / 16));
    for (uint16_t& half : halves) half = static_cast<uint16_t>(0x3c00u | (rng() & 0x83ffu));
    if (entry.dtype == DType::kI64) {
      halves.assign(8, 0);
      halves[0] = static_cast<uint16_t>(rows);
      halves[4] = static_cast<uint16_t>(cols);
    }
    auto bytes = std::as_writable_bytes(std::span(halves));
    if (entry.name.ends_with("__nf4")) {
      const std::string state =
          fmt::format("{{\"blocksize\":64,\"quant_type\":\"nf4\",\"shape\":[{},{}]}}", rows, cols);
      std::fill(bytes.begin(), bytes.end(), std::byte{' '});
      std::memcpy(bytes.data(), state.data(), state.size());
    }
    const Status status = writer->write(bytes);
    HS_CHECK(status.has_value(), "{}", status.error().message);
  }
  HS_CHECK(writer->finish().has_value(), "{} could not be written", dir);
}

double best_seconds(const std::function<void()>& work) {
  double best = 1e30;
  for (int i = 0; i < kRounds; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    best = std::min(best, took.count());
  }
  return best;
}

void measure(const std::string& dir, const Case& one, int64_t rows, int64_t cols) {
  write_model(dir, one, rows, cols);
  const Checkpoint checkpoint = Checkpoint::open(dir).value();
  const auto quant = QuantConfig::parse(parse_config_json(one.config, one.name).value()).value();
  const auto source = find_linear(checkpoint, quant, "m", rows, cols);
  HS_CHECK(source.has_value(), "{}", source.error().message);
  const PackPlan plan = plan_packed(checkpoint, *source, one.options).value();
  const HugeBuffer packed = HugeBuffer::allocate(plan.shape.bytes()).value();
  const HugeBuffer plain = HugeBuffer::allocate(source->weight->bytes).value();
  PackScratch scratch;
  PackAux aux;
  const double pack_time = best_seconds([&] {
    const Status status = pack_linear(checkpoint, *source, plan, packed.span(), scratch, aux);
    HS_CHECK(status.has_value(), "{}", status.error().message);
  });
  const double read_time = best_seconds([&] {
    HS_CHECK(checkpoint.read(*source->weight, plain.span()).has_value(), "{}", one.name);
  });
  const auto bytes = static_cast<double>(source->file_bytes());
  fmt::print("{:<20} {:<10} {:8.2f} GB/s packed {:8.2f} GB/s read {:5.0f} %\n", one.name,
             code_kind_name(plan.shape.code), bytes / pack_time / 1e9, bytes / read_time / 1e9,
             100 * read_time / pack_time);
}

}  // namespace
}  // namespace hotset

int main(int argc, char** argv) {
  const int64_t rows = argc == 3 ? std::atoll(argv[1]) : 4096;
  const int64_t cols = argc == 3 ? std::atoll(argv[2]) : 4096;
  if (rows < 256 || cols < 256 || rows % 256 != 0 || cols % 256 != 0 || rows > 65280 ||
      cols > 65280) {
    fmt::print(stderr, "rows and cols are multiples of 256 up to 65280\n");
    return 2;
  }
  const auto dir =
      std::filesystem::temp_directory_path() / fmt::format("pack_bench-{}", ::getpid());
  std::filesystem::create_directories(dir);
  for (const hotset::Case& one : hotset::kCases) hotset::measure(dir.string(), one, rows, cols);
  std::filesystem::remove_all(dir);
  return 0;
}
