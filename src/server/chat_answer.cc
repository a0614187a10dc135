// SPDX-License-Identifier: Apache-2.0
#include "server/chat_answer.h"

#include <utility>

#include "server/wire.h"

namespace hotset {
namespace {

Json event_choice(size_t index, Json delta, Json logprobs, Json finish_reason) {
  Json choice;
  choice["index"] = index;
  choice["delta"] = std::move(delta);
  choice["logprobs"] = logprobs.empty() ? Json() : Json{{"content", std::move(logprobs)}};
  choice["finish_reason"] = std::move(finish_reason);
  return Json::array({std::move(choice)});
}

Json call_delta(const ToolCallPiece& call) {
  Json entry;
  entry["index"] = call.index;
  if (!call.id.empty()) {
    entry["id"] = call.id;
    entry["type"] = "function";
  }
  if (!call.name.empty()) entry["function"]["name"] = call.name;
  entry["function"]["arguments"] = call.arguments;
  return {{"tool_calls", Json::array({std::move(entry)})}};
}

}  // namespace

ChatAnswer::ChatAnswer(AnswerInfo info, Choices choices,
                       std::vector<std::unique_ptr<AnswerParser>> parsers,
                       const Tokenizer& tokenizer, bool include_reasoning)
    : GeneratedAnswer(std::move(info), std::move(choices)),
      parts_(parsers.size()),
      tokenizer_(tokenizer),
      include_reasoning_(include_reasoning) {
  for (size_t i = 0; i < parsers.size(); ++i) parts_[i].parser = std::move(parsers[i]);
}

void ChatAnswer::begin(std::string& out) {
  for (size_t i = 0; i < parts_.size(); ++i) {
    emit_delta(i, {{"role", "assistant"}, {"content", ""}}, out);
  }
}

void ChatAnswer::take(size_t index, const TextPiece& piece, std::string& out) {
  Choice& choice = parts_[index];
  if (piece.token && info().with_logprobs) {
    choice.logprobs.push_back(token_logprob_json(*piece.token, tokenizer_));
  }
  OutputPiece parsed = choice.parser->push(piece.text);
  if (!parsed.reasoning.empty()) ++num_reasoning_tokens_;
  emit(index, std::move(parsed), out);
  if (!piece.finish) return;
  emit(index, choice.parser->finish(), out);
  end_choice(index, piece, out);
}

void ChatAnswer::emit(size_t index, OutputPiece piece, std::string& out) {
  if (!include_reasoning_) piece.reasoning.clear();
  if (piece.empty()) return;
  Choice& choice = parts_[index];
  choice.has_tool_calls = choice.has_tool_calls || !piece.tool_calls.empty();
  if (!is_stream()) return gather(choice, std::move(piece));
  if (!piece.reasoning.empty()) {  // two spellings: clients read one or the other
    emit_delta(index, {{"reasoning_content", piece.reasoning}, {"reasoning", piece.reasoning}},
               out);
  }
  if (!piece.content.empty()) emit_delta(index, {{"content", piece.content}}, out);
  for (const ToolCallPiece& call : piece.tool_calls) emit_delta(index, call_delta(call), out);
}

void ChatAnswer::emit_delta(size_t index, Json delta, std::string& out) {
  Json logprobs = std::exchange(parts_[index].logprobs, Json::array());
  out += sse_event(envelope(event_object(),
                            event_choice(index, std::move(delta), std::move(logprobs), nullptr)));
}

void ChatAnswer::gather(Choice& choice, OutputPiece piece) {
  choice.reasoning += piece.reasoning;
  choice.content += piece.content;
  for (ToolCallPiece& call : piece.tool_calls) {
    if (call.index >= choice.tool_calls.size()) choice.tool_calls.resize(call.index + 1);
    ToolCall& target = choice.tool_calls[call.index];
    if (!call.id.empty()) target.id = std::move(call.id);
    if (!call.name.empty()) target.name = std::move(call.name);
    target.arguments += call.arguments;
  }
}

void ChatAnswer::end_choice(size_t index, const TextPiece& piece, std::string& out) {
  Choice& choice = parts_[index];
  const bool calls = choice.has_tool_calls && piece.finish == FinishReason::kStop;
  choice.finish_reason = calls ? "tool_calls" : wire_finish_reason(*piece.finish);
  if (!is_stream()) return;
  Json last = envelope(event_object(), event_choice(index, Json::object(),
                                                    std::exchange(choice.logprobs, Json::array()),
                                                    choice.finish_reason));
  if (choices().all_ended()) last["timings"] = timings_json(choices().stats());
  out += sse_event(last);
}

Json ChatAnswer::whole_choice(size_t index) const {
  const Choice& part = parts_[index];
  const bool only_calls = part.content.empty() && !part.tool_calls.empty();
  Json message;
  message["role"] = "assistant";
  message["content"] = only_calls ? Json() : Json(part.content);
  if (!part.reasoning.empty()) {
    message["reasoning_content"] = part.reasoning;
    message["reasoning"] = part.reasoning;
  }
  for (const ToolCall& call : part.tool_calls) {
    message["tool_calls"].push_back(
        {{"id", call.id},
         {"type", "function"},
         {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  Json choice;
  choice["index"] = index;
  choice["message"] = std::move(message);
  choice["logprobs"] = info().with_logprobs ? Json{{"content", part.logprobs}} : Json();
  choice["finish_reason"] = part.finish_reason;
  return choice;
}

Json ChatAnswer::whole_answer() {
  Json list = Json::array();
  for (size_t i = 0; i < parts_.size(); ++i) list.push_back(whole_choice(i));
  return envelope("chat.completion", std::move(list));
}

}  // namespace hotset
