// SPDX-License-Identifier: Apache-2.0
#include "server/chat_answer.h"

#include <utility>

#include "server/wire.h"

namespace hotset {

ApiError end_error(FinishReason finish, const Error& error) {
  if (finish == FinishReason::kError) return to_api_error(error);
  if (finish == FinishReason::kCancelled) {
    return {500, "the answer was not read and has been cancelled", "", "cancelled", 0};
  }
  return {0, "", "", "", 0};
}

ChatAnswer::ChatAnswer(AnswerInfo info, std::unique_ptr<TextStream> text,
                       std::unique_ptr<AnswerParser> parser, const Tokenizer& tokenizer,
                       bool include_reasoning)
    : info_(std::move(info)),
      text_(std::move(text)),
      parser_(std::move(parser)),
      tokenizer_(tokenizer),
      include_reasoning_(include_reasoning) {}

AnswerBytes ChatAnswer::advance() {
  std::string out;
  if (is_stream() && !has_begun_) {
    emit_delta({{"role", "assistant"}, {"content", ""}}, out);
  }
  has_begun_ = true;
  while (auto piece = text_->try_next()) {
    take(*piece, out);
    if (piece->finish) return finish(*piece, std::move(out));
  }
  return {std::move(out), false, 200};
}

void ChatAnswer::take(const TextPiece& piece, std::string& out) {
  if (piece.token && info_.with_logprobs) {
    logprobs_.push_back(token_logprob_json(*piece.token, tokenizer_));
  }
  OutputPiece parsed = parser_->push(piece.text);
  if (!parsed.reasoning.empty()) ++num_reasoning_tokens_;
  emit(std::move(parsed), out);
  if (piece.finish) emit(parser_->finish(), out);
}

void ChatAnswer::emit(OutputPiece piece, std::string& out) {
  if (!include_reasoning_) piece.reasoning.clear();
  if (piece.empty()) return;
  has_tool_calls_ = has_tool_calls_ || !piece.tool_calls.empty();
  if (!is_stream()) return gather(std::move(piece));
  if (!piece.reasoning.empty()) {  // two spellings: clients read one or the other
    emit_delta({{"reasoning_content", piece.reasoning}, {"reasoning", piece.reasoning}}, out);
  }
  if (!piece.content.empty()) emit_delta({{"content", piece.content}}, out);
  for (const ToolCallPiece& call : piece.tool_calls) {
    Json entry;
    entry["index"] = call.index;
    if (!call.id.empty()) {
      entry["id"] = call.id;
      entry["type"] = "function";
    }
    if (!call.name.empty()) entry["function"]["name"] = call.name;
    entry["function"]["arguments"] = call.arguments;
    emit_delta({{"tool_calls", Json::array({std::move(entry)})}}, out);
  }
}

void ChatAnswer::emit_delta(Json delta, std::string& out) {
  Json choice;
  choice["index"] = 0;
  choice["delta"] = std::move(delta);
  choice["logprobs"] = logprobs_or_null();
  choice["finish_reason"] = nullptr;
  out += sse_event(chunk(Json::array({std::move(choice)})));
}

void ChatAnswer::gather(OutputPiece piece) {
  reasoning_ += piece.reasoning;
  content_ += piece.content;
  for (ToolCallPiece& call : piece.tool_calls) {
    if (call.index >= tool_calls_.size()) tool_calls_.resize(call.index + 1);
    ToolCall& target = tool_calls_[call.index];
    if (!call.id.empty()) target.id = std::move(call.id);
    if (!call.name.empty()) target.name = std::move(call.name);
    target.arguments += call.arguments;
  }
}

AnswerBytes ChatAnswer::finish(const TextPiece& piece, std::string streamed) {
  if (info_.on_end) info_.on_end(info_.id, piece.stats, *piece.finish);
  if (const ApiError error = end_error(*piece.finish, piece.error); error.status != 0) {
    if (is_stream()) return {streamed + sse_event(error_json(error)), true, 200};
    return {to_json_text(error_json(error)), true, error.status};
  }
  if (is_stream()) return {streamed + finish_stream(piece), true, 200};
  return {to_json_text(whole_answer(piece)), true, 200};
}

std::string ChatAnswer::finish_stream(const TextPiece& piece) const {
  Json choice;
  choice["index"] = 0;
  choice["delta"] = Json::object();
  choice["logprobs"] = logprobs_.empty() ? Json() : Json{{"content", logprobs_}};
  choice["finish_reason"] = finish_reason(piece);
  Json last = chunk(Json::array({std::move(choice)}));
  last["timings"] = timings_json(piece.stats);
  std::string out = sse_event(last);
  if (info_.stream.include_usage) {
    Json usage = chunk(Json::array());
    usage["usage"] = usage_json(piece.stats, num_reasoning_tokens_);
    out += sse_event(usage);
  }
  return out.append(kSseDone);
}

Json ChatAnswer::whole_answer(const TextPiece& piece) const {
  Json message;
  message["role"] = "assistant";
  message["content"] = content_.empty() && !tool_calls_.empty() ? Json() : Json(content_);
  if (!reasoning_.empty()) {
    message["reasoning_content"] = reasoning_;
    message["reasoning"] = reasoning_;
  }
  for (const ToolCall& call : tool_calls_) {
    message["tool_calls"].push_back(
        {{"id", call.id},
         {"type", "function"},
         {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  Json choice;
  choice["index"] = 0;
  choice["message"] = std::move(message);
  choice["logprobs"] = info_.with_logprobs ? Json{{"content", logprobs_}} : Json();
  choice["finish_reason"] = finish_reason(piece);
  Json out = chunk(Json::array({std::move(choice)}));
  out["object"] = "chat.completion";
  out["usage"] = usage_json(piece.stats, num_reasoning_tokens_);
  out["timings"] = timings_json(piece.stats);
  return out;
}

Json ChatAnswer::chunk(Json choices) const {
  Json out;
  out["id"] = info_.id;
  out["object"] = "chat.completion.chunk";
  out["created"] = info_.created_s;
  out["model"] = info_.model;
  out["choices"] = std::move(choices);
  return out;
}

Json ChatAnswer::logprobs_or_null() {
  if (logprobs_.empty()) return nullptr;
  return {{"content", std::exchange(logprobs_, Json::array())}};
}

std::string ChatAnswer::finish_reason(const TextPiece& piece) const {
  if (has_tool_calls_ && piece.finish == FinishReason::kStop) return "tool_calls";
  return std::string(wire_finish_reason(*piece.finish));
}

}  // namespace hotset
