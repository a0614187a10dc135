// SPDX-License-Identifier: Apache-2.0
// The first half of loading: names, shapes and places, from headers alone.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <unordered_set>

#include "base/checked_math.h"
#include "model/weights.h"

namespace hotset {
namespace {

constexpr int64_t kAlignment = 64;

enum Component : int {
  kEmbedding,
  kLinearAttention,
  kFullAttention,
  kRouter,
  kSharedExpert,
  kExperts,
  kDenseMlp,
  kNorms,
  kLmHead,
  kMtp,
  kNumComponents
};

constexpr std::array<const char*, kNumComponents> kComponentNames = {
    "embedding", "linear attention", "full attention", "router",  "shared expert",
    "experts",   "dense mlp",        "norms",          "lm_head", "mtp"};

// Collects tasks; the first error is kept and ends the walk.
class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const QuantConfig& quant, const ModelConfig& config,
          const LoadOptions& options)
      : checkpoint_(checkpoint), quant_(quant), config_(config), options_(options) {
    plan_.weights = std::make_unique<ModelWeights>();
    plan_.weights->layers.resize(static_cast<size_t>(config.num_hidden_layers));
    plan_.bank_bytes.assign(static_cast<size_t>(config.num_hidden_layers) + 1, 0);
    plan_.components.resize(kNumComponents);
  }

  Result<WeightPlan> run();

 private:
  Status trunk();
  Status mtp();
  // `bank` is the layer's index; out.mixer is set.
  Status layer(const std::string& prefix, int64_t bank, bool is_moe, LayerWeights& out);
  Status linear_attention(const std::string& prefix, LinearAttentionWeights& out);
  Status full_attention(const std::string& prefix, FullAttentionWeights& out);
  Status moe(const std::string& prefix, int64_t index, LayerWeights& out);
  Status experts(const std::string& prefix, int64_t index, LayerWeights& out);
  Status fused_experts(const std::string& prefix, int64_t index, LayerWeights& out);
  Status mlp(const std::string& prefix, Component component, int bank, int64_t width,
             ExpertView& out);

  Status linear(Component component, const std::string& module, int64_t rows, int64_t cols,
                PackedMatrix& to, int bank = -1);
  Status add_task(Component component, LinearSource source, PackedMatrix& to, int bank);
  Status vector(Component component, const std::string& name, std::vector<int64_t> shape,
                Vector& to);
  Vector keep(std::vector<float> values);
  [[nodiscard]] Component counted_as(Component component) const {
    return override_component_ == kNumComponents ? component : override_component_;
  }
  Status check_bias(const LinearSource& source);
  void mark_used(const LinearSource& source);
  void finish();

  const Checkpoint& checkpoint_;
  const QuantConfig& quant_;
  const ModelConfig& config_;
  const LoadOptions& options_;
  WeightPlan plan_;
  Component override_component_ = kNumComponents;  // kNumComponents: none
  std::unordered_set<const TensorInfo*> used_;
};

std::string describe(const LinearSource& source, const PackPlan& plan) {
  const PackedShape& shape = plan.shape;
  const char* code = code_kind_name(shape.code);
  if (source.format == LinearFormat::kPlain) {
    const char* stored = dtype_name(source.weight->dtype);
    return shape.code == CodeKind::kInt8 ? fmt::format("{} held at int8", stored) : stored;
  }
  return fmt::format("{} {} g{}", linear_format_name(source.format), code, source.group_size);
}

bool may_be_8bit(Component component, const LinearSource& source) {
  if (source.format != LinearFormat::kPlain) return false;
  if (component == kLmHead || component == kSharedExpert || component == kExperts) return true;
  if (component != kLinearAttention && component != kFullAttention) return false;
  // 64 rows that set every decay: not worth a byte.
  return !source.module.ends_with("in_proj_ba");
}

int64_t bytes_of(const LinearTask& task) {
  return round_up(task.plan.shape.bytes(), kAlignment);
}

// Where a view's data lie before they have a place.
const std::byte* unplaced(int64_t offset) {
  constexpr uintptr_t kNowhere = uintptr_t{1} << 62;
  return reinterpret_cast<const std::byte*>(kNowhere + static_cast<uintptr_t>(offset));
}

// Offsets, sizes of the arenas, views.
Status place(WeightPlan& plan) {
  plan.dense_bytes = 0;
  std::fill(plan.bank_bytes.begin(), plan.bank_bytes.end(), 0);
  for (LinearTask& task : plan.tasks) {
    int64_t& arena =
        task.bank < 0 ? plan.dense_bytes : plan.bank_bytes[static_cast<size_t>(task.bank)];
    task.offset = arena;
    const auto end = checked_add(arena, bytes_of(task));
    if (!end || *end > int64_t{1} << 60) {
      return fail(fmt::format("{}: far too large", task.source.module));
    }
    arena = *end;
  }
  std::vector<int64_t> begins;  // of the banks, one after the other behind the dense modules
  int64_t end = plan.dense_bytes;
  for (const int64_t bytes : plan.bank_bytes) {
    begins.push_back(end);
    end += bytes;
    if (end > int64_t{1} << 60) return fail("the checkpoint is far too large");
  }
  plan.weights->aux.resize(plan.tasks.size());
  for (size_t i = 0; i < plan.tasks.size(); ++i) {
    const LinearTask& task = plan.tasks[i];
    const int64_t begin = task.bank < 0 ? 0 : begins[static_cast<size_t>(task.bank)];
    *task.to = packed_view(task.plan, unplaced(begin + task.offset), plan.weights->aux[i]);
    if (task.plan.reorders_inputs) {
      task.to->input_order = reinterpret_cast<const int32_t*>(
          unplaced(end + static_cast<int64_t>(i) * int64_t{sizeof(int32_t)}));
    }
  }
  if (plan.lm_head_is_embedding) plan.weights->lm_head = plan.weights->embed_tokens;
  return {};
}

Status Planner::check_bias(const LinearSource& source) {
  if (source.bias == nullptr) return {};
  used_.insert(source.bias);
  HS_ASSIGN_OR_RETURN(const std::vector<float> bias,
                      checkpoint_.read_floats(source.bias->name, source.bias->shape));
  const bool zero = std::all_of(bias.begin(), bias.end(), [](float b) { return b == 0.0f; });
  if (zero) return {};
  return fail(fmt::format("{}: {} is not zero, and this model has no biases",
                          checkpoint_.directory().path(), source.bias->name));
}

void Planner::mark_used(const LinearSource& source) {
  for (const TensorInfo* tensor :
       {source.weight, source.scales, source.zeros, source.g_idx, source.codebook,
        source.nested_scales, source.nested_codebook, source.state}) {
    if (tensor != nullptr) used_.insert(tensor);
  }
}

Status Planner::add_task(Component component, LinearSource source, PackedMatrix& to, int bank) {
  HS_RETURN_IF_ERROR(check_bias(source));
  mark_used(source);
  const bool may_be = may_be_8bit(component, source);
  const PackOptions pack{.keep_16bit_at_8 = may_be && options_.dense_8bit,
                         .codebook_scales_at_16 = options_.codebook_scales_at_16};
  HS_ASSIGN_OR_RETURN(PackPlan plan, plan_packed(checkpoint_, source, pack));
  if (!plan.note.empty()) plan_.notes.push_back(fmt::format("{}: {}", source.module, plan.note));
  plan_.has_16bit_linears |= may_be;
  component = counted_as(component);
  LinearTask task{.source = std::move(source),
                  .plan = std::move(plan),
                  .component = component,
                  .may_be_8bit = may_be,
                  .bank = bank,
                  .to = &to};
  ComponentSummary& summary = plan_.components[component];
  summary.num_tensors += 1;
  summary.num_parameters += task.source.rows * task.source.cols;
  summary.file_bytes += task.source.file_bytes();
  summary.memory_bytes += task.plan.shape.bytes();
  plan_.read_bytes += task.source.file_bytes();
  summary.formats[describe(task.source, task.plan)] += 1;
  plan_.tasks.push_back(std::move(task));
  return {};
}

Status Planner::linear(Component component, const std::string& module, int64_t rows, int64_t cols,
                       PackedMatrix& to, int bank) {
  HS_ASSIGN_OR_RETURN(LinearSource source, find_linear(checkpoint_, quant_, module, rows, cols));
  return add_task(component, std::move(source), to, bank);
}

Status Planner::vector(Component component, const std::string& name, std::vector<int64_t> shape,
                       Vector& to) {
  HS_ASSIGN_OR_RETURN(const TensorInfo* tensor, checkpoint_.require(name));
  HS_ASSIGN_OR_RETURN(std::vector<float> values, checkpoint_.read_floats(name, shape));
  to = keep(std::move(values));
  used_.insert(tensor);
  component = counted_as(component);
  ComponentSummary& summary = plan_.components[component];
  summary.num_tensors += 1;
  summary.num_parameters += static_cast<int64_t>(to.size());
  summary.file_bytes += tensor->bytes;
  summary.memory_bytes += static_cast<int64_t>(to.size() * sizeof(float));
  summary.formats[dtype_name(tensor->dtype)] += 1;
  return {};
}

Vector Planner::keep(std::vector<float> values) {
  return plan_.weights->vectors.emplace_back(std::move(values));
}

Status Planner::linear_attention(const std::string& prefix, LinearAttentionWeights& out) {
  const int64_t hidden = config_.hidden_size;
  const int64_t heads = config_.linear_num_value_heads;
  HS_RETURN_IF_ERROR(linear(kLinearAttention, prefix + "in_proj_qkvz", config_.qkvz_dim(), hidden,
                            out.in_proj_qkvz));
  HS_RETURN_IF_ERROR(
      linear(kLinearAttention, prefix + "in_proj_ba", 2 * heads, hidden, out.in_proj_ba));
  HS_RETURN_IF_ERROR(
      linear(kLinearAttention, prefix + "out_proj", hidden, config_.value_dim(), out.out_proj));
  HS_RETURN_IF_ERROR(vector(kLinearAttention, prefix + "A_log", {heads}, out.a_log));
  HS_RETURN_IF_ERROR(vector(kLinearAttention, prefix + "dt_bias", {heads}, out.dt_bias));
  HS_RETURN_IF_ERROR(
      vector(kLinearAttention, prefix + "norm.weight", {config_.linear_value_head_dim}, out.norm));
  const int64_t channels = config_.conv_dim();
  const int64_t kernel = config_.linear_conv_kernel_dim;
  Vector conv;
  HS_RETURN_IF_ERROR(
      vector(kLinearAttention, prefix + "conv1d.weight", {channels, 1, kernel}, conv));
  std::vector<float> transposed(conv.size());
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t k = 0; k < kernel; ++k) {
      transposed[static_cast<size_t>(k * channels + c)] = conv[static_cast<size_t>(c * kernel + k)];
    }
  }
  plan_.weights->vectors.pop_back();  // the order of the file is of no more use
  out.conv1d = keep(std::move(transposed));
  return {};
}

Status Planner::full_attention(const std::string& prefix, FullAttentionWeights& out) {
  const int64_t hidden = config_.hidden_size;
  const int64_t q_dim = config_.num_attention_heads * config_.head_dim;
  const int64_t kv_dim = config_.num_key_value_heads * config_.head_dim;
  HS_RETURN_IF_ERROR(linear(kFullAttention, prefix + "q_proj", 2 * q_dim, hidden, out.q_proj));
  HS_RETURN_IF_ERROR(linear(kFullAttention, prefix + "k_proj", kv_dim, hidden, out.k_proj));
  HS_RETURN_IF_ERROR(linear(kFullAttention, prefix + "v_proj", kv_dim, hidden, out.v_proj));
  HS_RETURN_IF_ERROR(linear(kFullAttention, prefix + "o_proj", hidden, q_dim, out.o_proj));
  HS_RETURN_IF_ERROR(vector(kNorms, prefix + "q_norm.weight", {config_.head_dim}, out.q_norm));
  return vector(kNorms, prefix + "k_norm.weight", {config_.head_dim}, out.k_norm);
}

Status Planner::mlp(const std::string& prefix, Component component, int bank, int64_t width,
                    ExpertView& out) {
  const int64_t hidden = config_.hidden_size;
  HS_RETURN_IF_ERROR(linear(component, prefix + "gate_proj", width, hidden, out.gate, bank));
  HS_RETURN_IF_ERROR(linear(component, prefix + "up_proj", width, hidden, out.up, bank));
  return linear(component, prefix + "down_proj", hidden, width, out.down, bank);
}

Status Planner::fused_experts(const std::string& prefix, int64_t index, LayerWeights& out) {
  const int64_t width = config_.moe_intermediate_size;
  const int64_t hidden = config_.hidden_size;
  const int bank = static_cast<int>(index);
  FusedSlice gate_up{
      .num_matrices = config_.num_experts, .matrix_rows = 2 * width, .cols = hidden, .rows = width};
  FusedSlice down{
      .num_matrices = config_.num_experts, .matrix_rows = hidden, .cols = width, .rows = hidden};
  for (int64_t e = 0; e < config_.num_experts; ++e) {
    ExpertView& expert = out.experts[static_cast<size_t>(e)];
    gate_up.index = down.index = e;
    const auto add = [&](const char* tensor, const FusedSlice& slice, PackedMatrix& to) -> Status {
      HS_ASSIGN_OR_RETURN(LinearSource source,
                          find_fused_linear(checkpoint_, prefix + tensor, slice));
      return add_task(kExperts, std::move(source), to, bank);
    };
    gate_up.row_begin = 0;
    HS_RETURN_IF_ERROR(add("gate_up_proj", gate_up, expert.gate));
    gate_up.row_begin = width;
    HS_RETURN_IF_ERROR(add("gate_up_proj", gate_up, expert.up));
    HS_RETURN_IF_ERROR(add("down_proj", down, expert.down));
  }
  return {};
}

Status Planner::experts(const std::string& prefix, int64_t index, LayerWeights& out) {
  if (checkpoint_.find(prefix + "gate_up_proj") != nullptr)
    return fused_experts(prefix, index, out);
  for (int64_t e = 0; e < config_.num_experts; ++e) {
    HS_RETURN_IF_ERROR(mlp(fmt::format("{}{}.", prefix, e), kExperts, static_cast<int>(index),
                           config_.moe_intermediate_size, out.experts[static_cast<size_t>(e)]));
  }
  return {};
}

Status Planner::moe(const std::string& prefix, int64_t index, LayerWeights& out) {
  if (!out.is_moe) {
    out.experts.resize(1);
    return mlp(prefix, kDenseMlp, -1, config_.intermediate_size, out.experts[0]);
  }
  out.experts.resize(static_cast<size_t>(config_.num_experts) + 1);
  HS_RETURN_IF_ERROR(
      linear(kRouter, prefix + "gate", config_.num_experts, config_.hidden_size, out.router));
  HS_RETURN_IF_ERROR(linear(kRouter, prefix + "shared_expert_gate", 1, config_.hidden_size,
                            out.shared_expert_gate));
  HS_RETURN_IF_ERROR(mlp(prefix + "shared_expert.", kSharedExpert, -1,
                         config_.shared_expert_intermediate_size, out.experts.back()));
  return experts(prefix + "experts.", index, out);
}

Status Planner::layer(const std::string& prefix, int64_t bank, bool is_moe, LayerWeights& out) {
  out.is_moe = is_moe;
  HS_RETURN_IF_ERROR(vector(kNorms, prefix + "input_layernorm.weight", {config_.hidden_size},
                            out.input_layernorm));
  HS_RETURN_IF_ERROR(vector(kNorms, prefix + "post_attention_layernorm.weight",
                            {config_.hidden_size}, out.post_attention_layernorm));
  if (out.mixer == MixerKind::kLinearAttention) {
    HS_RETURN_IF_ERROR(linear_attention(prefix + "linear_attn.", out.linear_attention));
  } else {
    HS_RETURN_IF_ERROR(full_attention(prefix + "self_attn.", out.full_attention));
  }
  return moe(prefix + "mlp.", bank, out);
}

Status Planner::trunk() {
  ModelWeights& out = *plan_.weights;
  const int64_t hidden = config_.hidden_size;
  HS_RETURN_IF_ERROR(
      linear(kEmbedding, "model.embed_tokens", config_.vocab_size, hidden, out.embed_tokens));
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    const auto index = static_cast<size_t>(i);
    out.layers[index].mixer = config_.layer_types[index];
    HS_RETURN_IF_ERROR(layer(fmt::format("model.layers.{}.", i), i, config_.layer_is_moe[index],
                             out.layers[index]));
  }
  HS_RETURN_IF_ERROR(vector(kNorms, "model.norm.weight", {hidden}, out.norm));
  // A tied model may still carry lm_head.weight; the tied table is what transformers uses.
  if (config_.tie_word_embeddings) {
    plan_.lm_head_is_embedding = true;
    if (const TensorInfo* head = checkpoint_.find("lm_head.weight")) used_.insert(head);
    return {};
  }
  return linear(kLmHead, "lm_head", config_.vocab_size, hidden, out.lm_head);
}

// Everything of the head is counted as one component, whatever part of a layer it is.
Status Planner::mtp() {
  if (!options_.mtp || checkpoint_.find("mtp.norm.weight") == nullptr) return {};
  plan_.weights->mtp = std::make_unique<MtpWeights>();
  MtpWeights& out = *plan_.weights->mtp;
  const int64_t hidden = config_.hidden_size;
  const std::vector<int64_t> shape = {hidden};
  override_component_ = kMtp;
  HS_RETURN_IF_ERROR(
      vector(kMtp, "mtp.pre_fc_norm_embedding.weight", shape, out.pre_fc_norm_embedding));
  HS_RETURN_IF_ERROR(vector(kMtp, "mtp.pre_fc_norm_hidden.weight", shape, out.pre_fc_norm_hidden));
  HS_RETURN_IF_ERROR(vector(kMtp, "mtp.norm.weight", shape, out.norm));
  HS_RETURN_IF_ERROR(linear(kMtp, "mtp.fc", hidden, 2 * hidden, out.fc));
  out.layer.mixer = MixerKind::kFullAttention;
  return layer("mtp.layers.0.", config_.num_hidden_layers, config_.num_experts > 0, out.layer);
}

void Planner::finish() {
  for (const TensorInfo& tensor : checkpoint_.tensors()) {
    const bool is_mtp = tensor.name.starts_with("mtp.");
    if (is_mtp) plan_.num_mtp_tensors += 1;
    if (!is_mtp && used_.count(&tensor) == 0) plan_.unknown_tensors.push_back(tensor.name);
  }
  for (size_t c = 0; c < plan_.components.size(); ++c) {
    plan_.components[c].name = kComponentNames[c];
  }
}

Result<WeightPlan> Planner::run() {
  HS_RETURN_IF_ERROR(trunk());
  HS_RETURN_IF_ERROR(mtp());
  finish();
  HS_RETURN_IF_ERROR(place(plan_));
  return std::move(plan_);
}

}  // namespace

Result<WeightPlan> plan_weights(const Checkpoint& checkpoint, const QuantConfig& quant,
                                const ModelConfig& config, const LoadOptions& options) {
  return Planner(checkpoint, quant, config, options).run();
}

Status set_dense_8bit(const Checkpoint& checkpoint, WeightPlan& plan, bool dense_8bit) {
  for (LinearTask& task : plan.tasks) {
    if (!task.may_be_8bit) continue;
    ComponentSummary& summary = plan.components[static_cast<size_t>(task.component)];
    summary.memory_bytes -= task.plan.shape.bytes();
    const auto before = summary.formats.find(describe(task.source, task.plan));
    if (--before->second == 0) summary.formats.erase(before);
    const PackOptions pack{.keep_16bit_at_8 = dense_8bit};
    HS_ASSIGN_OR_RETURN(task.plan, plan_packed(checkpoint, task.source, pack));
    summary.memory_bytes += task.plan.shape.bytes();
    summary.formats[describe(task.source, task.plan)] += 1;
  }
  return place(plan);
}

std::string ComponentSummary::formats_text() const {
  std::string text;
  for (const auto& [format, count] : formats) {
    text += fmt::format("{}{} ×{}", text.empty() ? "" : ", ", format, count);
  }
  return text;
}

}  // namespace hotset
