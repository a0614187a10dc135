// SPDX-License-Identifier: Apache-2.0
#include "loaded_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "checkpoint/hub.h"
#include "environment.h"
#include "expert_profile.h"
#include "progress.h"
#include "server/chat_dialect.h"
#include "tokenizer/tokenizer.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kMaxConfigBytes = 16 << 20;

// Empty when there is no such file.
Result<std::string> read_small_file(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::string();
  if (!fs::is_regular_file(path, error)) {
    return fail(fmt::format("{}: not a regular file", path.string()));
  }
  if (fs::file_size(path, error) == 0) return fail(fmt::format("{}: is empty", path.string()));
  if (fs::file_size(path, error) > kMaxConfigBytes) {
    return fail(fmt::format("{}: larger than {} bytes", path.string(), kMaxConfigBytes));
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(fmt::format("{}: can't be read", path.string()), ErrorKind::kInternal);
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

Result<GenerationDefaults> read_defaults(const fs::path& directory) {
  HS_ASSIGN_OR_RETURN(const std::string generation,
                      read_small_file(directory / "generation_config.json"));
  HS_ASSIGN_OR_RETURN(const std::string config, read_small_file(directory / "config.json"));
  return parse_generation_defaults(generation, config);
}

Status read_tokenizer(const fs::path& directory, LoadedModel& out) {
  const fs::path file = directory / "tokenizer.json";
  const fs::path config = directory / "tokenizer_config.json";
  std::error_code error;
  if (!fs::exists(file, error)) {
    return fail(fmt::format("{}: tokenizer.json is missing; to fetch it: {}", directory.string(),
                            fetch_command(directory.string())),
                ErrorKind::kNotFound);
  }
  HS_ASSIGN_OR_RETURN(
      Tokenizer tokenizer,
      Tokenizer::load(file.string(), fs::exists(config, error) ? config.string() : std::string()));
  out.tokenizer = std::make_unique<Tokenizer>(std::move(tokenizer));
  return {};
}

// A checkpoint without a template can still complete text.
Status read_template(const fs::path& directory, LoadedModel& out) {
  auto loaded = ChatTemplate::load(directory);
  if (!loaded) {
    if (loaded.error().kind == ErrorKind::kNotFound) return {};
    return fail(std::move(loaded).error());
  }
  out.chat_template = std::make_unique<ChatTemplate>(std::move(loaded).value());
  out.dialect = make_chat_dialect(*out.chat_template);
  return {};
}

Result<KvType> parse_kv_type(const std::string& name) {
  if (name == "auto" || name == "bf16" || name == "bfloat16") return KvType::kBF16;
  if (name == "f16" || name == "fp16" || name == "float16") return KvType::kF16;
  if (name == "f32" || name == "fp32" || name == "float32") return KvType::kF32;
  return fail(fmt::format("--kv-cache-dtype {}: one of auto, bf16, f16, f32", name));
}

Result<cpu::Isa> parse_isa_flag(const std::string& name) {
  if (name == "auto") return cpu::detect_isa();
  std::string known;
  for (const cpu::Isa isa : cpu::available_isas()) {
    if (name == cpu::isa_name(isa)) return isa;
    known += fmt::format(", {}", cpu::isa_name(isa));
  }
  return fail(fmt::format("--isa {}: this processor has auto{}", name, known));
}

}  // namespace

LoadedModel::LoadedModel() = default;
LoadedModel::~LoadedModel() = default;
LoadedModel::LoadedModel(LoadedModel&&) noexcept = default;
LoadedModel& LoadedModel::operator=(LoadedModel&&) noexcept = default;

Result<ResolvedModel> find_model(const ModelFlags& flags) {
  HS_ASSIGN_OR_RETURN(ResolvedModel found,
                      resolve_model(flags.model, read_hub_environment(), flags.revision));
  if (!flags.revision.empty() && found.revision.empty()) {
    return fail(fmt::format("--revision {}: {} is a plain directory and has no revisions",
                            flags.revision, found.directory));
  }
  std::error_code error;
  if (!fs::exists(fs::path(found.directory) / "config.json", error)) {
    return fail(
        fmt::format("{}: config.json is missing, so this is no checkpoint; to fetch one: {}",
                    found.directory, fetch_command(found.directory)),
        ErrorKind::kNotFound);
  }
  return found;
}

Result<ModelOptions> to_model_options(const ModelFlags& flags) {
  ModelOptions options;
  options.cpu_threads = flags.cpu_threads;
  HS_ASSIGN_OR_RETURN(options.isa, parse_isa_flag(flags.isa));
  HS_ASSIGN_OR_RETURN(options.kv_type, parse_kv_type(flags.kv_cache_dtype));
  options.arithmetic =
      flags.arithmetic == "exact" ? cpu::Arithmetic::kExact : cpu::Arithmetic::kFast;
  options.device = flags.device == "cpu"    ? Device::kCpu
                   : flags.device == "cuda" ? Device::kCuda
                                            : Device::kAuto;
  options.gpu = flags.gpu;
  options.gpu_memory_bytes = flags.gpu_memory_bytes;
  options.max_expert_slots = flags.max_expert_slots;
  options.fetch_share = flags.fetch_share;
  HS_ASSIGN_OR_RETURN(options.expert_profile, read_expert_profile(flags));
  options.ram_bytes = flags.ram_bytes;
  options.dense = flags.dense_8bit || flags.dense == "8" ? DenseBits::k8
                  : flags.dense == "16"                  ? DenseBits::k16
                                                         : DenseBits::kAuto;
  options.max_model_len = flags.max_model_len;
  return options;
}

void print_load_report(const LanguageModel& model) {
  const Placement& p = model.placement();
  if (model.gpu_backend() != nullptr) {
    fmt::print(stderr,
               "{} of {} experts on the GPU: hit rate {:.2f}, {:.0f} tokens/s to be expected\n",
               p.num_slots, p.num_experts, p.expected_hit_rate, p.expected_tok_s);
  } else {
    fmt::print(stderr, "{}\n", model.device_text());
  }
  if (p.dense.bits == 8) {
    const PackLoss& loss = model.load_report().loss;
    const std::string gain =
        p.other_form_tok_s > 0
            ? fmt::format(" ({:.0f} tokens/s to be expected with 16)", p.other_form_tok_s)
            : std::string();
    if (loss.relative_rms() > 0) {
      fmt::print(stderr,
                 "16-bit modules are kept at 8 bits{}: rms error {:.3f} % of the rms weight\n",
                 gain, 100 * loss.relative_rms());
    }
  }
  for (const std::string& note : model.notes()) fmt::print(stderr, "note: {}\n", note);
}

Result<LoadedModel> load_model(const ModelFlags& flags, int64_t max_num_seqs,
                               int64_t fixed_num_seqs, const ProgressFn& progress) {
  HS_ASSIGN_OR_RETURN(ModelOptions options, to_model_options(flags));
  HS_ASSIGN_OR_RETURN(const ResolvedModel resolved, find_model(flags));
  const fs::path directory = resolved.directory;
  if (!flags.save_expert_profile.empty()) {
    HS_ASSIGN_OR_RETURN(const ModelSummary summary, inspect_model(resolved.directory, options));
    HS_RETURN_IF_ERROR(check_has_experts(resolved.directory, summary.config));
  }
  options.max_num_seqs = max_num_seqs + fixed_num_seqs;
  options.fixed_num_seqs = fixed_num_seqs;
  LoadedModel out;
  out.name = resolved.name;
  out.directory = resolved.directory;
  HS_ASSIGN_OR_RETURN(out.defaults, read_defaults(directory));
  HS_RETURN_IF_ERROR(read_tokenizer(directory, out));
  HS_RETURN_IF_ERROR(read_template(directory, out));
  HS_ASSIGN_OR_RETURN(out.model,
                      LanguageModel::load(resolved.directory, options, [&](const LoadProgress& p) {
                        progress(p.bytes_done, p.bytes_total, p.seconds);
                      }));
  HS_ASSIGN_OR_RETURN(out.recorder, record_expert_profile(flags, *out.model));
  if (!flags.quiet) print_load_report(*out.model);
  out.num_valid_tokens = std::min<int64_t>(out.tokenizer->vocab_size(), out.model->vocab_size());
  return out;
}

Result<LoadedModel> load_model(const ModelFlags& flags) {
  LoadProgressPrinter printer(flags.quiet);
  return load_model(flags, /*max_num_seqs=*/0, /*fixed_num_seqs=*/2,
                    [&printer](int64_t done_bytes, int64_t total_bytes, double seconds) {
                      printer.update(done_bytes, total_bytes, seconds);
                    });
}

}  // namespace hotset
