// SPDX-License-Identifier: Apache-2.0
#include "model/model_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/json_file.h"
#include "experts/routing_profile.h"
#include "memory/memory_info.h"
#include "model/cpu_plan.h"
#ifdef HOTSET_HAS_CUDA
#include "model/calibrate.h"
#endif

namespace hotset {
namespace {

Status check_context(const ModelConfig& c, const ModelOptions& options) {
  if (options.max_model_len <= c.max_position_embeddings) return {};
  return fail(
      fmt::format("--max-model-len {}: the model's config allows {} (use rope_scaling in "
                  "config.json to extend it)",
                  options.max_model_len, c.max_position_embeddings));
}

// A layer of a profile is one that has experts.
Status check_profile(const OpenModel& model, const RoutingProfile& profile) {
  const RoutingShape& is = profile.shape();
  const RoutingShape wanted = routing_shape(model.config);
  if (is == wanted) return {};
  const std::string& directory = model.checkpoint.directory().path();
  return fail(
      fmt::format("--expert-profile {}: is of a model with {}, but {} has {}; make one with "
                  "hotset profile {}",
                  profile.name(), to_text(is), directory, to_text(wanted), directory));
}

class Planner {
 public:
  Planner(OpenModel open, const ModelOptions& options, bool imagine_gpu)
      : imagine_gpu_(imagine_gpu),
        out_{.open = std::move(open), .options = options, .asked = options} {}
  Result<ModelPlan> run();

 private:
  void create_pool(bool on_gpu);
  void note_idle_flags();
  Status plan_cpu();
  Status plan_gpu_or_cpu();
#ifdef HOTSET_HAS_CUDA
  Status plan_on_gpu();
  Status plan_context_on_gpu(const GpuMachine& machine);
  Result<GpuMachine> measure_machine();
  Result<std::vector<GpuForm>> gpu_forms(const GpuBackendOptions& options, int num_sms);
  Status refuse(std::span<const GpuForm> forms, const GpuBackendOptions& options,
                const GpuMachine& machine, Error error);
#endif

  const bool imagine_gpu_;
  ModelPlan out_;
};

// Beside a GPU a core is left to the driver and to whatever else runs: one thread that is put off
// stalls all others.
void Planner::create_pool(bool on_gpu) {
  ModelOptions& options = out_.options;
  int threads = options.cpu_threads;
  if (threads == 0 && on_gpu) threads = std::max(1, cpu::num_allowed_cores() - 1);
  out_.pool.reset();
  out_.pool = std::make_unique<cpu::WorkerPool>(threads, options.pin_threads);
}

// What is said of a GPU does nothing where there is none, or where it is not asked for. One that
// was asked and refuses has heard it: the refusal may advise those very flags.
void Planner::note_idle_flags() {
  const ModelOptions& options = out_.options;
  const std::pair<const char*, bool> flags[] = {
      {"--gpu-memory", options.gpu_memory_bytes > 0},
      {"--max-expert-slots", options.max_expert_slots >= 0},
      {"--fetch-share", options.fetch_share >= 0},
      {"--expert-profile", options.expert_profile != nullptr}};
  for (const auto& [flag, is_given] : flags) {
    if (!is_given) continue;
    out_.notes.push_back(fmt::format("{} has no effect: the CPU computes all experts", flag));
  }
}

Status Planner::plan_cpu() {
  ModelOptions& options = out_.options;
  options.device = Device::kCpu;
  if (options.dense == DenseBits::kAuto) options.dense = DenseBits::k16;
  create_pool(false);
  HS_ASSIGN_OR_RETURN(const MemoryInfo memory, read_memory_info());
  auto planned = hotset::plan_cpu(out_.open.config, out_.open.plan, options, memory.usable_bytes());
  if (!planned) return fail(with_why_cpu(std::move(planned).error(), out_.why_cpu));
  CpuPlan& made = *planned;
  options.max_model_len = made.max_model_len;
  options.prefill_chunk = made.prefill_chunk;
  options.cpu_threads = out_.pool->num_threads();
  out_.num_pages = made.num_pages;
  out_.placement = std::move(made.placement);
  return {};
}

#ifdef HOTSET_HAS_CUDA
Result<GpuMachine> Planner::measure_machine() {
  GpuMachine machine;
  HS_ASSIGN_OR_RETURN(const MemoryInfo memory, read_memory_info());
  machine.ram_available_bytes = memory.usable_bytes();
  if (out_.runtime == nullptr) {
    // A plan for another machine: its RAM is what --ram says.
    if (out_.options.ram_bytes > 0) machine.ram_available_bytes = out_.options.ram_bytes;
    machine.is_imagined = true;
    machine.gpu_free_bytes = out_.options.gpu_memory_bytes;
    machine.num_sms = 80;
    machine.rates = typical_rates();
    out_.rates_are_typical = true;
    return machine;
  }
  HS_ASSIGN_OR_RETURN(machine.rates, calibrate(*out_.runtime, *out_.pool, &out_.notes));
  HS_ASSIGN_OR_RETURN(machine.gpu_free_bytes, out_.runtime->free_bytes());
  machine.num_sms = out_.runtime->info().num_sms;
  return machine;
}

// As stored first; at 8 bits last, where that is asked for or left open. The weights stay laid out
// in the form that comes last.
Result<std::vector<GpuForm>> Planner::gpu_forms(const GpuBackendOptions& options, int num_sms) {
  WeightPlan& weights = out_.open.plan;
  // Exact arithmetic was asked for: no rounding that was not.
  const bool may_round =
      out_.options.dense == DenseBits::kAuto && out_.options.arithmetic == Arithmetic::kFast;
  std::vector<GpuForm> forms;
  if (out_.options.dense != DenseBits::k8) {
    forms.push_back(gpu_form(out_.open.config, weights, 16, options, num_sms));
  }
  if (out_.options.dense == DenseBits::k8 || (may_round && weights.has_16bit_linears)) {
    HS_RETURN_IF_ERROR(set_dense_8bit(out_.open.checkpoint, weights, true));
    forms.push_back(gpu_form(out_.open.config, weights, 8, options, num_sms));
  }
  return forms;
}

// Where 8 bits were not looked at, the advice may be to ask for them.
Status Planner::refuse(std::span<const GpuForm> forms, const GpuBackendOptions& options,
                       const GpuMachine& machine, Error error) {
  WeightPlan& weights = out_.open.plan;
  const bool more_to_try = forms.back().dense.bits > 8 && weights.has_16bit_linears;
  if (error.kind != ErrorKind::kResource || !more_to_try) return fail(std::move(error));
  HS_RETURN_IF_ERROR(set_dense_8bit(out_.open.checkpoint, weights, true));
  const GpuForm form = gpu_form(out_.open.config, weights, 8, options, machine.num_sms);
  HS_RETURN_IF_ERROR(set_dense_8bit(out_.open.checkpoint, weights, false));
  const auto again = plan_gpu(out_.open.config, forms, options, machine, &form);
  return fail(again ? std::move(error) : again.error());
}

// A context that nobody asked for gives way before the model is refused, so that a budget which was
// raised as advised is not taken by a longer context.
Status Planner::plan_on_gpu() {
  ModelOptions& options = out_.options;
  const ModelConfig& config = out_.open.config;
  HS_RETURN_IF_ERROR(check_context(config, options));
  create_pool(true);
  HS_ASSIGN_OR_RETURN(const GpuMachine machine, measure_machine());
  if (options.max_model_len > 0) return plan_context_on_gpu(machine);
  const int64_t asked = options.gpu_memory_bytes;
  options.max_model_len = default_gpu_context(
      asked > 0 ? std::min(asked, machine.gpu_free_bytes) : machine.gpu_free_bytes,
      kv_bytes_per_token(config, kv_type_bytes(options.kv_type)), config.max_position_embeddings);
  const int64_t chunk = options.prefill_chunk;
  Status status = plan_context_on_gpu(machine);
  const bool is_least = options.max_model_len <= kLeastGpuContext;
  if (status || is_least || status.error().kind != ErrorKind::kResource) return status;
  options.max_model_len = kLeastGpuContext;
  options.prefill_chunk = chunk;
  const bool rounds = options.dense == DenseBits::k8;
  HS_RETURN_IF_ERROR(set_dense_8bit(out_.open.checkpoint, out_.open.plan, rounds));
  return plan_context_on_gpu(machine);
}

Status Planner::plan_context_on_gpu(const GpuMachine& machine) {
  constexpr int64_t kPrefillChunk = 8192;
  ModelOptions& options = out_.options;
  const ModelConfig& config = out_.open.config;
  if (options.prefill_chunk == 0) options.prefill_chunk = kPrefillChunk;
  options.prefill_chunk = std::clamp<int64_t>(options.prefill_chunk, 1, options.max_model_len);
  options.cpu_threads = out_.pool->num_threads();
  options.device = Device::kCuda;
  const GpuBackendOptions backend = gpu_backend_options(options);
  HS_ASSIGN_OR_RETURN(const std::vector<GpuForm> forms, gpu_forms(backend, machine.num_sms));
  Result<GpuPlan> made = plan_gpu(config, forms, backend, machine);
  if (!made) return refuse(forms, backend, machine, std::move(made).error());
  GpuPlan& plan = *made;
  const bool rounds = plan.placement.dense.bits == 8;
  if (!rounds && forms.back().dense.bits == 8) {
    HS_RETURN_IF_ERROR(set_dense_8bit(out_.open.checkpoint, out_.open.plan, false));
  }
  options.dense = rounds ? DenseBits::k8 : DenseBits::k16;
  out_.placement = std::move(plan.placement);
  out_.gpu_sizes = plan.sizes;
  out_.placement_input = plan.input;
  out_.rates = machine.rates;
  return {};
}
#endif

// kAuto takes the CPU where the GPU is missing or the model does not fit.
Status Planner::plan_gpu_or_cpu() {
#ifdef HOTSET_HAS_CUDA
  const ModelOptions asked = out_.options;
  auto opened = cuda::open_runtime(asked.gpu);
  Status status;
  const bool is_tried = opened || (imagine_gpu_ && asked.gpu_memory_bytes > 0);
  if (opened) {
    out_.runtime = std::move(*opened);
    out_.gpu_name = out_.runtime->info().name;
  } else if (is_tried) {
    out_.gpu_name = "a GPU that is not here";
  } else {
    status = fail(opened.error());
  }
  if (status) status = plan_on_gpu();
  if (status) return {};
  if (opened) {
    status = fail(
        Error{status.error().kind, fmt::format("{}: {}", out_.gpu_name, status.error().message)});
  }
  const bool lost = status.error().kind == ErrorKind::kDeviceLost;
  if (asked.device == Device::kCuda || lost) return status;
  out_.why_cpu = status.error().message;
  out_.runtime.reset();
  out_.gpu_name.clear();
  out_.options = asked;
  const bool rounds = asked.dense == DenseBits::k8;
  HS_RETURN_IF_ERROR(set_dense_8bit(out_.open.checkpoint, out_.open.plan, rounds));
  if (!is_tried) note_idle_flags();
  return plan_cpu();
#else
  if (out_.options.device == Device::kCuda) {
    const auto opened = cuda::open_runtime(out_.options.gpu);
    return fail(opened.error());
  }
  out_.why_cpu = "this build has no CUDA";
  note_idle_flags();
  return plan_cpu();
#endif
}

Result<ModelPlan> Planner::run() {
  HS_RETURN_IF_ERROR(check_context(out_.open.config, out_.options));
  if (out_.options.expert_profile) {
    HS_RETURN_IF_ERROR(check_profile(out_.open, *out_.options.expert_profile));
  }
  if (out_.options.device == Device::kCpu) {
    note_idle_flags();
    HS_RETURN_IF_ERROR(plan_cpu());
  } else {
    HS_RETURN_IF_ERROR(plan_gpu_or_cpu());
  }
  return std::move(out_);
}

}  // namespace

Result<OpenModel> open_model(const std::string& directory, const LoadOptions& options) {
  HS_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(directory));
  HS_ASSIGN_OR_RETURN(const Json json, read_json_file(checkpoint.directory(), "config.json"));
  HS_ASSIGN_OR_RETURN(ModelConfig config, parse_model_config(json, directory + "/config.json"));
  HS_ASSIGN_OR_RETURN(QuantConfig quant, QuantConfig::load(checkpoint.directory(), json));
  HS_ASSIGN_OR_RETURN(WeightPlan plan, plan_weights(checkpoint, quant, config, options));
  return OpenModel{std::move(checkpoint), std::move(quant), std::move(config), std::move(plan)};
}

LoadOptions layout_options(const ModelOptions& options) {
  return {.dense_8bit = options.dense == DenseBits::k8,
          .codebook_scales_at_16 = options.arithmetic == Arithmetic::kFast,
          .mtp = options.mtp};
}

Error with_why_cpu(Error refusal, const std::string& why_cpu) {
  if (!why_cpu.empty()) refusal.message += fmt::format(" (no GPU: {})", why_cpu);
  return refusal;
}

int64_t packed_bytes(const WeightPlan& plan) {
  int64_t bytes = plan.dense_bytes;
  for (const int64_t bank : plan.bank_bytes) bytes += bank;
  return bytes;
}

RoutingShape routing_shape(const ModelConfig& config) {
  const auto layers = std::count(config.layer_is_moe.begin(), config.layer_is_moe.end(), true);
  return {.num_layers = static_cast<int32_t>(layers),
          .num_experts = static_cast<int32_t>(config.num_experts),
          .top_k = static_cast<int32_t>(config.num_experts_per_tok)};
}

#ifdef HOTSET_HAS_CUDA
GpuBackendOptions gpu_backend_options(const ModelOptions& options) {
  return {.isa = options.isa,
          .arithmetic = options.arithmetic,
          .kv_type = options.kv_type,
          .gpu_memory_bytes = options.gpu_memory_bytes,
          .ram_bytes = options.ram_bytes,
          .max_context = options.max_model_len,
          .prefill_chunk = options.prefill_chunk,
          .max_num_seqs = options.max_num_seqs,
          .fixed_num_seqs = options.fixed_num_seqs,
          .max_slots = options.max_expert_slots,
          .fetch_share = options.fetch_share,
          .expert_profile = options.expert_profile.get()};
}
#endif

Result<ModelPlan> plan_model(const std::string& directory, const ModelOptions& options,
                             bool imagine_gpu) {
  HS_ASSIGN_OR_RETURN(OpenModel open, open_model(directory, layout_options(options)));
  return Planner(std::move(open), options, imagine_gpu).run();
}

}  // namespace hotset
