// SPDX-License-Identifier: Apache-2.0
// The bytes of synthetic tensors: random code words, values drawn from a table of 256, literals. A
// tensor is filled in independent blocks of 1 MiB, each with a generator seeded by (seed, tensor,
// block), so the bytes do not depend on how many threads fill them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/safetensors_writer.h"

namespace hotset {

inline constexpr int64_t kSynthBlockBytes = int64_t{1} << 20;

// 256 values of an element type, each drawn equally often.
struct ValueTable {
  int element_bytes = 2;
  std::array<uint32_t, 256> bits = {};
};

enum class ValueType : uint8_t { kBf16, kF16, kF32, kE4m3 };
[[nodiscard]] uint32_t encode_value(ValueType type, double value);
// The 256 quantiles of a normal distribution, or evenly spaced values.
[[nodiscard]] std::shared_ptr<const ValueTable> normal_values(ValueType type, double mean,
                                                              double deviation);
[[nodiscard]] std::shared_ptr<const ValueTable> uniform_values(ValueType type, double low,
                                                               double high);

// The first `run` elements of each row of `period` are replaced: by a row of `values`, which has
// `run` columns, or one that is repeated. Row r takes row r / rows_each of `values`, round and
// round.
struct Patch {
  int64_t period = 0;  // 0: no patch
  int64_t run = 0;
  std::shared_ptr<const std::vector<uint32_t>> values;
  int64_t rows_each = 1;
  bool one_column = true;
};

// Random 4-bit codes whose values have no mean: a mean grows from linear to linear until every
// token looks alike. One code is replaced by another.
enum class CodeMean : uint8_t {
  kAny,
  kEight,  // 0 by 8
  kNf4,    // 12 by 8
};

struct SynthTensor {
  SafetensorsWriter::Entry entry;
  int64_t bytes = 0;
  std::shared_ptr<const ValueTable> table;     // set: values from it
  std::shared_ptr<const std::string> literal;  // set: these bytes, over and over
  int64_t group_index = 0;                     // > 0: I32 element i is i / group_index (GPTQ g_idx)
  CodeMean code_mean = CodeMean::kAny;         // of random bits
  Patch patch;                                 // with table only
  // Neither table, literal nor group_index: random bits.
};

// Bytes block_index·1 MiB … of the tensor, into `out` (as many as are left, at most 1 MiB).
void fill_block(const SynthTensor& tensor, uint64_t tensor_seed, int64_t block_index,
                std::span<std::byte> out);

}  // namespace hotset
