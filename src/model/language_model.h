// SPDX-License-Identifier: Apache-2.0
// A loaded model as the engine sees it: sequences that token ids are appended to, and logits.
// It owns the weights, the caches, the workspace and the threads that compute.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "cuda/runtime.h"
#include "experts/placement.h"
#include "kernels/attention.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/queue.h"
#include "model/backend.h"
#include "model/choose_device.h"
#include "model/config.h"
#include "model/weights.h"
#include "request/token_model.h"
#include "telemetry/stage_clock.h"

namespace hotset {

class RoutingProfile;
struct ModelPlan;

// Modules that the checkpoint stores at 16 bits: as stored, at 8 bits, or what the memory plan of a
// GPU gains by (on the CPU: as stored).
enum class DenseBits : uint8_t { k16, k8, kAuto };

struct ModelOptions {
  Device device = Device::kCpu;
  int gpu = 0;                    // CUDA's number of the GPU
  int64_t gpu_memory_bytes = 0;   // 0: what is free there, less a margin
  int64_t ram_bytes = 0;          // 0: what is available
  int64_t max_expert_slots = -1;  // −1: as many as fit; fewer for tests and measurements
  double fetch_share = -1;        // GpuBackendOptions::fetch_share
  std::shared_ptr<const RoutingProfile> expert_profile = nullptr;  // by which slots are filled
  int cpu_threads = 0;  // 0: one per processor this process may use; beside a GPU one
                        // per core, less one for the driver
  bool pin_threads = true;
  cpu::Isa isa = cpu::Isa::kScalar;  // detect_isa() picks the best
  cpu::Arithmetic arithmetic = cpu::Arithmetic::kFast;
  KvType kv_type = KvType::kBF16;
  int64_t max_model_len = 0;   // 0: what the config says, cut to what memory allows
  int64_t max_num_seqs = 4;    // sequences that may hold state at once
  int64_t fixed_num_seqs = 0;  // of them, those that --max-num-seqs does not count; for advice
  int64_t prefill_chunk = 0;   // 0: 512 on the CPU, 8192 on a GPU
  DenseBits dense = DenseBits::k16;
  bool mtp = false;  // also load the multi-token-prediction head, where the checkpoint has one
};

// What a model directory holds, from headers alone.
struct ModelSummary {
  ModelConfig config;
  std::string directory;
  std::string quantization;  // "gptq (gptqmodel)", "none"
  std::vector<ComponentSummary> components;
  std::vector<std::string> notes;
  std::vector<std::string> warnings;         // of the checkpoint
  std::vector<std::string> unknown_tensors;  // read by nothing
  int64_t num_tensors = 0;
  int64_t num_mtp_tensors = 0;
  int64_t file_bytes = 0;
  int64_t memory_bytes = 0;        // packed weights
  int64_t kv_bytes_per_token = 0;  // at kv_type
  int64_t state_bytes_per_sequence = 0;
};

Result<ModelSummary> inspect_model(const std::string& directory, const ModelOptions& options);

class GpuBackend;

class LanguageModel : public TokenModel {
 public:
  // `directory`: what resolve_model() found.
  static Result<std::unique_ptr<LanguageModel>> load(const std::string& directory,
                                                     const ModelOptions& options,
                                                     const LoadProgressFn& progress);
  // As planned (model_plan.h). Where a GPU was chosen by kAuto and turns out to refuse what the
  // plan takes, the CPU computes after all, and notes() says why.
  static Result<std::unique_ptr<LanguageModel>> load(ModelPlan plan,
                                                     const LoadProgressFn& progress);
  ~LanguageModel() override;

  [[nodiscard]] const ModelConfig& config() const;
  [[nodiscard]] const LoadReport& load_report() const;
  [[nodiscard]] const ModelOptions& options() const;  // zeros and kAuto resolved
  // What computes, and where memory went: "16 CPU threads, AVX-512 VNNI", or the GPU's name with
  // its experts' share and budget. After kAuto chose the CPU it says why.
  [[nodiscard]] const std::string& device_text() const;
  // The memory plan that was followed, and what else a user should know, a line each.
  [[nodiscard]] const Placement& placement() const;
  [[nodiscard]] const std::vector<std::string>& notes() const;
  // Null on the CPU.
  [[nodiscard]] const GpuBackend* gpu_backend() const;
  [[nodiscard]] GpuBackend* gpu_backend();

  [[nodiscard]] int64_t vocab_size() const override;
  [[nodiscard]] int64_t max_tokens() const override;
  [[nodiscard]] int64_t prefill_chunk() const override;
  [[nodiscard]] int64_t max_decode_batch() const override;
  Result<std::unique_ptr<SequenceState>> new_sequence(int64_t num_tokens_expected) override;
  Status reserve(SequenceState& sequence, int64_t num_tokens_expected) override;
  Status extend(SequenceState& sequence, std::span<const int32_t> ids,
                std::span<float> last_logits) override;

  Result<bool> extend_head(SequenceState& sequence, std::span<const int32_t> ids, int64_t num_valid,
                           LogitsHead& head) override;
  Result<bool> extend_batch_heads(std::span<const SequenceStep> steps, int64_t num_valid,
                                  std::span<LogitsHead> heads) override;
  Status read_logits(int64_t row, std::span<float> logits) override;

  // More steps than max_decode_batch() are taken as well, in several passes if need be. Rows have
  // the bits of single steps, but for experts of FP8 or 16-bit floats on a GPU: these sum in an
  // order that depends on the number of tokens.
  Status extend_batch(std::span<const SequenceStep> steps, std::span<float> logits) override;
  // Makes ready what extend_batch() needs for any number of up to `num_seqs` sequences, so that no
  // client waits for it. For those who serve; without it every number's first step does so.
  Status prepare_batches(int64_t num_seqs);

  // As extend(), with the logits of every one of `ids`: fp32 [ids.size(), vocab_size].
  Status extend_all_logits(SequenceState& sequence, std::span<const int32_t> ids,
                           std::span<float> logits);

  // Drafts of the MTP head (model/forward.h, forward_mtp): to be called right after an extend of no
  // more than prefill_chunk() ids, with the ids that follow each of them. Writes the logits of all
  // rows, fp32 [next_ids.size(), vocab_size].
  [[nodiscard]] bool has_mtp() const;
  Status draft_all_logits(SequenceState& sequence, std::span<const int32_t> next_ids,
                          std::span<float> logits);

  // A snapshot of a sequence, and the way back to it: the recurrent state is copied, the KV pages
  // are cut at the snapshot's length. Requires a sequence that has only grown since.
  Result<std::unique_ptr<SequenceState>> snapshot(const SequenceState& sequence);
  Status restore(SequenceState& sequence, const SequenceState& snapshot);

  // Counts time and bytes of every stage from now on; null stops. The clock outlives the use.
  void set_clock(StageClock* clock);
  // Hears every router's choices from the next step on; null stops. A GPU's are told after each
  // step.
  Status listen_to_routing(RoutingListener listener);

 private:
  struct Parts;
  explicit LanguageModel(std::unique_ptr<Parts> parts);
  static Result<std::unique_ptr<LanguageModel>> load_on_cpu_instead(std::unique_ptr<Parts> parts,
                                                                    const Error& why,
                                                                    const LoadProgressFn& progress);
  static Result<std::unique_ptr<Backend>> create_cpu_backend(const Parts& parts,
                                                             std::unique_ptr<ModelWeights> weights);
  static Result<std::unique_ptr<Backend>> create_gpu_backend(Parts& parts,
                                                             std::unique_ptr<ModelWeights> weights);
  Status extend_by(SequenceState& sequence, std::span<const int32_t> ids, bool all_logits,
                   std::span<float> logits);
  // Null `logits`: they stay where they are.
  Status extend_batch_by(std::span<const SequenceStep> steps, float* logits);

  std::unique_ptr<Parts> parts_;
};

}  // namespace hotset
