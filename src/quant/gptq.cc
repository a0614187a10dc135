// SPDX-License-Identifier: Apache-2.0
// The straight path copies 64-byte steps, group after group, so that the file is read forward;
// permuted inputs (desc_act) collect each step's columns from the word rows they lie in.
#include "quant/gptq.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "quant/scale_value.h"
#include "quant/tile_layout.h"

namespace hotset {
namespace {

struct Step {
  uint32_t word[kTileRows];
};

int64_t columns_per_word(const GptqWeights& weights) {
  return 32 / weights.bits;
}

uint32_t word_at(const std::byte* base, int64_t index) {
  return load_as<uint32_t>(base + 4 * index);
}

uint32_t code_at(const GptqWeights& weights, int64_t rows, int64_t col, int64_t row) {
  const int64_t per_word = columns_per_word(weights);
  const uint32_t word = word_at(weights.qweight, (col / per_word) * rows + row);
  return (word >> (weights.bits * (col % per_word))) & ((1u << weights.bits) - 1);
}

// Words of `lanes` < 16 rows, shuffled into step order.
Step short_step(const GptqWeights& weights, const std::byte* words, int64_t lanes) {
  Step step{};
  std::memcpy(step.word, words, static_cast<size_t>(4 * lanes));
  if (weights.bits == 4) {
    for (uint32_t& word : step.word) word = step_word(word);
  }
  return step;
}

// The step of `columns`, wherever they lie.
Step gathered_step(const GptqWeights& weights, int64_t rows, std::span<const int32_t> columns,
                   int64_t row0, int64_t lanes) {
  Step step{};
  const int64_t per_word = columns_per_word(weights);
  const uint32_t mask = (1u << weights.bits) - 1;
  for (size_t j = 0; j < columns.size(); ++j) {
    const int64_t col = columns[j];
    const std::byte* words = weights.qweight + 4 * ((col / per_word) * rows + row0);
    const auto from = static_cast<uint32_t>(weights.bits * (col % per_word));
    const auto to = static_cast<uint32_t>(weights.bits) * static_cast<uint32_t>(j);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      step.word[lane] |= ((word_at(words, lane) >> from) & mask) << to;
    }
  }
  if (weights.bits == 4) {
    for (uint32_t& word : step.word) word = step_word(word);
  }
  return step;
}

uint32_t zero_word(const GptqWeights& weights, int64_t index) {
  const uint32_t ones = weights.bits == 4 ? 0x11111111u : 0x01010101u;
  return word_at(weights.qzeros, index) + ones * static_cast<uint32_t>(weights.zero_offset);
}

// Eight nibbles as bytes, in order.
uint64_t nibbles_as_bytes(uint32_t word) {
  uint64_t x = word;
  x = (x | (x << 16)) & 0x0000ffff0000ffffu;
  x = (x | (x << 8)) & 0x00ff00ff00ff00ffu;
  return (x | (x << 4)) & 0x0f0f0f0f0f0f0f0fu;
}

// Codes as bytes; rows come in whole words, so no lane is left over.
void put_zeros(const GptqWeights& weights, int64_t first_word, int64_t lanes, std::byte* to) {
  for (int64_t w = 0; w < lanes * weights.bits / 32; ++w) {
    const uint32_t word = zero_word(weights, first_word + w);
    if (weights.bits == 8) {
      std::memcpy(to + 4 * w, &word, sizeof(word));
    } else {
      const uint64_t bytes = nibbles_as_bytes(word);
      std::memcpy(to + 8 * w, &bytes, sizeof(bytes));
    }
  }
}

void put_group_header(const PackedShape& shape, const GptqWeights& weights, int64_t group,
                      int64_t row0, int64_t lanes, std::byte* block) {
  if (lanes < kTileRows) std::memset(block, 0, static_cast<size_t>(shape.group_header_bytes()));
  const int64_t size = scale_bytes(shape.scale);
  put_scales(shape, block, lanes, weights.scales + (group * shape.rows + row0) * size);
  if (!shape.has_zeros) return;
  const int64_t first_word = (group * shape.rows + row0) * weights.bits / 32;
  put_zeros(weights, first_word, lanes, block + kTileRows * size);
}

// Codes of one group block; `from` is the group's first word row.
void put_straight(const PackedShape& shape, const GptqWeights& weights, const std::byte* from,
                  int64_t num_steps, int64_t lanes, const PackLoops& loops, std::byte* codes) {
  const int64_t stride = 4 * shape.rows;
  if (lanes == kTileRows) {
    const WordOrder order = weights.bits == 4 ? WordOrder::kLowFirst : WordOrder::kAsStored;
    loops.copy_steps(order, from, stride, num_steps, codes);
    return;
  }
  for (int64_t s = 0; s < num_steps; ++s, codes += sizeof(Step)) {
    const Step step = short_step(weights, from + s * stride, lanes);
    std::memcpy(codes, &step, sizeof(step));
  }
}

void put_gathered(const PackedShape& shape, const GptqWeights& weights,
                  std::span<const int32_t> order, int64_t row0, int64_t lanes, std::byte* codes) {
  const auto per_word = static_cast<size_t>(columns_per_word(weights));
  for (size_t at = 0; at < order.size(); at += per_word, codes += sizeof(Step)) {
    const Step step = gathered_step(weights, shape.rows, order.subspan(at, per_word), row0, lanes);
    std::memcpy(codes, &step, sizeof(step));
  }
}

}  // namespace

void sort_by_group(std::span<const int32_t> g_idx, int64_t num_groups, std::span<int32_t> order) {
  std::vector<int32_t> next(static_cast<size_t>(num_groups) + 1, 0);
  for (const int32_t group : g_idx) next[static_cast<size_t>(group) + 1] += 1;
  for (size_t g = 1; g < next.size(); ++g) next[g] += next[g - 1];
  for (size_t i = 0; i < g_idx.size(); ++i) {
    order[static_cast<size_t>(next[static_cast<size_t>(g_idx[i])]++)] = static_cast<int32_t>(i);
  }
}

bool uniform_groups(std::span<const int32_t> g_idx, std::span<const int32_t> order, int64_t group,
                    std::span<int32_t> block_group) {
  for (size_t j = 0; j < g_idx.size(); ++j) {
    const int32_t g = g_idx[order.empty() ? j : static_cast<size_t>(order[j])];
    const size_t block = j / static_cast<size_t>(group);
    if (j % static_cast<size_t>(group) == 0) block_group[block] = g;
    if (block_group[block] != g) return false;
  }
  return true;
}

uint32_t gptq_zero(const GptqWeights& weights, int64_t rows, int64_t group, int64_t row) {
  const int64_t per_word = columns_per_word(weights);
  const uint32_t word = zero_word(weights, group * (rows / per_word) + row / per_word);
  return (word >> (weights.bits * (row % per_word))) & ((1u << weights.bits) - 1);
}

std::optional<int64_t> find_other_zero(const GptqWeights& weights, int64_t rows, uint32_t zero) {
  const int64_t per_word = columns_per_word(weights);
  const uint32_t expected = zero * (weights.bits == 4 ? 0x11111111u : 0x01010101u);
  const int64_t num_words = weights.num_groups * (rows / per_word);
  for (int64_t w = 0; w < num_words; ++w) {
    const uint32_t difference = zero_word(weights, w) ^ expected;
    if (difference != 0) return w * per_word + __builtin_ctz(difference) / weights.bits;
  }
  return std::nullopt;
}

void pack_gptq(const PackedShape& shape, const GptqWeights& weights,
               std::span<const int32_t> block_group, std::span<const int32_t> order,
               int64_t first_group, int64_t num_groups, std::byte* dst, const PackLoops& loops) {
  HS_CHECK(code_bits(shape.code) == weights.bits, "{} bits for {}", weights.bits,
           code_kind_name(shape.code));
  const int64_t per_word = columns_per_word(weights);
  const int64_t group_words = shape.group / per_word;
  for (int64_t g = first_group; g < first_group + num_groups; ++g) {
    const int64_t words = std::min(group_words, shape.cols / per_word - g * group_words);
    const std::byte* from = weights.qweight + 4 * shape.rows * (g - first_group) * group_words;
    for (int64_t tile = 0; tile < shape.num_tiles(); ++tile) {
      const int64_t row0 = tile * kTileRows;
      const int64_t lanes = tile_lanes(shape, tile);
      std::byte* block = group_block(shape, dst, tile, g);
      put_group_header(shape, weights, block_group[static_cast<size_t>(g)], row0, lanes, block);
      std::byte* codes = block + shape.group_header_bytes();
      if (order.empty()) {
        put_straight(shape, weights, from + 4 * row0, words, lanes, loops, codes);
      } else {
        put_gathered(shape, weights,
                     order.subspan(static_cast<size_t>(g * shape.group),
                                   static_cast<size_t>(words * per_word)),
                     row0, lanes, codes);
      }
      std::memset(codes + 64 * words, 0, static_cast<size_t>(64 * (group_words - words)));
    }
  }
}

void dequantize_gptq_row(const GptqWeights& weights, ScaleKind scale, int64_t rows,
                         std::span<const int32_t> g_idx, int64_t row, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t group = g_idx[i];
    const auto code = static_cast<float>(code_at(weights, rows, static_cast<int64_t>(i), row));
    const auto zero = static_cast<float>(gptq_zero(weights, rows, group, row));
    out[i] = (code - zero) * scale_value(scale, weights.scales, group * rows + row);
  }
}

}  // namespace hotset
