// SPDX-License-Identifier: Apache-2.0
#include "server/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "server/chat_answer.h"
#include "server/chat_request.h"
#include "server/completion_answer.h"
#include "server/completion_request.h"

namespace hotset {
namespace {

constexpr int kRetryAfterLoading_s = 5;
constexpr size_t kMaxTokensToCount = 1 << 20;  // by /tokenize: a fifth of a second

Reply json_reply(const Json& body) {
  Reply reply;
  reply.body = to_json_text(body);
  return reply;
}

Reply to_reply(const ApiError& error) {
  Reply reply = json_reply(error_json(error));
  reply.status = error.status;
  if (error.retry_after_s > 0) {
    reply.headers.emplace_back("Retry-After", fmt::format("{}", error.retry_after_s));
  }
  if (!error.allow.empty()) reply.headers.emplace_back("Allow", error.allow);
  if (error.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

// 128 random bits: nobody can name another client's request.
std::string new_id(const char* prefix) {
  thread_local std::random_device device;
  return fmt::format("{}{:08x}{:08x}{:08x}{:08x}", prefix, device(), device(), device(), device());
}

int64_t unix_time_s() {
  using std::chrono::system_clock;
  return std::chrono::duration_cast<std::chrono::seconds>(system_clock::now().time_since_epoch())
      .count();
}

std::vector<Segment> list_segments(const PromptText& prompt) {
  std::vector<Segment> out;
  size_t begin = 0;
  for (const auto& [length, is_trusted] : prompt.segments) {
    out.push_back({std::string_view(prompt.text).substr(begin, length), is_trusted});
    begin += length;
  }
  return out;
}

// A prompt that can't fit the context is refused as soon as that is certain, however long it is.
ApiResult<std::vector<int32_t>> tokenize_prompt(const ServedModel& model,
                                                const std::vector<Segment>& segments,
                                                const char* field) {
  const int64_t max_tokens = model.engine->max_tokens();
  auto ids = model.tokenizer->tokenize_segments(segments, static_cast<size_t>(max_tokens - 1));
  if (ids) return std::move(ids).value();
  if (ids.error().kind != ErrorKind::kResource) return refuse_field(field, ids.error().message);
  return refuse({400,
                 fmt::format("maximum context length is {} tokens, and the prompt alone has more",
                             max_tokens),
                 field, "context_length_exceeded", 0});
}

bool is_json(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find(';')));
  std::erase(type, ' ');
  for (char& c : type) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return type == "application/json";
}

ApiResult<void> check_name(const ServedModel& model, const std::string& name) {
  const auto& names = model.names;
  if (name.empty() || std::find(names.begin(), names.end(), name) != names.end()) return {};
  return refuse({404,
                 fmt::format("The model '{}' does not exist here; this server has '{}'.", name,
                             names.front()),
                 "model", "model_not_found", 0});
}

}  // namespace

Reply error_reply(int status, std::string message, std::string code) {
  return to_reply({status, std::move(message), "", std::move(code), 0});
}

Api::Api(ApiOptions options) : options_(std::move(options)) {}

void Api::set_model(ServedModel model) {
  const std::lock_guard lock(mutex_);
  model_ = std::make_shared<const ServedModel>(std::move(model));
}

std::shared_ptr<const ServedModel> Api::model() const {
  const std::lock_guard lock(mutex_);
  return model_;
}

void Api::set_load_progress(int64_t loaded_bytes, int64_t total_bytes) {
  loaded_bytes_ = loaded_bytes;
  total_bytes_ = total_bytes;
}

ApiResult<void> Api::check_access(const HttpHead& head, const Route& route) const {
  if (!route.is_public && !key_is_valid(options_.access, head.authorization, head.x_api_key)) {
    return refuse({401, "The API key is missing or wrong.", "", "invalid_api_key", 0});
  }
  if (route.method == "POST" && !is_json(head.content_type)) {
    return refuse(
        {415, "The Content-Type must be application/json.", "", "unsupported_media_type", 0});
  }
  if (!route.needs_model) return {};
  if (is_draining_) {
    return refuse({503, "The server is shutting down.", "", "shutting_down", kRetryAfterLoading_s});
  }
  if (model() == nullptr) {
    return refuse({503, "The model is still loading.", "", "loading", kRetryAfterLoading_s});
  }
  return {};
}

std::optional<Reply> Api::check_head(const HttpHead& head) const {
  if (!head.has_one_host) {
    return to_reply({400, "A request must have exactly one Host header.", "", "bad_host", 0});
  }
  if (!head.host.empty() && !host_is_allowed(options_.access, head.host)) {
    return to_reply({403,
                     fmt::format("This server does not answer to the host name '{}'; "
                                 "start it with --allowed-host to change that.",
                                 head.host.substr(0, 128)),
                     "", "host_not_allowed", 0});
  }
  const auto match = match_route(head.method, head.target);
  if (!match) {
    // Without the key not even the route table can be read.
    const bool knows_key = key_is_valid(options_.access, head.authorization, head.x_api_key);
    if (knows_key) return to_reply(match.error());
    return to_reply({401, "The API key is missing or wrong.", "", "invalid_api_key", 0});
  }
  if (const auto access = check_access(head, *match->route); !access) {
    return to_reply(access.error());
  }
  return std::nullopt;
}

Reply Api::handle(const HttpHead& head, std::string_view body) {
  const auto match = match_route(head.method, head.target);
  if (!match) return to_reply(match.error());
  auto reply = dispatch(*match, body);
  if (!reply) return to_reply(reply.error());
  return std::move(reply).value();
}

ApiResult<Reply> Api::dispatch(const RouteMatch& match, std::string_view body) {
  const Endpoint endpoint = match.route->endpoint;
  if (endpoint == Endpoint::kHealth) return health();
  if (endpoint == Endpoint::kVersion) return json_reply({{"version", options_.version}});
  const std::shared_ptr<const ServedModel> model = this->model();
  if (model == nullptr) return refuse({503, "The model is still loading.", "", "loading", 5});
  if (match.route->method == "GET") return list_models(*model, match);
  const Result<Json> json = parse_strict_json(body);
  if (!json)
    return refuse({400, "The body is refused: " + json.error().message, "", "bad_json", 0});
  switch (endpoint) {
    case Endpoint::kChatCompletions:
      return chat(*model, *json);
    case Endpoint::kCompletions:
      return complete(*model, *json);
    case Endpoint::kTokenize:
      return tokenize(*model, *json);
    default:
      return detokenize(*model, *json);
  }
}

Reply Api::health() const {
  Json body;
  const bool is_loaded = model() != nullptr;
  body["status"] = is_draining_ ? "draining" : is_loaded ? "ok" : "loading";
  if (!is_loaded) {
    body["loaded_bytes"] = loaded_bytes_.load();
    body["total_bytes"] = total_bytes_.load();
  }
  Reply reply = json_reply(body);
  if (is_draining_ || !is_loaded) {
    reply.status = 503;
    reply.headers.emplace_back("Retry-After", fmt::format("{}", kRetryAfterLoading_s));
  }
  return reply;
}

AnswerInfo Api::new_info(const ServedModel& model, const char* id_prefix,
                         const CommonRequest& request, const std::vector<int32_t>& prompt_ids) {
  AnswerInfo info;
  info.id = new_id(id_prefix);
  info.model = model.names.front();
  info.created_s = unix_time_s();
  info.stream = request.stream;
  info.with_logprobs = request.params.num_logprobs.has_value();
  info.num_prompt_tokens = static_cast<int64_t>(prompt_ids.size());
  if (options_.log) {
    info.on_end = [log = options_.log](const std::string& id, const RequestStats& stats,
                                       FinishReason finish) {
      log(fmt::format(
          "{} prompt {} (cached {}) output {} tokens, queue {:.3f} s, prefill {:.3f} s, "
          "decode {:.3f} s, {}",
          id, stats.num_prompt_tokens, stats.num_cached_tokens, stats.num_output_tokens,
          stats.queue_s, stats.prefill_s, stats.decode_s, finish_reason_name(finish)));
    };
  }
  return info;
}

// Choice i of a request with a seed gets seed + i, so the first is what n = 1 would have said. When
// one finds no room, those before it are cancelled by going out of scope.
ApiResult<Choices> Api::submit(const ServedModel& model, const std::string& id,
                               const std::vector<int32_t>& prompt_ids,
                               const CommonRequest& request) {
  std::vector<std::unique_ptr<TextStream>> streams;
  SamplingParams params = request.params;
  for (size_t i = 0; i < request.num_choices; ++i) {
    if (request.params.seed) {
      params.seed = static_cast<int64_t>(static_cast<uint64_t>(*request.params.seed) + i);
    }
    auto stream = model.engine->submit({id, prompt_ids, params});
    if (!stream) return refuse(to_api_error(stream.error()));
    streams.push_back(
        std::make_unique<TextStream>(std::move(stream).value(), *model.tokenizer, params));
  }
  return Choices(std::move(streams));
}

ApiResult<Reply> Api::chat(const ServedModel& model, const Json& body) {
  auto request = parse_chat_request(body, model.defaults.params, model.tokenizer->vocab_size());
  if (!request) return refuse(std::move(request).error());
  if (const auto known = check_name(model, request->model); !known) return refuse(known.error());
  if (model.dialect == nullptr) {
    return refuse({400, "This model has no chat template; use /v1/completions.", "", "", 0});
  }
  const auto prompt =
      model.dialect->render(request->messages, request->tools, request->template_extra);
  if (!prompt) return refuse_field("messages", prompt.error().message);
  const auto ids = tokenize_prompt(model, list_segments(*prompt), "messages");
  if (!ids) return refuse(ids.error());
  AnswerInfo info = new_info(model, "chatcmpl-", *request, *ids);
  auto choices = submit(model, info.id, *ids, *request);
  if (!choices) return refuse(std::move(choices).error());
  std::vector<std::unique_ptr<AnswerParser>> parsers;
  for (size_t i = 0; i < request->num_choices; ++i) {
    parsers.push_back(model.dialect->new_parser(*prompt, request->tools));
  }
  Reply reply;
  reply.answer =
      std::make_unique<ChatAnswer>(std::move(info), std::move(choices).value(), std::move(parsers),
                                   *model.tokenizer, request->include_reasoning);
  return reply;
}

ApiResult<Reply> Api::complete(const ServedModel& model, const Json& body) {
  auto request =
      parse_completion_request(body, model.defaults.params, model.tokenizer->vocab_size());
  if (!request) return refuse(std::move(request).error());
  if (const auto known = check_name(model, request->model); !known) return refuse(known.error());
  std::vector<int32_t> ids = std::move(request->prompt_ids);
  std::string echo;
  if (request->echo) {
    echo = ids.empty() ? request->prompt_text : model.tokenizer->detokenize(ids);
  }
  if (ids.empty()) {
    auto tokenized = tokenize_prompt(model, {{request->prompt_text, true}}, "prompt");
    if (!tokenized) return refuse(std::move(tokenized).error());
    ids = std::move(tokenized).value();
  }
  AnswerInfo info = new_info(model, "cmpl-", *request, ids);
  auto choices = submit(model, info.id, ids, *request);
  if (!choices) return refuse(std::move(choices).error());
  Reply reply;
  reply.answer = std::make_unique<CompletionAnswer>(std::move(info), std::move(choices).value(),
                                                    *model.tokenizer, std::move(echo));
  return reply;
}

// {"content": text} as llama-server has it, or {"prompt": text} as vLLM has it.
ApiResult<Reply> Api::tokenize(const ServedModel& model, const Json& body) const {
  if (!body.is_object()) return refuse_field("", "The body must be a JSON object.");
  const char* field = body.contains("content") ? "content" : "prompt";
  if (!body.contains(field) || !body[field].is_string()) {
    return refuse_field(field, fmt::format("{} must be a string.", field));
  }
  const Segment text{body[field].get_ref<const std::string&>(), true};
  const auto ids = model.tokenizer->tokenize_segments({&text, 1}, kMaxTokensToCount);
  if (!ids) return refuse_field(field, ids.error().message);
  Reply reply;  // a million ids are text at once, without a JSON value for each
  reply.body = fmt::format(R"({{"count":{},"max_model_len":{},"tokens":[{}]}})", ids->size(),
                           model.engine->max_tokens(), fmt::join(*ids, ","));
  return reply;
}

ApiResult<Reply> Api::detokenize(const ServedModel& model, const Json& body) const {
  if (!body.is_object() || !body.contains("tokens") || !body["tokens"].is_array()) {
    return refuse_field("tokens", "tokens must be an array of token ids.");
  }
  const auto ids = parse_token_ids(body["tokens"], "tokens", model.tokenizer->vocab_size());
  if (!ids) return refuse(ids.error());
  const std::string text = model.tokenizer->detokenize(*ids);
  return json_reply({{"content", text}, {"prompt", text}});
}

ApiResult<Reply> Api::list_models(const ServedModel& model, const RouteMatch& match) const {
  const bool wants_one = match.route->endpoint == Endpoint::kModel;
  if (wants_one) {
    if (const auto known = check_name(model, match.suffix); !known) return refuse(known.error());
  }
  Json list = Json::array();
  for (const std::string& name : model.names) {
    Json entry{{"id", name},
               {"object", "model"},
               {"created", model.created_s},
               {"owned_by", "hotset"},
               {"max_model_len", model.engine->max_tokens()},
               {"meta", {{"n_ctx", model.engine->max_tokens()}}}};
    if (wants_one && name == match.suffix) return json_reply(entry);
    list.push_back(std::move(entry));
  }
  return json_reply({{"object", "list"}, {"data", std::move(list)}});
}

}  // namespace hotset
