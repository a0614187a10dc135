// SPDX-License-Identifier: Apache-2.0
#include "model/gpu_plan.h"

#include <algorithm>

#include "base/check.h"
#include "base/checked_math.h"
#include "kernels/cuda/delta_mixer.h"
#include "kernels/cuda/expert_table.h"
#include "kernels/gated_attention.h"
#include "kvcache/sequence_cache.h"
#include "model/backend.h"
#include "model/gpu_experts.h"
#include "model/gpu_weights.h"
#include "model/split_prefill.h"

namespace hotset {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// What the driver takes for its context (518 MiB on an H200), the graphs of 16 answers (120 MiB) and
// its own lists.
constexpr int64_t kGraphBytes = 704 * kMiB;
constexpr int64_t kGpuMarginBytes = 128 * kMiB;
// Tokenizer, template, the driver's own share of RAM, connections; measured as what a loaded
// process holds beside weights and buffers.
constexpr int64_t kProgramBytes = 512 * kMiB;
constexpr int64_t kRamMarginBytes = 512 * kMiB;

constexpr int64_t kLogitsBytes = 64 * kMiB;
constexpr int64_t kPieceTokens = 2048;  // keeps the GPU's products large and the buffers small
constexpr int32_t kKernelsOfALayer = 13;

GatedAttention attention_shape(const ModelConfig& c, KvType type) {
  return {.num_heads = c.num_attention_heads,
          .num_kv_heads = c.num_key_value_heads,
          .head_dim = c.head_dim,
          .rotary_dims = c.rotary_dim(),
          .kv_type = type,
          .page_tokens = kPageTokens};
}

// Scratch of the largest single operation of a step.
int64_t largest_scratch(const ModelConfig& c, const ModelWeights& host, int64_t chunk) {
  const DeltaNetShape delta{.num_key_heads = c.linear_num_key_heads,
                            .num_value_heads = c.linear_num_value_heads,
                            .key_head_dim = c.linear_key_head_dim,
                            .value_head_dim = c.linear_value_head_dim};
  int64_t bytes = std::max(cuda::matmul_scratch_bytes(chunk, widest_input(c)),
                           cuda::delta_mixer_scratch_bytes(delta, chunk));
  for (const LayerWeights& layer : host.layers) {
    const cuda::ExpertGroup group{.encoding = layer.experts.back(), .num_experts = 1};
    const cuda::ExpertGroup routed{.encoding = layer.experts.front(),
                                   .num_experts = static_cast<int32_t>(layer.experts.size())};
    for (const cuda::ExpertGroup& g : {group, routed}) {
      const cuda::ExpertTable table{.groups = &g, .num_groups = 1};
      bytes =
          std::max(bytes, cuda::moe_scratch_bytes(table, chunk, c.hidden_size,
                                                  static_cast<int32_t>(c.num_experts_per_tok + 1)));
    }
  }
  return bytes;
}

// Sequences with their tables of pages, and tokens.
int64_t input_bytes(const GpuSizes& sizes, const GpuBackendOptions& options) {
  const int64_t rows = sizes.max_rows * static_cast<int64_t>(sizeof(SequenceRows));
  const int64_t pages =
      options.max_num_seqs * sizes.max_pages * static_cast<int64_t>(sizeof(std::byte*));
  return round_up(rows, 256) + round_up(options.prefill_chunk * 4, 256) + pages;
}

int64_t num_moe_layers(const ModelWeights& host) {
  return std::count_if(host.layers.begin(), host.layers.end(),
                       [](const LayerWeights& layer) { return layer.is_moe; });
}

PlacementInput placement_input(const ModelConfig& config, const GpuForm& form,
                               const GpuBackendOptions& options, const GpuMachine& machine) {
  const GpuSizes& sizes = form.sizes;
  PlacementInput in;
  in.is_imagined = machine.is_imagined;
  in.gpu_free_bytes = machine.gpu_free_bytes;
  if (options.gpu_memory_bytes > 0) in.gpu_memory_bytes = options.gpu_memory_bytes;
  in.ram_available_bytes = machine.ram_available_bytes;
  if (options.ram_bytes > 0) in.ram_bytes = options.ram_bytes;
  in.dense = form.dense;
  in.kv_token_bytes = sizes.pages.page_bytes() / kPageTokens;
  in.kv_page_tokens = kPageTokens;
  in.max_model_len = options.max_context;
  in.max_num_seqs = options.max_num_seqs;
  in.fixed_num_seqs = options.fixed_num_seqs;
  in.state_bytes = sizes.states.slot_floats() * 4;
  in.workspace_bytes = sizes.workspace_bytes();
  in.graph_bytes = kGraphBytes;
  in.gpu_margin_bytes = kGpuMarginBytes;
  in.lending_slots = sizes.slots.lending_slots;
  in.staging_slots = sizes.slots.staging_slots;
  if (options.max_slots >= 0) in.max_slots = options.max_slots;
  in.min_slots = std::min<int64_t>({1, sizes.slots.num_experts, in.max_slots.value_or(1)});
  in.bank_bytes = form.bank_bytes;
  in.host_bytes = kProgramBytes + sizes.input_bytes + sizes.logits_bytes +
                  SplitPrefill::host_bytes(config, sizes.rows.max_chunk);
  in.ram_margin_bytes = kRamMarginBytes;
  in.load = {.num_layers = static_cast<int32_t>(sizes.num_moe_layers),
             .num_experts = static_cast<int32_t>(config.num_experts),
             .top_k = static_cast<int32_t>(config.num_experts_per_tok),
             .expert_bytes = sizes.slots.slot_bytes,
             .state_kv_bytes = 2.0 * static_cast<double>(in.state_bytes),
             .num_kernels = static_cast<int32_t>(config.num_hidden_layers) * kKernelsOfALayer};
  in.rates = machine.rates;
  return in;
}

}  // namespace

GpuSizes gpu_sizes(const ModelConfig& c, const ModelWeights& host, const GpuBackendOptions& options,
                   int num_sms) {
  const int64_t chunk = std::min(options.prefill_chunk, kPieceTokens);
  GpuSizes sizes{.rows = {.max_chunk = chunk,
                          .max_step = options.prefill_chunk,
                          .max_context = options.max_context,
                          .page_tokens = kPageTokens,
                          .kv_type = options.kv_type},
                 .mixers = {.attention_floats = gated_attention_scratch_floats(
                                num_sms, attention_shape(c, options.kv_type), chunk)},
                 .pages = page_pool_shape(c, false, kv_type_bytes(options.kv_type)),
                 .states = state_pool_shape(c, options.max_num_seqs),
                 .slots = slot_needs(host),
                 .num_moe_layers = num_moe_layers(host),
                 .max_pieces = ceil_div(options.prefill_chunk, kPieceTokens),
                 .max_pages = ceil_div(options.max_context, kPageTokens)};
  sizes.max_rows = std::max(options.max_num_seqs, sizes.max_pieces);
  sizes.max_logits = std::clamp(kLogitsBytes / (4 * c.vocab_size), options.max_num_seqs,
                                std::max(options.prefill_chunk, options.max_num_seqs));
  sizes.pages.num_pages = sizes.max_pages + options.max_num_seqs;
  sizes.weight_bytes = gpu_weight_bytes(host);
  sizes.scratch_bytes = std::max(largest_scratch(c, host, chunk),
                                 cuda::matmul_scratch_bytes(sizes.max_logits, c.hidden_size));
  sizes.step_rows_bytes = workspace_bytes(c, sizes.rows, sizes.mixers);
  sizes.input_bytes = input_bytes(sizes, options);
  sizes.logits_bytes = sizes.max_logits * c.vocab_size * 4;
  sizes.experts_bytes = ExpertsRunner<cuda::Queue>::memory_bytes(c, host, chunk);
  return sizes;
}

GpuForm gpu_form(const ModelConfig& config, const WeightPlan& plan, int32_t dense_bits,
                 const GpuBackendOptions& options, int num_sms) {
  GpuForm form{.sizes = gpu_sizes(config, *plan.weights, options, num_sms)};
  form.dense = {.bits = dense_bits,
                .stored_bytes = form.sizes.weight_bytes,
                .read_bytes = form.sizes.weight_bytes,
                .host_bytes = plan.dense_bytes};
  for (const int64_t bytes : plan.bank_bytes) form.bank_bytes += bytes;
  return form;
}

Result<GpuPlan> plan_gpu(const ModelConfig& config, std::span<const GpuForm> forms,
                         const GpuBackendOptions& options, const GpuMachine& machine,
                         const GpuForm* on_request) {
  HS_CHECK(forms.size() == 1 || forms.size() == 2, "{} forms", forms.size());
  PlacementInput input = placement_input(config, forms.front(), options, machine);
  if (forms.size() == 2) {
    input.dense_8bit = forms.back().dense;
    input.workspace_bytes =
        std::max(forms.front().sizes.workspace_bytes(), forms.back().sizes.workspace_bytes());
  }
  if (on_request != nullptr) {
    input.dense_8bit_on_request = on_request->dense;
    // Its workspace is another one.
    input.dense_8bit_on_request->stored_bytes +=
        on_request->sizes.workspace_bytes() - input.workspace_bytes;
  }
  HS_ASSIGN_OR_RETURN(Placement placement, plan_placement(input));
  const GpuForm& chosen =
      placement.dense.bits == forms.back().dense.bits ? forms.back() : forms.front();
  input.dense = placement.dense;
  input.dense_8bit.reset();
  return GpuPlan{chosen.sizes, std::move(placement), machine.rates, input};
}

}  // namespace hotset
