// SPDX-License-Identifier: Apache-2.0
#include "server/completion_request.h"

#include <fmt/format.h>

#include <utility>

#include "request/limits.h"
#include "server/field_reader.h"

namespace hotset {
namespace {

constexpr int64_t kDefaultMaxTokens = 16;

// A string, token ids, or an array with one of either.
ApiResult<void> read_prompt(const Json* prompt, int64_t num_valid_tokens,
                            CompletionRequest& request) {
  if (prompt == nullptr) return refuse_field("prompt", "prompt is missing.");
  const bool is_list_of_prompts =
      prompt->is_array() && !prompt->empty() && !(*prompt)[0].is_number();
  if (is_list_of_prompts) {
    if (prompt->size() > count_limit("prompt")) {
      return refuse_field("prompt", fmt::format("prompt has {} entries; at most {} are accepted "
                                                "in one request.",
                                                prompt->size(), count_limit("prompt")));
    }
    prompt = &(*prompt)[0];
  }
  if (prompt->is_string()) {
    request.prompt_text = prompt->get<std::string>();
    if (request.prompt_text.empty()) return refuse_field("prompt", "prompt is empty.");
    return {};
  }
  if (!prompt->is_array() || prompt->empty()) {
    return refuse_field("prompt", "prompt must be a string or an array of token ids.");
  }
  auto ids = parse_token_ids(*prompt, "prompt", num_valid_tokens);
  if (!ids) return refuse(std::move(ids).error());
  request.prompt_ids = std::move(ids).value();
  return {};
}

}  // namespace

ApiResult<std::vector<int32_t>> parse_token_ids(const Json& array, const std::string& field,
                                                int64_t num_valid_tokens) {
  std::vector<int32_t> ids;
  ids.reserve(array.size());
  for (const Json& entry : array) {
    const bool is_valid = entry.is_number_unsigned() &&
                          entry.get<uint64_t>() < static_cast<uint64_t>(num_valid_tokens);
    if (!is_valid) {
      return refuse_field(field, fmt::format("{}[{}] is no token id (0 to {}).", field, ids.size(),
                                             num_valid_tokens - 1));
    }
    ids.push_back(entry.get<int32_t>());
  }
  return ids;
}

ApiResult<CompletionRequest> parse_completion_request(const Json& body,
                                                      const SamplingParams& defaults,
                                                      int64_t num_valid_tokens) {
  if (!body.is_object()) return refuse_field("", "The body must be a JSON object.");
  CompletionRequest request;
  request.params = defaults;
  request.params.max_tokens = kDefaultMaxTokens;
  FieldReader fields(body);
  const ApiResult<void> prompt = read_prompt(fields.any("prompt"), num_valid_tokens, request);
  if (!prompt) return refuse(prompt.error());
  read_common_fields(fields, request);
  if (const auto top = fields.integer("logprobs")) request.params.num_logprobs = *top;
  request.echo = fields.boolean("echo").value_or(false);
  if (request.echo && request.params.num_logprobs) {
    fields.reject("echo", "echo with logprobs is not supported: the prompt's are not computed.");
  }
  const auto fine = check_common(fields, request, num_valid_tokens);
  if (!fine) return refuse(fine.error());
  return request;
}

}  // namespace hotset
