// SPDX-License-Identifier: Apache-2.0
#include "model/cpu_backend.h"

#include <algorithm>

#include "base/check.h"

namespace hotset {
namespace {

SequenceRows rows_of(const SequenceCache& cache, int64_t first_position, int32_t token_begin,
                     size_t num_tokens) {
  return {.first_position = first_position,
          .token_begin = token_begin,
          .num_tokens = static_cast<int32_t>(num_tokens),
          .pages = cache.page_data().data(),
          .state = cache.state_data()};
}

StepBatch batch_of(std::span<const SequenceRows> rows) {
  StepBatch batch{.sequences = rows.data(), .num_sequences = static_cast<int32_t>(rows.size())};
  for (const SequenceRows& r : rows) {
    batch.num_tokens += r.num_tokens;
    batch.max_tokens = std::max(batch.max_tokens, r.num_tokens);
    batch.max_positions = std::max(batch.max_positions, r.first_position + r.num_tokens);
  }
  return batch;
}

}  // namespace

Result<std::unique_ptr<CpuBackend>> CpuBackend::create(const ModelConfig& config,
                                                       const RopeTable& rope, cpu::WorkerPool& pool,
                                                       std::unique_ptr<ModelWeights> weights,
                                                       const CpuBackendOptions& options) {
  const bool mtp = weights->mtp != nullptr;
  PagePoolShape shape = page_pool_shape(config, mtp, kv_type_bytes(options.kv_type));
  shape.num_pages = options.num_pages;
  HS_ASSIGN_OR_RETURN(PagePool pages, PagePool::create(shape));
  HS_ASSIGN_OR_RETURN(StatePool states,
                      StatePool::create(state_pool_shape(config, options.max_num_seqs)));
  std::unique_ptr<CpuBackend> backend(new CpuBackend(config, rope, pool, std::move(weights),
                                                     options, std::move(pages), std::move(states)));
  HS_ASSIGN_OR_RETURN(backend->workspace_, create_workspace(config,
                                                            {.max_chunk = options.prefill_chunk,
                                                             .max_step = options.prefill_chunk,
                                                             .max_context = options.max_context,
                                                             .page_tokens = kPageTokens,
                                                             .kv_type = options.kv_type,
                                                             .mtp = mtp},
                                                            backend->queue_));
  backend->reserve_scratch(config, options);
  return backend;
}

CpuBackend::CpuBackend(const ModelConfig& config, const RopeTable& rope, cpu::WorkerPool& pool,
                       std::unique_ptr<ModelWeights> weights, const CpuBackendOptions& options,
                       PagePool pages, StatePool states)
    : weights_(std::move(weights)),
      pages_(std::move(pages)),
      states_(std::move(states)),
      queue_{.pool = pool, .isa = options.isa, .arithmetic = options.arithmetic},
      context_{.config = config,
               .weights = *weights_,
               .rope = rope.view(),
               .queue = queue_,
               .workspace = workspace_,
               .experts = experts_,
               .cache = {.kv_layer_bytes = pages_.shape().layer_bytes(),
                         .state_layer_floats = states_.shape().layer_floats(),
                         .delta_floats = states_.shape().delta_floats}} {
  rows_.reserve(static_cast<size_t>(options.max_num_seqs));
  ids_.reserve(static_cast<size_t>(options.prefill_chunk));
}

void CpuBackend::reserve_scratch(const ModelConfig& config, const CpuBackendOptions& options) {
  queue_.reserve(options.prefill_chunk, widest_input(config));
  const int64_t width = std::max({config.moe_intermediate_size, config.intermediate_size,
                                  config.shared_expert_intermediate_size});
  queue_.scratch.reserve(moe_scratch_bytes(options.prefill_chunk, config.hidden_size, width,
                                           static_cast<int32_t>(config.num_experts_per_tok + 1),
                                           config.num_experts + 1, queue_.pool.num_threads()));
}

Status CpuBackend::forward(std::span<const SequencePart> parts, int64_t num_logits, float* logits) {
  rows_.clear();
  ids_.clear();
  for (const SequencePart& part : parts) {
    rows_.push_back(rows_of(*part.cache, part.cache->num_tokens(),
                            static_cast<int32_t>(ids_.size()), part.ids.size()));
    ids_.insert(ids_.end(), part.ids.begin(), part.ids.end());
  }
  const StepBatch batch = batch_of(rows_);
  hotset::forward(context_, {&batch, 1}, ids_, num_logits, logits);
  for (const SequencePart& part : parts) {
    part.cache->commit(part.cache->num_tokens() + std::ssize(part.ids));
  }
  return {};
}

Status CpuBackend::forward_mtp(const SequencePart& part, int64_t num_logits, float* logits) {
  const int64_t first = part.cache->num_tokens() - std::ssize(part.ids);
  const SequenceRows rows = rows_of(*part.cache, first, 0, part.ids.size());
  hotset::forward_mtp(context_, batch_of({&rows, 1}), part.ids, num_logits, logits);
  return {};
}

}  // namespace hotset
