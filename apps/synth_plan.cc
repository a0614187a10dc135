// SPDX-License-Identifier: Apache-2.0
// The tensors of a synthetic checkpoint, in file order. Every linear has a gain: the deviation of
// its outputs for inputs of deviation 1. With the gains below, a layer adds about 0.15 to the
// variance of the residual stream, which ends near 2.9 after 48 layers; logits have deviation 2.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <random>

#include "base/check.h"
#include "synth_model.h"
#include "synth_text.h"

namespace hotset {
namespace {

constexpr int64_t kGroup = 128;  // GPTQ, AWQ, compressed-tensors
constexpr int64_t kNf4Block = 64;
constexpr int64_t kFp8Block = 128;
constexpr double kLayerVariance = 0.15;
constexpr double kTopicHeight = 8.0;  // of a topic's dimension in the residual stream
constexpr double kTopicShare = 0.8;   // of a topic in what makes an expert popular there
// A normal deviate of this size spreads as the Gumbel noise that turns the k largest logits into k
// draws by their probabilities.
constexpr double kGumbelDeviation = 1.28;

// bitsandbytes' NF4 codebook, as its checkpoints store it.
constexpr float kNf4[16] = {-1.0f,
                            -0.6961928009986877f,
                            -0.5250730514526367f,
                            -0.39491748809814453f,
                            -0.28444138169288635f,
                            -0.18477343022823334f,
                            -0.09105003625154495f,
                            0.0f,
                            0.07958029955625534f,
                            0.16093020141124725f,
                            0.24611230194568634f,
                            0.33791524171829224f,
                            0.44070982933044434f,
                            0.5626170039176941f,
                            0.7229568362236023f,
                            1.0f};

std::shared_ptr<const std::vector<uint32_t>> one_value(uint32_t bits) {
  return std::make_shared<const std::vector<uint32_t>>(1, bits);
}

std::shared_ptr<const std::string> words(uint32_t word) {
  std::string bytes(4, '\0');
  for (size_t i = 0; i < 4; ++i) bytes[i] = static_cast<char>(word >> (8 * i));
  return std::make_shared<const std::string>(bytes);
}

template <typename T>
std::shared_ptr<const std::string> bytes_of(const T* values, size_t count) {
  return std::make_shared<const std::string>(reinterpret_cast<const char*>(values),
                                             count * sizeof(T));
}

// Codes of unit scale have these deviations, with the replacements of CodeMean.
double affine_deviation() {
  double squares = 0.0;
  for (int code = 1; code < 16; ++code) squares += (code - 8.0) * (code - 8.0);
  return std::sqrt(squares / 16.0);
}
constexpr double kByteDeviation = 73.9;  // of random bytes
double nf4_deviation() {
  double squares = 0.0;
  for (size_t code = 0; code < 16; ++code) squares += std::pow(kNf4[code == 12 ? 8 : code], 2.0);
  return std::sqrt(squares / 16.0);
}

// Sums of uniform variables: the same on every machine.
std::vector<double> deviates(std::mt19937_64& engine, size_t count) {
  std::vector<double> values(count, -6.0);
  for (double& value : values) {
    for (int i = 0; i < 12; ++i) value += static_cast<double>(engine() >> 11) * 0x1p-53;
  }
  return values;
}
constexpr double kFp8Deviation = 64.0;  // of the stored values; the largest are at 2.9 times that

class Planner {
 public:
  Planner(const SynthModel& model, const SynthOptions& options) : m_(model), options_(options) {}

  std::vector<SynthTensor> plan() {
    embedding();
    for (int64_t layer = 0; layer < m_.num_hidden_layers; ++layer) {
      prefix_ = "model.layers." + std::to_string(layer) + ".";
      (layer + 1) % m_.full_attention_interval == 0 ? attention() : delta_net();
      experts(layer);
      norm(prefix_ + "input_layernorm.weight", m_.hidden_size, 0.0);
      norm(prefix_ + "post_attention_layernorm.weight", m_.hidden_size, 0.0);
    }
    norm("model.norm.weight", m_.hidden_size, 0.0);
    plain("lm_head.weight", m_.vocab_size, m_.hidden_size, 2.0);
    return std::move(tensors_);
  }

 private:
  [[nodiscard]] bool zipf() const { return options_.zipf > 0.0; }

  SynthTensor& add(std::string name, DType dtype, std::vector<int64_t> shape) {
    SynthTensor tensor;
    tensor.bytes = dtype_bits(dtype) / 8;
    for (int64_t size : shape) tensor.bytes *= size;
    tensor.entry = {std::move(name), dtype, std::move(shape)};
    tensors_.push_back(std::move(tensor));
    return tensors_.back();
  }
  SynthTensor& values(std::string name, DType dtype, std::vector<int64_t> shape,
                      std::shared_ptr<const ValueTable> table) {
    SynthTensor& tensor = add(std::move(name), dtype, std::move(shape));
    tensor.table = std::move(table);
    return tensor;
  }
  // The tables are few and asked for again and again: one per (type, deviation).
  const std::shared_ptr<const ValueTable>& normal(ValueType type, double deviation) {
    auto& table = normals_[{type, deviation}];
    if (table == nullptr) table = normal_values(type, 0.0, deviation);
    return table;
  }
  const std::shared_ptr<const ValueTable>& scales(ValueType type, double middle) {
    auto& table = scales_[{type, middle}];
    if (table == nullptr) table = uniform_values(type, 0.8 * middle, 1.2 * middle);
    return table;
  }

  void norm(std::string name, int64_t size, double mean) {
    SynthTensor& t =
        values(std::move(name), DType::kBF16, {size}, normal_values(ValueType::kBf16, mean, 0.05));
    // The topics' dimensions keep their height for the router.
    if (zipf() && size == m_.hidden_size) {
      t.patch = {.period = size, .run = kSynthTopics, .values = one_value(0)};
    }
  }

  SynthTensor& plain(std::string name, int64_t rows, int64_t cols, double gain) {
    const double deviation = gain / std::sqrt(static_cast<double>(cols));
    return values(std::move(name), DType::kBF16, {rows, cols}, normal(ValueType::kBf16, deviation));
  }

  void embedding() {
    SynthTensor& t = values("model.embed_tokens.weight", DType::kBF16,
                            {m_.vocab_size, m_.hidden_size}, normal(ValueType::kBf16, 1.0));
    if (!zipf()) return;
    std::vector<uint32_t> one_hot(kSynthTopics * kSynthTopics);
    for (size_t topic = 0; topic < kSynthTopics; ++topic) {
      one_hot[topic * (kSynthTopics + 1)] = encode_value(ValueType::kBf16, kTopicHeight);
    }
    t.patch = {.period = m_.hidden_size,
               .run = kSynthTopics,
               .values = std::make_shared<const std::vector<uint32_t>>(std::move(one_hot)),
               .rows_each = topic_block(m_.vocab_size),
               .one_column = false};
  }

  // A quantisable linear. writes_residual: with zipf, the topics' dimensions stay as they are.
  void linear(const std::string& name, int64_t rows, int64_t cols, double gain,
              bool writes_residual = false) {
    const double deviation = gain / std::sqrt(static_cast<double>(cols));
    quiet_rows_ = zipf() && writes_residual;
    switch (options_.format) {
      case SynthFormat::kBf16:
        return quiet(plain(name + ".weight", rows, cols, gain), rows * cols, cols);
      case SynthFormat::kGptq:
        return gptq(name, rows, cols, deviation);
      case SynthFormat::kAwq:
        return awq(name, rows, cols, deviation);
      case SynthFormat::kCompressedTensors:
        return compressed_tensors(name, rows, cols, deviation);
      case SynthFormat::kNf4:
        return nf4(name, rows, cols, deviation);
      case SynthFormat::kFp8:
        return fp8(name, rows, cols, deviation);
    }
  }
  // Zeroes the first kSynthTopics outputs: `each` elements in a row, or one in each row of
  // `period`.
  void quiet(SynthTensor& tensor, int64_t period, int64_t each) const {
    if (!quiet_rows_) return;
    tensor.patch = {.period = period, .run = kSynthTopics * each, .values = one_value(0)};
  }

  void gptq(const std::string& name, int64_t rows, int64_t cols, double deviation) {
    add(name + ".qweight", DType::kI32, {cols / 8, rows}).code_mean = CodeMean::kEight;
    add(name + ".qzeros", DType::kI32, {cols / kGroup, rows / 8}).literal = gptq_zeros_;
    quiet(values(name + ".scales", DType::kF16, {cols / kGroup, rows},
                 scales(ValueType::kF16, deviation / affine_deviation())),
          rows, 1);
    add(name + ".g_idx", DType::kI32, {cols}).group_index = kGroup;
  }
  void awq(const std::string& name, int64_t rows, int64_t cols, double deviation) {
    add(name + ".qweight", DType::kI32, {cols, rows / 8}).code_mean = CodeMean::kEight;
    add(name + ".qzeros", DType::kI32, {cols / kGroup, rows / 8}).literal = awq_zeros_;
    quiet(values(name + ".scales", DType::kF16, {cols / kGroup, rows},
                 scales(ValueType::kF16, deviation / affine_deviation())),
          rows, 1);
  }
  void compressed_tensors(const std::string& name, int64_t rows, int64_t cols, double deviation) {
    const int64_t shape[2] = {rows, cols};
    const int64_t groups = cols / kGroup;
    const bool bytes = options_.code_bits == 8;
    add(name + ".weight_packed", DType::kI32, {rows, cols / (bytes ? 4 : 8)}).code_mean =
        bytes ? CodeMean::kAny : CodeMean::kEight;
    quiet(
        values(name + ".weight_scale", DType::kBF16, {rows, groups},
               scales(ValueType::kBf16, deviation / (bytes ? kByteDeviation : affine_deviation()))),
        rows * groups, groups);
    add(name + ".weight_shape", DType::kI64, {2}).literal = bytes_of(shape, 2);
  }
  void nf4(const std::string& name, int64_t rows, int64_t cols, double deviation) {
    const int64_t blocks = rows * cols / kNf4Block;
    add(name + ".weight", DType::kU8, {rows * cols / 2, 1}).code_mean = CodeMean::kNf4;
    quiet(values(name + ".weight.absmax", DType::kF32, {blocks},
                 scales(ValueType::kF32, deviation / nf4_deviation())),
          blocks, cols / kNf4Block);
    add(name + ".weight.quant_map", DType::kF32, {16}).literal = nf4_map_;
    const std::string state =
        R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [)" +
        std::to_string(rows) + ", " + std::to_string(cols) + "]}";
    add(name + ".weight.quant_state.bitsandbytes__nf4", DType::kU8, {std::ssize(state)}).literal =
        std::make_shared<const std::string>(state);
  }
  void fp8(const std::string& name, int64_t rows, int64_t cols, double deviation) {
    quiet(values(name + ".weight", DType::kF8E4M3, {rows, cols},
                 normal(ValueType::kE4m3, kFp8Deviation)),
          rows * cols, cols);
    values(name + ".weight_scale_inv", DType::kBF16,
           {(rows + kFp8Block - 1) / kFp8Block, (cols + kFp8Block - 1) / kFp8Block},
           scales(ValueType::kBf16, deviation / kFp8Deviation));
  }

  void attention() {
    const std::string at = prefix_ + "self_attn.";
    const int64_t kv_dim = m_.num_key_value_heads * m_.head_dim;
    const int64_t q_dim = m_.num_attention_heads * m_.head_dim;
    linear(at + "q_proj", 2 * q_dim, m_.hidden_size, 1.0);
    linear(at + "k_proj", kv_dim, m_.hidden_size, 1.0);
    linear(at + "v_proj", kv_dim, m_.hidden_size, 1.0);
    linear(at + "o_proj", m_.hidden_size, q_dim, 0.5, true);
    norm(at + "q_norm.weight", m_.head_dim, 0.0);
    norm(at + "k_norm.weight", m_.head_dim, 0.0);
  }

  void delta_net() {
    const std::string at = prefix_ + "linear_attn.";
    const int64_t key_dim = m_.linear_num_key_heads * m_.linear_head_dim;
    const int64_t value_dim = m_.linear_num_value_heads * m_.linear_head_dim;
    const int64_t heads = m_.linear_num_value_heads;
    linear(at + "in_proj_qkvz", 2 * key_dim + 2 * value_dim, m_.hidden_size, 1.0);
    plain(at + "in_proj_ba.weight", 2 * heads, m_.hidden_size, 1.0);
    values(at + "conv1d.weight", DType::kBF16,
           {2 * key_dim + value_dim, 1, m_.linear_conv_kernel_dim}, normal(ValueType::kBf16, 0.5));
    // Decay rates from 1 to 16 and time steps around 0.01, as such mixers are initialised.
    values(at + "A_log", DType::kBF16, {heads}, uniform_values(ValueType::kBf16, 0.0, 2.77));
    values(at + "dt_bias", DType::kBF16, {heads}, uniform_values(ValueType::kBf16, -6.9, -2.3));
    norm(at + "norm.weight", m_.linear_head_dim, 1.0);
    linear(at + "out_proj", m_.hidden_size, value_dim, 0.5, true);
  }

  void swiglu(const std::string& at, int64_t width) {
    linear(at + "gate_proj", width, m_.hidden_size, 1.0);
    linear(at + "up_proj", width, m_.hidden_size, 1.0);
    linear(at + "down_proj", m_.hidden_size, width, 0.7, true);
  }

  void experts(int64_t layer) {
    router(layer);
    plain(prefix_ + "mlp.shared_expert_gate.weight", 1, m_.hidden_size, 1.0);
    swiglu(prefix_ + "mlp.shared_expert.", m_.shared_expert_intermediate_size);
    for (int64_t e = 0; e < m_.num_experts; ++e) {
      swiglu(prefix_ + "mlp.experts." + std::to_string(e) + ".", m_.moe_intermediate_size);
    }
  }

  // With zipf, column t meets the dimension of topic t in the normalised residual stream, whose
  // height falls as the other dimensions grow with depth; the column makes up for that. Within a
  // topic, popularity is rank^-zipf; ranks of different topics are related, not equal.
  void router(int64_t layer) {
    SynthTensor& t = plain(prefix_ + "mlp.gate.weight", m_.num_experts, m_.hidden_size,
                           zipf() ? kGumbelDeviation : 1.5);
    if (!zipf()) return;
    const double variance = 1.0 +
                            kTopicHeight * kTopicHeight / static_cast<double>(m_.hidden_size) +
                            kLayerVariance * static_cast<double>(layer);
    const double height = kTopicHeight / std::sqrt(variance);
    const auto num_experts = static_cast<size_t>(m_.num_experts);
    std::mt19937_64 engine(options_.seed * 1000003u + static_cast<uint64_t>(layer));
    const std::vector<double> everywhere = deviates(engine, num_experts);
    std::vector<uint32_t> columns(num_experts * kSynthTopics);
    for (size_t topic = 0; topic < kSynthTopics; ++topic) {
      std::vector<double> charm = deviates(engine, num_experts);
      for (size_t e = 0; e < num_experts; ++e) {
        charm[e] = std::sqrt(kTopicShare) * charm[e] + std::sqrt(1 - kTopicShare) * everywhere[e];
      }
      std::vector<size_t> order(num_experts);
      std::iota(order.begin(), order.end(), size_t{0});
      std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return std::pair(-charm[a], a) < std::pair(-charm[b], b);
      });
      for (size_t r = 0; r < num_experts; ++r) {
        const double logit = -options_.zipf * std::log(static_cast<double>(r + 1));
        columns[order[r] * kSynthTopics + topic] = encode_value(ValueType::kBf16, logit / height);
      }
    }
    t.patch = {.period = m_.hidden_size,
               .run = kSynthTopics,
               .values = std::make_shared<const std::vector<uint32_t>>(std::move(columns)),
               .one_column = false};
  }

  const SynthModel& m_;
  const SynthOptions& options_;
  std::string prefix_;
  bool quiet_rows_ = false;
  std::vector<SynthTensor> tensors_;
  std::map<std::pair<ValueType, double>, std::shared_ptr<const ValueTable>> normals_, scales_;
  // Symmetric zero 8: version 1 of GPTQ stores 7.
  std::shared_ptr<const std::string> gptq_zeros_ = words(0x77777777u);
  std::shared_ptr<const std::string> awq_zeros_ = words(0x88888888u);
  std::shared_ptr<const std::string> nf4_map_ = bytes_of(kNf4, 16);
};

}  // namespace

std::vector<SynthTensor> plan_synth_tensors(const SynthModel& model, const SynthOptions& options) {
  return Planner(model, options).plan();
}

}  // namespace hotset
