// SPDX-License-Identifier: Apache-2.0
#include "server/generated_answer.h"

#include <exception>
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

GeneratedAnswer::GeneratedAnswer(AnswerInfo info, Choices choices)
    : info_(std::move(info)), choices_(std::move(choices)) {}

// An answer that goes before its end has lost its client.
GeneratedAnswer::~GeneratedAnswer() {
  RequestStats stats;
  stats.num_prompt_tokens = info_.num_prompt_tokens;
  stats.num_output_tokens = choices_.num_tokens();
  try {
    report_end(stats, FinishReason::kCancelled);
  } catch (const std::exception&) {
    return;  // one line less in the log
  }
}

void GeneratedAnswer::report_end(const RequestStats& stats, FinishReason reason) {
  if (const auto on_end = std::exchange(info_.on_end, {})) on_end(info_.id, stats, reason);
}

AnswerBytes GeneratedAnswer::advance() {
  std::string out;
  if (is_stream() && !has_begun_) begin(out);
  has_begun_ = true;
  while (auto next = choices_.try_next()) {
    auto& [index, piece] = *next;
    if (piece.finish) {
      const FinishReason reason = *piece.finish;
      if (const ApiError error = end_error(reason, piece.error); error.status != 0) {
        piece.finish.reset();
        take(index, piece, out);  // what was held back
        return finish_badly(error, reason, std::move(out));
      }
    }
    take(index, piece, out);
    if (choices_.all_ended()) return finish(*piece.finish, std::move(out));
  }
  return {std::move(out), false, 200};
}

AnswerBytes GeneratedAnswer::finish_badly(const ApiError& error, FinishReason reason,
                                          std::string streamed) {
  choices_.cancel();
  report_end(choices_.stats(), reason);
  if (is_stream()) return {streamed + sse_event(error_json(error)), true, 200};
  return {to_json_text(error_json(error)), true, error.status};
}

AnswerBytes GeneratedAnswer::finish(FinishReason reason, std::string streamed) {
  const RequestStats& stats = choices_.stats();
  report_end(stats, reason);
  if (!is_stream()) {
    Json body = whole_answer();
    body["usage"] = usage_json(stats, num_reasoning_tokens());
    body["timings"] = timings_json(stats);
    return {to_json_text(body), true, 200};
  }
  if (info_.stream.include_usage) {
    Json usage = envelope(event_object(), Json::array());
    usage["usage"] = usage_json(stats, num_reasoning_tokens());
    streamed += sse_event(usage);
  }
  return {streamed.append(kSseDone), true, 200};
}

Json GeneratedAnswer::envelope(const char* object, Json choices) const {
  Json out;
  out["id"] = info_.id;
  out["object"] = object;
  out["created"] = info_.created_s;
  out["model"] = info_.model;
  out["choices"] = std::move(choices);
  return out;
}

}  // namespace hotset
