// SPDX-License-Identifier: Apache-2.0
#include "server/sampling_fields.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <string>
#include <utility>

#include "request/limits.h"
#include "request/validate.h"

namespace hotset {
namespace {

template <typename T, typename U>
void assign_if(T& target, const std::optional<U>& value) {
  if (value) target = static_cast<T>(*value);
}

void read_stop(FieldReader& fields, SamplingParams& params) {
  const Json* value = fields.any("stop");
  if (value == nullptr) return;
  params.stop.clear();
  if (value->is_string()) {
    params.stop.push_back(value->get<std::string>());
    return;
  }
  const Json* list = fields.array("stop");
  if (list == nullptr) return;
  for (const Json& entry : *list) {
    if (!entry.is_string()) return fields.reject("stop", "stop must hold strings only.");
    params.stop.push_back(entry.get<std::string>());
  }
}

void read_stop_ids(FieldReader& fields, SamplingParams& params) {
  const Json* list = fields.array("stop_token_ids");
  if (list == nullptr) return;
  params.stop_token_ids.clear();
  for (const Json& entry : *list) {
    const bool fits =
        entry.is_number_unsigned() && entry.get<uint64_t>() <= std::numeric_limits<int32_t>::max();
    if (!fits) return fields.reject("stop_token_ids", "stop_token_ids must hold token ids only.");
    params.stop_token_ids.push_back(entry.get<int32_t>());
  }
}

// {"id": bias}: JSON keys are strings, so the ids are too.
void read_logit_bias(FieldReader& fields, SamplingParams& params) {
  const Json* object = fields.object("logit_bias");
  if (object == nullptr) return;
  if (object->size() > count_limit("logit_bias")) {
    return fields.reject("logit_bias",
                         fmt::format("logit_bias has {} entries; at most {} are accepted.",
                                     object->size(), count_limit("logit_bias")));
  }
  params.logit_bias.clear();
  for (const auto& [key, value] : object->items()) {
    int32_t token = 0;
    const char* end = key.data() + key.size();
    const auto parsed = std::from_chars(key.data(), end, token);
    if (parsed.ec != std::errc() || parsed.ptr != end || !value.is_number()) {
      return fields.reject("logit_bias", "logit_bias must map token ids to numbers.");
    }
    params.logit_bias.push_back({token, value.get<float>()});
  }
}

// Off, for fields that merely say "I don't want this".
bool is_neutral(const Json& value) {
  return (value.is_boolean() && !value.get<bool>()) || (value.is_string() && value.empty()) ||
         (value.is_string() && value.get_ref<const std::string&>().empty()) ||
         (value.is_structured() && value.empty());
}

void read_sampling_fields(FieldReader& fields, SamplingParams& params) {
  assign_if(params.temperature, fields.number("temperature"));
  assign_if(params.top_k, fields.integer("top_k"));
  assign_if(params.top_p, fields.number("top_p"));
  assign_if(params.min_p, fields.number("min_p"));
  assign_if(params.repetition_penalty, fields.number("repetition_penalty"));
  assign_if(params.presence_penalty, fields.number("presence_penalty"));
  assign_if(params.frequency_penalty, fields.number("frequency_penalty"));
  if (const auto seed = fields.any_integer("seed")) params.seed = *seed;
  assign_if(params.min_tokens, fields.integer("min_tokens"));
  if (const auto limit = fields.integer("max_tokens")) params.max_tokens = *limit;
  if (const auto limit = fields.integer("max_completion_tokens")) params.max_tokens = *limit;
  assign_if(params.ignore_eos, fields.boolean("ignore_eos"));
  assign_if(params.include_stop_str_in_output, fields.boolean("include_stop_str_in_output"));
  read_stop(fields, params);
  read_stop_ids(fields, params);
  read_logit_bias(fields, params);
}

StreamOptions read_stream_options(FieldReader& fields) {
  StreamOptions out;
  out.stream = fields.boolean("stream").value_or(false);
  const Json* options = fields.object("stream_options");
  if (options == nullptr) return out;
  if (!out.stream) {
    fields.reject("stream_options", "stream_options is for streams: set stream to true.");
  }
  FieldReader nested(*options);
  out.include_usage = nested.boolean("include_usage").value_or(false);
  if (!nested.ok()) fields.reject("stream_options", nested.error().message);
  return out;
}

void refuse_unsupported_fields(FieldReader& fields) {
  static constexpr std::string_view kFields[] = {
      "guided_json",    "guided_regex",       "guided_choice",
      "guided_grammar", "structured_outputs", "grammar",
      "json_schema",    "chat_template",      "continue_final_message",
      "suffix",         "prompt_logprobs"};
  for (const std::string_view field : kFields) {
    const Json* value = fields.any(field);
    if (value == nullptr || is_neutral(*value)) continue;
    fields.reject(field, fmt::format("{} is not supported by this server.", field));
  }
  const Json* format = fields.object("response_format");
  if (format == nullptr) return;
  const auto type = format->find("type");
  if (type == format->end() || !is_text(*type, "text")) {
    fields.reject("response_format",
                  "response_format: only {\"type\": \"text\"} is supported by this server.");
  }
}

}  // namespace

void read_common_fields(FieldReader& fields, CommonRequest& request) {
  request.model = fields.string("model", kMaxNameBytes).value_or("");
  read_sampling_fields(fields, request.params);
  request.num_choices = static_cast<size_t>(fields.integer("n").value_or(1));
  (void)fields.integer("best_of");
  request.stream = read_stream_options(fields);
  refuse_unsupported_fields(fields);
}

ApiResult<void> check_common(const FieldReader& fields, const CommonRequest& request,
                             int64_t num_valid_tokens) {
  if (!fields.ok()) return refuse(fields.error());
  if (auto error = check_params(request.params, num_valid_tokens)) {
    return refuse_field(error->field, error->message);
  }
  return {};
}

}  // namespace hotset
