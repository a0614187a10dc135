// SPDX-License-Identifier: Apache-2.0
// Every fragment that a real quantiser wrote (golden/formats): found, planned, packed, and
// dequantised row by row against what that quantiser reads back. Each case states its tolerance
// (largest error over largest weight); 0 means equal to the last bit. The worst element is printed.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "checkpoint/checkpoint.h"
#include "checkpoint/json_file.h"
#include "checkpoint/linear_source.h"
#include "checkpoint/pack.h"
#include "checkpoint/quant_config.h"
#include "checkpoint/safetensors_writer.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormats = "golden/formats";

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kFormats)) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// What the expected file holds; it has a name of its own, so it gets a directory of its own.
class Expected {
 public:
  explicit Expected(const std::string& dir) {
    path_ = fs::path(::testing::TempDir()) / ("expected-" + fs::path(dir).filename().string());
    fs::create_directories(path_);
    fs::copy_file(fs::path(dir) / "expected.safetensors", path_ / "model.safetensors",
                  fs::copy_options::overwrite_existing);
  }
  ~Expected() { fs::remove_all(path_); }
  Expected(const Expected&) = delete;
  Expected& operator=(const Expected&) = delete;
  std::vector<float> weight(const std::string& module, int64_t rows, int64_t cols) const {
    const auto checkpoint = Checkpoint::open(path_.string());
    EXPECT_TRUE(checkpoint) << checkpoint.error().message;
    const auto floats =
        checkpoint->read_floats(module + ".weight", std::array<int64_t, 2>{rows, cols});
    EXPECT_TRUE(floats) << floats.error().message;
    return floats.value_or(std::vector<float>(static_cast<size_t>(rows * cols), NAN));
  }

 private:
  fs::path path_;
};

struct Packed {
  PackPlan plan;
  std::vector<std::byte> data;
  PackAux aux;
};

Result<Packed> pack(const Checkpoint& checkpoint, const LinearSource& source, PackScratch& scratch,
                    const PackOptions& options = {}) {
  Packed out;
  HS_ASSIGN_OR_RETURN(out.plan, plan_packed(checkpoint, source, options));
  // Every byte must be written: what is there before is not zero.
  out.data.assign(static_cast<size_t>(out.plan.shape.bytes()), std::byte{0xa5});
  HS_RETURN_IF_ERROR(pack_linear(checkpoint, source, out.plan, out.data, scratch, out.aux));
  return out;
}

std::vector<float> all_rows(const Packed& packed) {
  const PackedMatrix matrix = packed_view(packed.plan, packed.data.data(), packed.aux);
  std::vector<float> out(static_cast<size_t>(matrix.rows * matrix.cols));
  for (int64_t row = 0; row < matrix.rows; ++row) {
    dequantize_row(matrix, row,
                   std::span(out).subspan(static_cast<size_t>(row * matrix.cols),
                                          static_cast<size_t>(matrix.cols)));
  }
  return out;
}

void expect_close(const std::vector<float>& got, const std::vector<float>& want, double tolerance,
                  int64_t cols) {
  ASSERT_EQ(got.size(), want.size());
  double largest = 0, worst = -1;
  size_t at = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::fabs(double{want[i]}));
    const double error = std::isnan(got[i]) != std::isnan(want[i]) ? INFINITY
                         : std::isnan(want[i])                     ? 0
                                               : std::fabs(double{got[i]} - double{want[i]});
    if (error > worst) worst = error, at = i;
  }
  EXPECT_LE(worst, tolerance * largest)
      << "row " << at / static_cast<size_t>(cols) << " column " << at % static_cast<size_t>(cols)
      << ": " << got[at] << ", expected " << want[at];
}

// The packed kinds that a format may become; shapes that tiles cannot express are listed here.
bool kind_is_expected(const std::string& name, const LinearSource& source, CodeKind code) {
  switch (source.format) {
    case LinearFormat::kPlain:
      return code == CodeKind::kF32 || code == CodeKind::kF16 || code == CodeKind::kBF16;
    case LinearFormat::kGptq:
    case LinearFormat::kAwq:
    case LinearFormat::kCompressed:
      return code == (source.scheme.bits == 8 ? CodeKind::kInt8 : CodeKind::kAffine4);
    case LinearFormat::kBitsandbytes:
      if (name == "bnb-nf4-odd" && source.cols % 32 != 0) return code == CodeKind::kF32;
      return code == CodeKind::kCodebook4;
    case LinearFormat::kFp8:
      return code == CodeKind::kFp8;
  }
  return false;
}

std::set<LinearFormat> check_case(const std::string& name) {
  SCOPED_TRACE(name);
  std::set<LinearFormat> seen;
  const std::string dir = std::string(kFormats) + "/" + name;
  const auto checkpoint = Checkpoint::open(dir);
  EXPECT_TRUE(checkpoint) << checkpoint.error().message;
  if (!checkpoint) return seen;
  const Json config = read_json_file(checkpoint->directory(), "config.json").value();
  const Json description = read_json_file(checkpoint->directory(), "case.json").value();
  const auto quant = QuantConfig::load(checkpoint->directory(), config);
  EXPECT_TRUE(quant) << quant.error().message;
  if (!quant) return seen;
  const Expected expected(dir);
  PackScratch scratch;
  for (const auto& [module, shape] : description["modules"].items()) {
    SCOPED_TRACE(module);
    const int64_t rows = shape[0], cols = shape[1];
    const auto source = find_linear(*checkpoint, *quant, module, rows, cols);
    EXPECT_TRUE(source) << source.error().message;
    if (!source) continue;
    seen.insert(source->format);
    const auto packed = pack(*checkpoint, *source, scratch);
    EXPECT_TRUE(packed) << packed.error().message;
    if (!packed) continue;
    const CodeKind code = packed->plan.shape.code;
    EXPECT_TRUE(kind_is_expected(name, *source, code))
        << linear_format_name(source->format) << " became " << code_kind_name(code) << " ("
        << packed->plan.note << ")";
    expect_close(all_rows(*packed), expected.weight(module, rows, cols), description["tolerance"],
                 cols);
  }
  return seen;
}

TEST(Formats, EveryCaseReadsAsItsWriterReadsIt) {
  const std::vector<std::string> names = case_names();
  EXPECT_GE(names.size(), 40u);
  std::set<LinearFormat> seen;
  for (const std::string& name : names) seen.merge(check_case(name));
  EXPECT_EQ(seen.size(), linear_formats().size()) << "a format has no case";
}

// A row of `expected` is judged in the writer's own column order, also when inputs are permuted.
TEST(Formats, DescActGivesAnInputOrder) {
  const auto checkpoint =
      Checkpoint::open(std::string(kFormats) + "/gptq-v1-sym-g32-desc-act").value();
  const Json config = read_json_file(checkpoint.directory(), "config.json").value();
  const Json description = read_json_file(checkpoint.directory(), "case.json").value();
  const auto quant = QuantConfig::load(checkpoint.directory(), config).value();
  const auto module = description["modules"].begin();
  const auto source =
      find_linear(checkpoint, quant, module.key(), (*module)[0], (*module)[1]).value();
  PackScratch scratch;
  const auto packed = pack(checkpoint, source, scratch).value();
  std::vector<int32_t> order = packed.aux.input_order;
  ASSERT_EQ(static_cast<int64_t>(order.size()), source.cols);
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i], static_cast<int32_t>(i));
}

TEST(Formats, PlainWeightsKeptAt8BitsSayWhatItCost) {
  for (const char* name : {"plain-bf16", "plain-f16", "plain-f32"}) {
    SCOPED_TRACE(name);
    const std::string dir = std::string(kFormats) + "/" + name;
    const auto checkpoint = Checkpoint::open(dir).value();
    const Json description = read_json_file(checkpoint.directory(), "case.json").value();
    const Expected expected(dir);
    PackScratch scratch;
    for (const auto& [module, shape] : description["modules"].items()) {
      const auto source = find_linear(checkpoint, {}, module, shape[0], shape[1]).value();
      const auto packed = pack(checkpoint, source, scratch, {.keep_16bit_at_8 = true}).value();
      EXPECT_EQ(packed.plan.shape.code, CodeKind::kInt8);
      const auto want = expected.weight(module, source.rows, source.cols);
      // Half a step of 1/127 of the group's largest value, plus the fp16 rounding of the scale.
      expect_close(all_rows(packed), want, 0.5 / 127 * 1.1, source.cols);
      EXPECT_GT(packed.aux.loss.relative_max(), 0);
      EXPECT_LE(packed.aux.loss.relative_max(), 0.5 / 127 * 1.1);
      EXPECT_LE(packed.aux.loss.relative_rms(), packed.aux.loss.relative_max() * 4);
    }
  }
}

// What was a bf16 or fp16 weight is held as before, nested scales are rounded to eleven digits.
TEST(Formats, CodebookScalesAt16BitsAreExactUnlessQuantisedTwice) {
  const PackOptions at_16{.codebook_scales_at_16 = true};
  int checked = 0;
  for (const std::string& name : case_names()) {
    if (!name.starts_with("bnb-")) continue;
    SCOPED_TRACE(name);
    const std::string dir = std::string(kFormats) + "/" + name;
    const auto checkpoint = Checkpoint::open(dir).value();
    const Json config = read_json_file(checkpoint.directory(), "config.json").value();
    const Json description = read_json_file(checkpoint.directory(), "case.json").value();
    const auto quant = QuantConfig::load(checkpoint.directory(), config).value();
    PackScratch scratch;
    for (const auto& [module, shape] : description["modules"].items()) {
      SCOPED_TRACE(module);
      const auto source = find_linear(checkpoint, quant, module, shape[0], shape[1]).value();
      const auto full = pack(checkpoint, source, scratch).value();
      const auto packed = pack(checkpoint, source, scratch, at_16).value();
      if (full.plan.shape.code != CodeKind::kCodebook4) continue;
      EXPECT_EQ(full.plan.shape.scale, ScaleKind::kF32);
      EXPECT_EQ(packed.plan.shape.scale, ScaleKind::kF16);
      EXPECT_LT(packed.plan.shape.bytes(), full.plan.shape.bytes());
      const bool is_rounded = source.nested_scales != nullptr || name == "bnb-nf4-odd";
      const auto want = all_rows(full), got = all_rows(packed);
      for (size_t i = 0; i < want.size(); ++i) {
        const float limit = is_rounded ? 0x1.01p-11f * std::fabs(want[i]) : 0.0f;
        ASSERT_LE(std::fabs(got[i] - want[i]), limit) << i << ": " << got[i] << ", not " << want[i];
      }
      checked += 1;
    }
  }
  EXPECT_GE(checked, 7);
}

TEST(Formats, ACodebookScaleTooLargeFor16BitsIsNamed) {
  const fs::path dir = fs::path(::testing::TempDir()) / "large_scale";
  fs::create_directories(dir);
  const std::string state = R"({"quant_type":"nf4","blocksize":64,"shape":[1,128]})";
  const std::string state_name = "m.weight.quant_state.bitsandbytes__nf4";
  auto writer = SafetensorsWriter::create((dir / "model.safetensors").string(),
                                          {{"m.weight", DType::kU8, {64, 1}},
                                           {"m.weight.absmax", DType::kF32, {2}},
                                           {"m.weight.quant_map", DType::kF32, {16}},
                                           {state_name, DType::kU8, {std::ssize(state)}}})
                    .value();
  const std::vector<uint8_t> codes(64, 0x21);
  const std::vector<float> absmax = {1023.5f, 1024.0f};
  const std::vector<float> map(16, 0.5f);
  for (const auto bytes :
       {std::as_bytes(std::span(codes)), std::as_bytes(std::span(absmax)),
        std::as_bytes(std::span(map)), std::as_bytes(std::span(state.data(), state.size()))}) {
    ASSERT_TRUE(writer.write(bytes));
  }
  ASSERT_TRUE(writer.finish());
  const auto checkpoint = Checkpoint::open(dir.string()).value();
  PackScratch scratch;
  const auto source = find_linear(checkpoint, {}, "m", 1, 128).value();
  EXPECT_TRUE(pack(checkpoint, source, scratch));
  const auto packed = pack(checkpoint, source, scratch, {.codebook_scales_at_16 = true});
  ASSERT_FALSE(packed);
  EXPECT_NE(packed.error().message.find("'m.weight.absmax': a scale of 1024 cannot"),
            std::string::npos)
      << packed.error().message;
}

// A fused tensor [E, R, C]: each slice is exactly its rows.
TEST(Formats, FusedTensorsAreReadInSlices) {
  const fs::path dir = fs::path(::testing::TempDir()) / "fused";
  fs::create_directories(dir);
  constexpr int64_t kMatrices = 3, kRows = 40, kCols = 24;
  std::vector<float> values(static_cast<size_t>(kMatrices * kRows * kCols));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  auto writer = SafetensorsWriter::create((dir / "model.safetensors").string(),
                                          {{"x.gate_up", DType::kF32, {kMatrices, kRows, kCols}}})
                    .value();
  ASSERT_TRUE(writer.write(std::as_bytes(std::span(values))));
  ASSERT_TRUE(writer.finish());
  const auto checkpoint = Checkpoint::open(dir.string()).value();
  PackScratch scratch;
  for (int64_t index = 0; index < kMatrices; ++index) {
    for (const int64_t begin : {int64_t{0}, int64_t{20}}) {
      const FusedSlice slice{.num_matrices = kMatrices,
                             .matrix_rows = kRows,
                             .cols = kCols,
                             .index = index,
                             .row_begin = begin,
                             .rows = 20};
      const auto source = find_fused_linear(checkpoint, "x.gate_up", slice);
      ASSERT_TRUE(source) << source.error().message;
      EXPECT_EQ(source->file_bytes(), 20 * kCols * 4);
      const auto packed = pack(checkpoint, *source, scratch).value();
      const auto first = values.begin() + (index * kRows + begin) * kCols;
      EXPECT_EQ(all_rows(packed), std::vector<float>(first, first + 20 * kCols));
    }
  }
  FusedSlice wrong{.num_matrices = 4, .matrix_rows = kRows, .cols = kCols, .rows = 20};
  const auto refused = find_fused_linear(checkpoint, "x.gate_up", wrong);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("x.gate_up"), std::string::npos);
  fs::remove_all(dir);
}

// Expected shapes come from the model's config: a tensor that disagrees is named.
TEST(Formats, WrongShapesAreRefusedByName) {
  size_t refused_cases = 0;
  for (const std::string& name : case_names()) {
    SCOPED_TRACE(name);
    const auto checkpoint = Checkpoint::open(std::string(kFormats) + "/" + name).value();
    const Json config = read_json_file(checkpoint.directory(), "config.json").value();
    const Json description = read_json_file(checkpoint.directory(), "case.json").value();
    const auto quant = QuantConfig::load(checkpoint.directory(), config).value();
    for (const auto& [module, shape] : description["modules"].items()) {
      const int64_t rows = shape[0], cols = shape[1];
      const std::array<std::array<int64_t, 2>, 4> wrong = {
          {{rows + 32, cols}, {rows, cols + 128}, {rows * 2, cols}, {rows, cols * 2}}};
      for (const auto& [r, c] : wrong) {
        const auto source = find_linear(checkpoint, quant, module, r, c);
        // compressed-tensors pads; what headers can't tell is found when the shape tensor is read.
        if (source) {
          PackScratch scratch;
          const auto packed = pack(checkpoint, *source, scratch);
          ASSERT_FALSE(packed) << r << "x" << c;
          EXPECT_NE(packed.error().message.find(module), std::string::npos);
        } else {
          EXPECT_NE(source.error().message.find(module), std::string::npos)
              << source.error().message;
        }
        refused_cases += 1;
      }
    }
  }
  EXPECT_GE(refused_cases, 200u);
}

}  // namespace
}  // namespace hotset
