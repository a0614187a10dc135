// SPDX-License-Identifier: Apache-2.0
#include "server/completion_answer.h"

#include <utility>

#include "server/wire.h"

namespace hotset {

CompletionAnswer::CompletionAnswer(AnswerInfo info, std::unique_ptr<TextStream> text,
                                   const Tokenizer& tokenizer)
    : info_(std::move(info)), text_(std::move(text)), tokenizer_(tokenizer) {}

AnswerBytes CompletionAnswer::advance() {
  std::string out;
  while (auto piece = text_->try_next()) {
    if (piece->token && info_.with_logprobs) take_logprobs(*piece->token);
    if (!is_stream()) {
      whole_text_ += piece->text;
    } else if (!piece->text.empty()) {
      out += sse_event(body(piece->text, nullptr));
    }
    if (piece->finish) return finish(*piece, std::move(out));
  }
  return {std::move(out), false, 200};
}

void CompletionAnswer::take_logprobs(const TokenEvent& event) {
  tokens_.push_back(token_text(tokenizer_, *event.token));
  token_logprobs_.push_back(event.logprob);
  Json top = Json::object();
  for (const TokenLogprob& entry : event.top_logprobs) {
    top[token_text(tokenizer_, entry.token)] = entry.logprob;
  }
  top_logprobs_.push_back(std::move(top));
  text_offsets_.push_back(num_text_bytes_);
  num_text_bytes_ += static_cast<int64_t>(tokenizer_.token_bytes(*event.token).size());
}

AnswerBytes CompletionAnswer::finish(const TextPiece& piece, std::string streamed) {
  if (info_.on_end) info_.on_end(info_.id, piece.stats, *piece.finish);
  if (const ApiError error = end_error(*piece.finish, piece.error); error.status != 0) {
    if (is_stream()) return {streamed + sse_event(error_json(error)), true, 200};
    return {to_json_text(error_json(error)), true, error.status};
  }
  Json last = body(std::move(whole_text_), std::string(wire_finish_reason(*piece.finish)));
  last["timings"] = timings_json(piece.stats);
  if (!is_stream()) {
    last["usage"] = usage_json(piece.stats, 0);
    return {to_json_text(last), true, 200};
  }
  streamed += sse_event(last);
  if (info_.stream.include_usage) {
    Json usage = body("", nullptr);
    usage["choices"] = Json::array();
    usage["usage"] = usage_json(piece.stats, 0);
    streamed += sse_event(usage);
  }
  return {streamed.append(kSseDone), true, 200};
}

Json CompletionAnswer::body(std::string text, Json finish_reason) {
  Json choice;
  choice["index"] = 0;
  choice["text"] = std::move(text);
  choice["logprobs"] = logprobs_or_null();
  choice["finish_reason"] = std::move(finish_reason);
  Json out;
  out["id"] = info_.id;
  out["object"] = "text_completion";
  out["created"] = info_.created_s;
  out["model"] = info_.model;
  out["choices"] = Json::array({std::move(choice)});
  return out;
}

Json CompletionAnswer::logprobs_or_null() {
  if (tokens_.empty()) return nullptr;
  Json out;
  out["tokens"] = std::exchange(tokens_, Json::array());
  out["token_logprobs"] = std::exchange(token_logprobs_, Json::array());
  out["top_logprobs"] = std::exchange(top_logprobs_, Json::array());
  out["text_offset"] = std::exchange(text_offsets_, Json::array());
  return out;
}

}  // namespace hotset
