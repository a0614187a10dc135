// SPDX-License-Identifier: Apache-2.0
#include "server/completion_answer.h"

#include <utility>

#include "server/wire.h"

namespace hotset {

CompletionAnswer::CompletionAnswer(AnswerInfo info, Choices choices, const Tokenizer& tokenizer,
                                   std::string echo)
    : GeneratedAnswer(std::move(info), std::move(choices)),
      parts_(this->choices().size()),
      tokenizer_(tokenizer),
      echo_(std::move(echo)) {
  for (Choice& part : parts_) part.text = echo_;
}

void CompletionAnswer::begin(std::string& out) {
  if (echo_.empty()) return;
  for (size_t i = 0; i < parts_.size(); ++i) {
    out += sse_event(envelope(event_object(), Json::array({choice_json(i, echo_, nullptr)})));
  }
}

void CompletionAnswer::take(size_t index, const TextPiece& piece, std::string& out) {
  Choice& part = parts_[index];
  if (piece.token && info().with_logprobs) take_logprobs(part, *piece.token);
  if (piece.finish) part.finish_reason = wire_finish_reason(*piece.finish);
  if (!is_stream()) {
    part.text += piece.text;
    return;
  }
  if (!piece.text.empty()) {
    out += sse_event(envelope(event_object(), Json::array({choice_json(index, piece.text, {})})));
  }
  if (!piece.finish) return;
  Json last = envelope(event_object(), Json::array({choice_json(index, "", part.finish_reason)}));
  if (choices().all_ended()) last["timings"] = timings_json(choices().stats());
  out += sse_event(last);
}

void CompletionAnswer::take_logprobs(Choice& part, const TokenEvent& event) const {
  part.tokens.push_back(token_text(tokenizer_, *event.token));
  part.token_logprobs.push_back(event.logprob);
  Json top = Json::object();
  for (const TokenLogprob& entry : event.top_logprobs) {
    top[token_text(tokenizer_, entry.token)] = entry.logprob;
  }
  part.top_logprobs.push_back(std::move(top));
  part.text_offsets.push_back(part.num_text_bytes);
  part.num_text_bytes += static_cast<int64_t>(tokenizer_.token_bytes(*event.token).size());
}

Json CompletionAnswer::choice_json(size_t index, std::string text, Json finish_reason) {
  Choice& part = parts_[index];
  Json choice;
  choice["index"] = index;
  choice["text"] = std::move(text);
  choice["logprobs"] = nullptr;
  if (!part.tokens.empty()) {
    Json& logprobs = choice["logprobs"];
    logprobs["tokens"] = std::exchange(part.tokens, Json::array());
    logprobs["token_logprobs"] = std::exchange(part.token_logprobs, Json::array());
    logprobs["top_logprobs"] = std::exchange(part.top_logprobs, Json::array());
    logprobs["text_offset"] = std::exchange(part.text_offsets, Json::array());
  }
  choice["finish_reason"] = std::move(finish_reason);
  return choice;
}

Json CompletionAnswer::whole_answer() {
  Json list = Json::array();
  for (size_t i = 0; i < parts_.size(); ++i) {
    list.push_back(choice_json(i, std::move(parts_[i].text), parts_[i].finish_reason));
  }
  return envelope("text_completion", std::move(list));
}

}  // namespace hotset
