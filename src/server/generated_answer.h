// SPDX-License-Identifier: Apache-2.0
// What the answers of both endpoints have in common: pieces of all choices are taken as they come,
// an error of one choice ends the answer, and the end is told once. The endpoints say how a piece
// looks on the wire (server/chat_answer.h, server/completion_answer.h).
#pragma once

#include <string>

#include "server/answer.h"
#include "server/answer_info.h"
#include "server/choices.h"
#include "server/strict_json.h"

namespace hotset {

class GeneratedAnswer : public Answer {
 public:
  ~GeneratedAnswer() override;

  bool is_stream() const final { return info_.stream.stream; }
  void set_wakeup(std::function<void()> wakeup) final { choices_.set_wakeup(wakeup); }
  AnswerBytes advance() final;
  void cancel() final { choices_.cancel(); }

 protected:
  GeneratedAnswer(AnswerInfo info, Choices choices);

  // Events before the first piece of a stream.
  virtual void begin(std::string& out) = 0;
  // A piece of choice `index`; streams append events to `out`, others gather. With piece.finish
  // the choice has ended well.
  virtual void take(size_t index, const TextPiece& piece, std::string& out) = 0;
  // The body of an answer that is no stream, all choices ended; without usage and timings.
  virtual Json whole_answer() = 0;
  virtual int64_t num_reasoning_tokens() const { return 0; }

  // id, created and model around `choices`.
  Json envelope(const char* object, Json choices) const;
  // The name of a stream's events.
  virtual const char* event_object() const = 0;

  const AnswerInfo& info() const { return info_; }
  const Choices& choices() const { return choices_; }

 private:
  AnswerBytes finish(FinishReason reason, std::string streamed);
  AnswerBytes finish_badly(const ApiError& error, FinishReason reason, std::string streamed);
  void report_end(const RequestStats& stats, FinishReason reason);

  AnswerInfo info_;
  Choices choices_;
  bool has_begun_ = false;
};

}  // namespace hotset
