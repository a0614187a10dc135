// SPDX-License-Identifier: Apache-2.0
#include "generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <random>
#include <utility>

#include "request/validate.h"
#include "tokenizer/tokenizer.h"

namespace hotset {
namespace {

template <typename T, typename U>
void assign_if(T& target, const std::optional<U>& value) {
  if (value) target = *value;
}

void apply_flags(const SamplingFlags& flags, SamplingParams& params) {
  assign_if(params.temperature, flags.temperature);
  assign_if(params.top_k, flags.top_k);
  assign_if(params.top_p, flags.top_p);
  assign_if(params.min_p, flags.min_p);
  assign_if(params.repetition_penalty, flags.repetition_penalty);
  assign_if(params.presence_penalty, flags.presence_penalty);
  assign_if(params.frequency_penalty, flags.frequency_penalty);
  if (flags.seed) params.seed = flags.seed;
  if (flags.max_tokens) params.max_tokens = flags.max_tokens;
  assign_if(params.min_tokens, flags.min_tokens);
  params.stop = flags.stop;
  params.ignore_eos = flags.ignore_eos;
}

// The validator speaks of fields; here they are flags: "max_tokens" is "--max-tokens".
Status check_as_flags(const SamplingParams& params, int64_t num_valid_tokens) {
  auto error = check_params(params, num_valid_tokens);
  if (!error) return {};
  std::string flag = error->field;
  std::replace(flag.begin(), flag.end(), '_', '-');
  std::string& message = error->message;
  if (message.starts_with(error->field)) message.replace(0, flag.size(), "--" + flag);
  return fail(std::move(message));
}

}  // namespace

Status check_flags(const SamplingFlags& flags) {
  SamplingParams params;
  apply_flags(flags, params);
  return check_as_flags(params, std::numeric_limits<int32_t>::max());
}

Result<SamplingParams> to_sampling_params(const SamplingFlags& flags, const LoadedModel& model) {
  SamplingParams params = model.defaults.params;
  apply_flags(flags, params);
  HS_RETURN_IF_ERROR(check_as_flags(params, model.num_valid_tokens));
  return params;
}

Result<std::unique_ptr<Engine>> start_engine(LoadedModel& model) {
  EngineOptions options;
  options.num_valid_tokens = model.num_valid_tokens;
  options.eos_ids = model.defaults.eos_ids;
  options.max_num_seqs = 1;
  options.max_queued = 1;
  options.seed = std::random_device()();
  return Engine::start(*model.model, std::move(options));
}

Result<std::unique_ptr<TextStream>> generate(Engine& engine, const LoadedModel& model,
                                             std::vector<int32_t> prompt_ids,
                                             const SamplingParams& params) {
  HS_ASSIGN_OR_RETURN(auto stream, engine.submit({"cli", std::move(prompt_ids), params}));
  return std::make_unique<TextStream>(std::move(stream), *model.tokenizer, params);
}

std::string describe_stats(const RequestStats& stats) {
  std::string text = fmt::format("{} prompt tokens", stats.num_prompt_tokens);
  if (stats.num_cached_tokens > 0) text += fmt::format(" ({} kept)", stats.num_cached_tokens);
  text += fmt::format(", {} output tokens, first after {:.2f} s", stats.num_output_tokens,
                      stats.prefill_s);
  if (stats.num_output_tokens > 1 && stats.decode_s > 0) {
    text += fmt::format(", {:.1f} tokens/s",
                        static_cast<double>(stats.num_output_tokens - 1) / stats.decode_s);
  }
  return text;
}

}  // namespace hotset
