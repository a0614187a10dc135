// SPDX-License-Identifier: Apache-2.0
#include "request/generation_defaults.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "request/validate.h"

namespace hotset {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kGenerationFile = "generation_config.json";
constexpr std::string_view kConfigFile = "config.json";

Result<Json> parse_object(std::string_view file, std::string_view text) {
  if (text.empty()) return Json::object();
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return fail(fmt::format("{}: not a JSON object", file));
  }
  return json;
}

Status read_number(const Json& json, const char* key, double& out) {
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return {};
  if (!it->is_number()) return fail(fmt::format("{}: {} is not a number", kGenerationFile, key));
  const double value = it->get<double>();
  if (auto error = check_number(key, value)) {
    return fail(fmt::format("{}: {}", kGenerationFile, error->message));
  }
  out = value;
  return {};
}

Status append_eos(std::string_view file, const Json& value, std::vector<int32_t>& out) {
  if (value.is_null()) return {};
  const Json list = value.is_array() ? value : Json::array({value});
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() > std::numeric_limits<int32_t>::max()) {
      return fail(fmt::format("{}: eos_token_id is not a token id", file));
    }
    out.push_back(id.get<int32_t>());
  }
  return {};
}

// Newer multimodal releases keep the language model's keys under "text_config".
Status read_eos(std::string_view file, const Json& json, std::vector<int32_t>& out) {
  if (json.contains("eos_token_id")) {
    HS_RETURN_IF_ERROR(append_eos(file, json["eos_token_id"], out));
  }
  if (json.contains("text_config") && json["text_config"].is_object() &&
      json["text_config"].contains("eos_token_id")) {
    HS_RETURN_IF_ERROR(append_eos(file, json["text_config"]["eos_token_id"], out));
  }
  return {};
}

}  // namespace

Result<GenerationDefaults> parse_generation_defaults(std::string_view generation_config_json,
                                                     std::string_view config_json) {
  HS_ASSIGN_OR_RETURN(const Json generation, parse_object(kGenerationFile, generation_config_json));
  HS_ASSIGN_OR_RETURN(const Json config, parse_object(kConfigFile, config_json));
  GenerationDefaults out;
  SamplingParams& params = out.params;
  HS_RETURN_IF_ERROR(read_number(generation, "temperature", params.temperature));
  HS_RETURN_IF_ERROR(read_number(generation, "top_p", params.top_p));
  HS_RETURN_IF_ERROR(read_number(generation, "min_p", params.min_p));
  HS_RETURN_IF_ERROR(read_number(generation, "repetition_penalty", params.repetition_penalty));
  double top_k = 0;
  HS_RETURN_IF_ERROR(read_number(generation, "top_k", top_k));
  params.top_k = static_cast<int64_t>(top_k);
  const auto do_sample = generation.find("do_sample");
  if (do_sample != generation.end() && do_sample->is_boolean() && !do_sample->get<bool>()) {
    params.temperature = 0;
  }
  HS_RETURN_IF_ERROR(read_eos(kGenerationFile, generation, out.eos_ids));
  HS_RETURN_IF_ERROR(read_eos(kConfigFile, config, out.eos_ids));
  std::sort(out.eos_ids.begin(), out.eos_ids.end());
  out.eos_ids.erase(std::unique(out.eos_ids.begin(), out.eos_ids.end()), out.eos_ids.end());
  return out;
}

}  // namespace hotset
