// SPDX-License-Identifier: Apache-2.0
#include "synth_fill.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/float16.h"
#include "splitmix.h"

namespace hotset {
namespace {

// Four xorshift64 generators side by side, which the compiler turns into vector code.
class Bits {
 public:
  explicit Bits(uint64_t seed) {
    for (uint64_t& s : state_) s = (seed = mix(seed)) | 1u;
  }
  void next(uint64_t* out) {
    for (int i = 0; i < 4; ++i) {
      uint64_t s = state_[i];
      s ^= s << 13;
      s ^= s >> 7;
      s ^= s << 17;
      state_[i] = out[i] = s;
    }
  }

 private:
  uint64_t state_[4];
};

uint8_t encode_e4m3(double value) {
  uint8_t best = 0;
  for (int code = 0; code < 0x7f; ++code) {
    const auto bits = static_cast<uint8_t>(code);
    if (std::abs(e4m3_to_float(bits) - std::abs(value)) <
        std::abs(e4m3_to_float(best) - std::abs(value))) {
      best = bits;
    }
  }
  return value < 0.0 ? static_cast<uint8_t>(best | 0x80u) : best;
}

// The point below which a normal variable lies with probability p, by bisection.
double normal_quantile(double p) {
  double low = -8.0, high = 8.0;
  for (int step = 0; step < 60; ++step) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return low;
}

template <typename Quantile>
std::shared_ptr<const ValueTable> make_table(ValueType type, const Quantile& quantile) {
  auto table = std::make_shared<ValueTable>();
  table->element_bytes = type == ValueType::kF32 ? 4 : type == ValueType::kE4m3 ? 1 : 2;
  for (size_t i = 0; i < 256; ++i) {
    table->bits[i] = encode_value(type, quantile((static_cast<double>(i) + 0.5) / 256.0));
  }
  return table;
}

template <typename T>
void fill_from_table(const ValueTable& table, Bits& bits, std::span<std::byte> out) {
  T values[256];
  for (size_t i = 0; i < 256; ++i) values[i] = static_cast<T>(table.bits[i]);
  uint64_t words[4];
  T block[32];
  for (size_t at = 0; at < out.size(); at += sizeof(block)) {
    bits.next(words);
    const auto* bytes = reinterpret_cast<const unsigned char*>(words);
    for (size_t i = 0; i < 32; ++i) block[i] = values[bytes[i]];
    std::memcpy(out.data() + at, block, std::min(sizeof(block), out.size() - at));
  }
}

template <typename T>
void apply_patch(const Patch& patch, int64_t first_element, std::span<std::byte> out) {
  const int64_t end = first_element + static_cast<int64_t>(out.size() / sizeof(T));
  const int64_t columns = patch.one_column ? 1 : patch.run;
  const int64_t num_rows = std::ssize(*patch.values) / columns;
  for (int64_t row = first_element / patch.period; row * patch.period < end; ++row) {
    const uint32_t* values = patch.values->data() + row / patch.rows_each % num_rows * columns;
    const int64_t start = row * patch.period;
    const int64_t from = std::max(start, first_element);
    const int64_t to = std::min(start + patch.run, end);
    for (int64_t i = from; i < to; ++i) {
      const auto value = static_cast<T>(values[patch.one_column ? 0 : i - start]);
      std::memcpy(out.data() + (i - first_element) * static_cast<int64_t>(sizeof(T)), &value,
                  sizeof(T));
    }
  }
}

template <typename T>
void fill_values(const SynthTensor& tensor, Bits& bits, int64_t offset, std::span<std::byte> out) {
  fill_from_table<T>(*tensor.table, bits, out);
  if (tensor.patch.period > 0) {
    apply_patch<T>(tensor.patch, offset / static_cast<int64_t>(sizeof(T)), out);
  }
}

// On sixteen codes at once.
uint64_t with_mean(CodeMean mean, uint64_t codes) {
  constexpr uint64_t kOnes = 0x1111111111111111u;
  switch (mean) {
    case CodeMean::kAny:
      return codes;
    case CodeMean::kEight: {
      const uint64_t zero = ~(codes | codes >> 1 | codes >> 2 | codes >> 3) & kOnes;
      return codes | zero << 3;
    }
    case CodeMean::kNf4: {
      const uint64_t twelve = codes >> 3 & codes >> 2 & ~(codes >> 1) & ~codes & kOnes;
      return codes & ~(twelve << 2);
    }
  }
  return codes;
}

}  // namespace

uint32_t encode_value(ValueType type, double value) {
  const auto x = static_cast<float>(value);
  switch (type) {
    case ValueType::kBf16:
      return float_to_bf16(x);
    case ValueType::kF16:
      return float_to_half(x);
    case ValueType::kF32:
      return std::bit_cast<uint32_t>(x);
    case ValueType::kE4m3:
      return encode_e4m3(value);
  }
  return 0;
}

std::shared_ptr<const ValueTable> normal_values(ValueType type, double mean, double deviation) {
  return make_table(type, [&](double p) { return mean + deviation * normal_quantile(p); });
}

std::shared_ptr<const ValueTable> uniform_values(ValueType type, double low, double high) {
  return make_table(type, [&](double p) { return low + (high - low) * p; });
}

void fill_block(const SynthTensor& tensor, uint64_t tensor_seed, int64_t block_index,
                std::span<std::byte> out) {
  const int64_t offset = block_index * kSynthBlockBytes;
  Bits bits(mix(tensor_seed) + static_cast<uint64_t>(block_index));
  if (tensor.table != nullptr) {
    switch (tensor.table->element_bytes) {
      case 1:
        return fill_values<uint8_t>(tensor, bits, offset, out);
      case 2:
        return fill_values<uint16_t>(tensor, bits, offset, out);
      default:
        return fill_values<uint32_t>(tensor, bits, offset, out);
    }
  }
  if (tensor.literal != nullptr) {
    const std::string& text = *tensor.literal;
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = static_cast<std::byte>(text[(static_cast<size_t>(offset) + i) % text.size()]);
    }
    return;
  }
  if (tensor.group_index > 0) {
    for (int64_t i = 0; i < static_cast<int64_t>(out.size()) / 4; ++i) {
      const auto group = static_cast<int32_t>((offset / 4 + i) / tensor.group_index);
      std::memcpy(out.data() + 4 * i, &group, sizeof(group));
    }
    return;
  }
  uint64_t words[4];
  for (size_t at = 0; at < out.size(); at += sizeof(words)) {
    bits.next(words);
    for (uint64_t& word : words) word = with_mean(tensor.code_mean, word);
    std::memcpy(out.data() + at, words, std::min(sizeof(words), out.size() - at));
  }
}

}  // namespace hotset
