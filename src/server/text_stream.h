// SPDX-License-Identifier: Apache-2.0
// Token events → pieces of text: detokenizes, looks for stop strings, keeps the logprobs of the
// tokens a piece came from. One object an answer, one thread at a time; destroying it cancels.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/token_stream.h"
#include "request/sampling_params.h"
#include "server/stop_matcher.h"
#include "tokenizer/detokenizer.h"

namespace hotset {

struct TextPiece {
  std::string text;                 // whole characters
  std::optional<TokenEvent> token;  // with its logprobs; absent in a last piece without a token
  std::optional<FinishReason> finish;
  Error error;         // meaningful when finish is kError
  RequestStats stats;  // filled with finish
};

class TextStream {
 public:
  // `tokenizer` must outlive this.
  TextStream(std::shared_ptr<TokenStream> stream, const Tokenizer& tokenizer,
             const SamplingParams& params);
  ~TextStream();
  TextStream(const TextStream&) = delete;
  TextStream& operator=(const TextStream&) = delete;

  [[nodiscard]] std::optional<TextPiece> try_next();
  // Waits. REQUIRES: no piece with `finish` has been returned yet.
  [[nodiscard]] TextPiece next();
  // Waits at most `patience` for an event; it may bring no piece.
  [[nodiscard]] std::optional<TextPiece> next_within(std::chrono::milliseconds patience);
  void cancel();
  void set_wakeup(std::function<void()> wakeup);

 private:
  std::optional<TextPiece> convert(TokenEvent event);
  void convert_last(TokenEvent& event, TextPiece& piece);

  std::shared_ptr<TokenStream> stream_;
  Detokenizer detokenizer_;
  StopMatcher stop_;
  int64_t num_tokens_ = 0;
};

}  // namespace hotset
