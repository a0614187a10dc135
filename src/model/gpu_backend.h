// SPDX-License-Identifier: Apache-2.0
// The model with its dense part, caches and hot experts on one GPU, and all experts in host memory.
//
// A step's inputs go to the device in one copy, its kernels follow, its logits come back in one
// copy. Steps of few tokens are recorded as graphs, one for each number of tokens, sequences and
// logits, and replayed; the CPU computes missing experts meanwhile (gpu_experts.h).
//
// Everything is allocated by create(), as planned (gpu_plan.h).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "cuda/device_memory.h"
#include "experts/fetch_share_search.h"
#include "experts/speed_model.h"
#include "kernels/cuda/queue.h"
#include "model/backend.h"
#include "model/expert_slots.h"
#include "model/forward.h"
#include "model/gpu_experts.h"
#include "model/gpu_plan.h"
#include "model/gpu_weights.h"
#include "model/stage_marks.h"

namespace hotset {

class GpuBackend final : public Backend {
 public:
  // `config` and `rope` outlive the backend; `pool` computes misses.
  static Result<std::unique_ptr<GpuBackend>> create(std::unique_ptr<cuda::Runtime> runtime,
                                                    const ModelConfig& config,
                                                    const RopeTable& rope, cpu::WorkerPool& pool,
                                                    std::unique_ptr<ModelWeights> weights,
                                                    const GpuBackendOptions& options,
                                                    const GpuPlan& plan);
  ~GpuBackend() override;

  [[nodiscard]] PagePool& pages() override { return *pages_; }
  [[nodiscard]] StatePool& states() override { return *states_; }
  [[nodiscard]] int64_t max_logits() const override { return plan_.sizes.max_logits; }
  Status forward(std::span<const SequencePart> parts, int64_t num_logits, float* logits) override;
  [[nodiscard]] bool has_heads() const override { return heads_.data() != nullptr; }
  Status read_heads(int64_t num_valid, std::span<LogitsHead> heads) override;
  Status read_logits(int64_t row, float* logits) override;
  // Records their graphs.
  Status prepare_batches(int64_t num_seqs) override;
  [[nodiscard]] bool has_mtp() const override { return false; }
  Status forward_mtp(const SequencePart& part, int64_t num_logits, float* logits) override;
  // While there is a clock, steps carry marks and are slower; their graphs are others.
  void set_clock(StageClock* clock) override;
  // Costs a decode step 12 µs a layer where all experts are resident (measured on an H200); else
  // choices come to the host anyway.
  Status listen_to_routing(RoutingListener listener) override;

  // As it was followed: with fewer slots than planned where something else needed their memory.
  [[nodiscard]] const GpuPlan& plan() const { return plan_; }
  // What did not go as it should while this was made, a line each.
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  [[nodiscard]] GpuExpertsCounts expert_counts() const { return experts_->counts(); }
  // The share of missed experts that steps of so many tokens fetch; while others are tried, the
  // best so far.
  [[nodiscard]] double fetch_share(int64_t num_tokens) const;
  // Nodes of the graph that the last recorded step was; marks count.
  [[nodiscard]] int64_t step_nodes() const { return step_nodes_; }
  // What this machine reaches at best, measured now, between steps, in a fraction of a second:
  // device memory read by a kernel that does nothing else, a copy from pinned memory, int8 products
  // out of registers, a kernel in a graph. Fields of the CPU stay 0.
  Result<MachineRates> measure_rates();
  [[nodiscard]] const ExpertSlots& expert_slots() const { return *slots_; }
  [[nodiscard]] const SlotCacheCounts* cache_counts() const { return slots_->cache_counts(); }

 private:
  // Slots of sequences are cleared and copied on the queue's stream.
  class DeviceStates final : public StateMemory {
   public:
    DeviceStates(cuda::Queue& queue, cuda::DeviceMemory memory)
        : queue_(queue), memory_(std::move(memory)) {}
    [[nodiscard]] float* data() const override { return reinterpret_cast<float*>(memory_.data()); }
    void clear(float* at, int64_t count) override {
      queue_.note(queue_.runtime.fill(at, 0, count * 4, queue_.stream));
    }
    void copy(float* to, const float* from, int64_t count) override {
      queue_.note(queue_.runtime.copy(to, from, count * 4, queue_.stream));
    }

   private:
    cuda::Queue& queue_;
    cuda::DeviceMemory memory_;
  };
  // What a step reads beside weights: one pinned image and its copy on the device.
  struct StepInput {
    SequenceRows* rows = nullptr;  // [max_rows]: sequences, or pieces of one
    int32_t* ids = nullptr;        // [prefill_chunk]
    std::byte** pages = nullptr;   // [max_num_seqs, pages of the longest context]
  };
  // A StepBatch's counts, logits, and whether there are marks and fetches.
  using GraphKey = std::tuple<int32_t, int32_t, int32_t, int64_t, bool, bool>;
  struct RecordedStep {
    cuda::Graph graph;
    std::unique_ptr<StageMarks> marks;
  };

  GpuBackend(std::unique_ptr<cuda::Runtime> runtime, const ModelConfig& config,
             cpu::WorkerPool& pool, std::unique_ptr<ModelWeights> weights,
             const GpuBackendOptions& options, const GpuPlan& plan);
  Status allocate(const RopeTable& rope);
  Status create_caches();
  Status create_workspace();
  Status fill_dense_choices();
  Status create_step_buffers(const RopeTable& rope);
  Status create_experts();
  [[nodiscard]] double next_fetch_share(int64_t num_tokens) const;
  void give_up_trial(int64_t num_tokens);
  void learn_fetch_share(int64_t num_tokens, double seconds, int64_t num_missed);
  Status pin(const HugeBuffer& memory);
  Status pin_weights();
  Status plan_anew(int64_t more_dense_bytes);
  [[nodiscard]] StepInput step_input(std::byte* base) const;
  void send(void* device, const void* host, int64_t bytes);
  void write_input(std::span<const SequencePart> parts);  // fills pieces_
  Status run_step(int64_t num_tokens, int64_t num_logits, bool logits_to_host);
  [[nodiscard]] const float* logits_row(int64_t row) const {
    return reinterpret_cast<const float*>(logits_device_.data()) + row * config_.vocab_size;
  }
  // The graph of the step that pieces_ describes; records it when it is the first of its kind.
  Result<const RecordedStep*> recorded_step(int64_t num_tokens, int64_t num_logits);
  Status record_and_launch(int64_t num_tokens, int64_t num_logits);
  [[nodiscard]] bool is_decode(int64_t num_tokens) const {
    return pieces_.size() == 1 && pieces_[0].max_tokens == 1 &&
           experts_->num_staged(num_tokens) == 0;
  }
  Status prepare_steps(StepBatch piece);
  Status prepare_step(int64_t num_tokens, int64_t num_logits, double fetch_share);
  void put_on_stream(int64_t num_tokens, int64_t num_logits);
  // The same between marks; null: without.
  void put_on_stream(int64_t num_tokens, int64_t num_logits, StageMarks* marks);

  std::unique_ptr<cuda::Runtime> runtime_;
  const ModelConfig& config_;
  GpuBackendOptions options_;
  GpuPlan plan_;
  std::unique_ptr<ModelWeights> host_;
  std::vector<void*> pinned_;
  bool banks_are_pinned_ = true;
  EmbeddingPlace embedding_ = EmbeddingPlace::kHost;
  std::vector<std::string> notes_;
  cuda::Queue queue_;
  cpu::Queue cpu_queue_;
  GpuWeights weights_;
  std::optional<PagePool> pages_;
  cuda::DeviceMemory page_memory_;
  std::optional<DeviceStates> state_memory_;
  std::optional<StatePool> states_;
  Workspace workspace_;
  cuda::DeviceMemory workspace_memory_;
  cuda::DeviceMemory rope_memory_;
  cuda::DeviceMemory input_device_;
  cuda::DeviceMemory input_host_;
  cuda::DeviceMemory logits_device_;
  cuda::DeviceMemory logits_host_;
  cuda::DeviceMemory heads_;       // pinned: kernels/cuda/top_logits.h writes there
  int64_t num_logits_ = 0;         // rows in logits_device_
  std::vector<StepBatch> pieces_;  // of the step
  std::unique_ptr<ExpertSlots> slots_;
  std::unique_ptr<ExpertsRunner<cuda::Queue>> experts_;
  std::optional<ForwardContext<cuda::Queue>> context_;
  std::map<GraphKey, RecordedStep> graphs_;
  int64_t step_nodes_ = 0;
  bool step_was_recorded_ = false;  // for this step, which says nothing about its speed then
  std::vector<FetchShareSearch> share_searches_;  // a class each; empty: the share is fixed
  StageClock* clock_ = nullptr;
  std::unique_ptr<StageMarks> marks_;  // of steps that are not recorded
  StageMarks* step_marks_ = nullptr;   // of the step that was launched; null: none
};

}  // namespace hotset
