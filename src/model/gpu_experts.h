// SPDX-License-Identifier: Apache-2.0
// Routed experts of a model whose dense part is on the GPU, each computed where it lies
// (expert_slots.h).
//
// Few tokens (decode): hits run on the GPU while the CPU computes misses; the two meet once a layer
// through flags (kernels/cuda/expert_exchange.h), so that the stream can replay a recorded graph.
// serve_step() is the CPU's side of such a step; while it waits for a layer's choices it reads
// those ahead that the layer before predicted (kernels/cpu/read_ahead.h). Expert outputs are summed
// in the router's order wherever they come from, so the text does not depend on who computed what.
//
// Short prompts are split as well, layer by layer (split_prefill.h). Long ones have the missing
// experts of a layer cross PCIe while the GPU computes the layer before, once for all pieces of the
// step (expert_stream.h).
//
// One thread (the engine's) uses this.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cuda/device_memory.h"
#include "kernels/cpu/queue.h"
#include "kernels/cpu/read_ahead.h"
#include "kernels/cuda/expert_exchange.h"
#include "kernels/cuda/queue.h"
#include "model/config.h"
#include "model/expert_fetch.h"
#include "model/expert_slots.h"
#include "model/expert_stream.h"
#include "model/experts_runner.h"
#include "model/routing_listener.h"
#include "model/routing_log.h"
#include "model/split_prefill.h"
#include "model/stage_marks.h"
#include "model/weights.h"

namespace hotset {

struct GpuExpertsCounts {
  int64_t steps = 0;     // shared with the CPU
  int64_t choices = 0;   // of them: token · rank, shared experts not counted
  int64_t misses = 0;    // of these: computed by the CPU
  int64_t fetched = 0;   // and read by the GPU over PCIe
  int64_t foreseen = 0;  // of the CPU's: the layer before predicted them
  [[nodiscard]] int64_t missed() const { return misses + fetched; }
  int64_t streamed_bytes = 0;  // over PCIe in prefill
  SplitPrefillCounts prefill;
  double cpu_seconds = 0;   // inside the CPU's products
  double wait_seconds = 0;  // waiting for the GPU's requests
};

template <>
class ExpertsRunner<cuda::Queue> {
 public:
  static constexpr int64_t kMaxSharedTokens = 16;

  // Device memory that create() takes; the slots are counted by ExpertSlots.
  [[nodiscard]] static int64_t memory_bytes(const ModelConfig& config, const ModelWeights& host,
                                            int64_t max_tokens);

  // All references outlive the runner. `max_tokens`: of a piece.
  static Result<std::unique_ptr<ExpertsRunner>> create(cuda::Queue& queue, cpu::Queue& cpu_queue,
                                                       const ModelConfig& config,
                                                       const ModelWeights& host, ExpertSlots& slots,
                                                       int64_t max_tokens);
  // ExpertFetch::set and is_used, for steps of so many tokens.
  Status set_fetch_share(int64_t num_tokens, double share);
  [[nodiscard]] bool fetches(int64_t num_tokens) const {
    return fetch_ && fetch_->is_used(fetch_class(num_tokens));
  }
  ~ExpertsRunner() = default;
  ExpertsRunner(const ExpertsRunner&) = delete;
  ExpertsRunner& operator=(const ExpertsRunner&) = delete;

  // forward()'s calls around the pieces of a layer, and for each piece: puts its experts on the
  // stream.
  void begin_layer(int64_t layer, int64_t num_tokens);
  void end_layer(int64_t layer, int64_t num_tokens);
  void run(cuda::Queue& queue, int64_t layer, const LayerWeights& weights, const MoeBatch& batch,
           float* y);
  [[nodiscard]] int64_t chosen_bytes(const LayerWeights&, const MoeBatch&) const { return 0; }

  // Is the next layer's router to see this layer's input as well? The CPU reads its choices ahead.
  // More tokens choose more than caches hold.
  [[nodiscard]] bool predicts_next(int64_t layer, int64_t num_tokens) const {
    return ahead_.has_value() && !step_is_streamed_ && num_tokens <= kMaxPredictedTokens &&
           2 * num_tokens <= max_tokens_ && layer + 1 < config_.num_hidden_layers &&
           is_moe(layer + 1) && has_router_of(layer, layer + 1);
  }

  // SplitPrefill::fix_fetch_share.
  void fix_prefill_fetch_share(double share) {
    if (split_) split_->fix_fetch_share(share);
  }
  // What a step of so many tokens wants of each staging area (ExpertSlots::begin_step).
  [[nodiscard]] int64_t num_staged(int64_t num_tokens) const;
  // Does a step of so many tokens need serve_step()?
  [[nodiscard]] bool needs_service(int64_t num_tokens) const {
    return !slots_.all_resident() && num_tokens <= kMaxSharedTokens;
  }
  // After such a step was launched: computes misses until the GPU has gone through all layers.
  Status serve_step(int64_t num_tokens);
  // After it is over and went well: experts move into slots.
  Status end_step();
  // Once the stream has drained: has a wait of this step ended without its answer? Its results are
  // void then.
  [[nodiscard]] bool was_given_up() const;
  // From now on; null: nobody. Steps have at most max_tokens and were not recorded before.
  Status listen(RoutingListener listener, int64_t max_tokens);
  // After any step that went well: what its routers chose, for the listener.
  void tell_listener(int64_t num_tokens);
  // After such a step failed and the stream has drained: both sides count from the same number.
  Status recover();

  [[nodiscard]] GpuExpertsCounts counts() const {
    GpuExpertsCounts counts = counts_;
    if (stream_) counts.streamed_bytes = stream_->streamed_bytes();
    if (split_) counts.prefill = split_->counts();
    return counts;
  }

  // Where the stream waits for experts, from now on; null: nowhere.
  void set_marks(StageMarks* marks) { marks_ = marks; }

 private:
  ExpertsRunner(cuda::Queue& queue, cpu::Queue& cpu_queue, const ModelConfig& config,
                const ModelWeights& host, ExpertSlots& slots);
  Status create_exchange();
  [[nodiscard]] bool is_moe(int64_t layer) const {
    return host_.layers[static_cast<size_t>(layer)].is_moe;
  }
  [[nodiscard]] cuda::ExpertExchange exchange_of(int64_t layer) const;
  void mark(Stage stage) {
    if (marks_ != nullptr) queue_.note(marks_->mark(stage));
  }
  void run_shared(int64_t layer, const MoeBatch& batch, float* y);
  void run_streamed(int64_t layer, const MoeBatch& batch, float* y);
  [[nodiscard]] bool is_split(int64_t num_tokens) const {
    return split_ && num_tokens > kMaxSharedTokens && num_tokens <= split_->max_tokens();
  }
  [[nodiscard]] bool is_streamed(int64_t num_tokens) const {
    return !slots_.all_resident() && num_tokens > kMaxSharedTokens && !is_split(num_tokens);
  }
  static constexpr int64_t kMaxPredictedTokens = 4;
  Status await_request(uint32_t number);
  // Weights of one kind: both go into one launch.
  [[nodiscard]] bool has_router_of(int64_t layer, int64_t other) const {
    return host_.layers[static_cast<size_t>(layer)].router.code ==
           host_.layers[static_cast<size_t>(other)].router.code;
  }
  void offer_reading(int64_t layer, int64_t num_tokens);
  void end_reading();
  Status serve_layers(int64_t num_tokens);
  [[nodiscard]] int64_t num_foreseen() const;
  void compute_misses(int64_t layer, int64_t num_tokens);
  void note_choices(int64_t layer, int64_t num_tokens);

  cuda::Queue& queue_;
  cpu::Queue& cpu_queue_;
  const ModelConfig& config_;
  const ModelWeights& host_;
  ExpertSlots& slots_;
  int32_t top_k_ = 0;  // the shared expert included

  cuda::DeviceMemory rows_;              // [max_tokens, top_k, hidden]
  cuda::DeviceMemory gpu_ids_;           // [kMaxSharedTokens, top_k]
  cuda::DeviceMemory choice_addresses_;  // the same choices' experts
  cuda::DeviceMemory last_;              // ExpertExchange::last
  cuda::DeviceMemory mapped_;            // the rest of the exchange
  cuda::ExpertExchange exchange_;        // of layer 0
  std::unique_ptr<ExpertFetch> fetch_;
  uint32_t num_hand_overs_ = 0;

  std::unique_ptr<ExpertStream> stream_;  // null when all experts are resident
  std::unique_ptr<SplitPrefill> split_;   // likewise
  bool step_is_streamed_ = false;         // the last piece of a long step may be short

  int64_t max_tokens_ = 0;
  std::optional<cpu::ReadAhead> ahead_;  // where the CPU computes misses
  bool is_reading_ahead_ = false;
  std::vector<int32_t> predicted_;  // what the next layer would miss, likeliest first
  std::vector<int32_t> miss_ids_;
  std::vector<float> miss_weights_;
  std::vector<uint16_t> ids_;
  GpuExpertsCounts counts_;
  StageMarks* marks_ = nullptr;
  RoutingListener listener_;
  std::unique_ptr<RoutingLog> log_;  // null while nobody listens
};

}  // namespace hotset
