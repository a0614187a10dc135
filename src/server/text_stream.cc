// SPDX-License-Identifier: Apache-2.0
#include "server/text_stream.h"

#include <utility>

namespace hotset {

TextStream::TextStream(std::shared_ptr<TokenStream> stream, const Tokenizer& tokenizer,
                       const SamplingParams& params)
    : stream_(std::move(stream)),
      detokenizer_(tokenizer, /*skip_special=*/true),
      stop_(params.stop, params.include_stop_str_in_output) {}

TextStream::~TextStream() {
  stream_->set_wakeup({});
  stream_->cancel();
}

void TextStream::cancel() {
  stream_->cancel();
}

void TextStream::set_wakeup(std::function<void()> wakeup) {
  stream_->set_wakeup(std::move(wakeup));
}

std::optional<TextPiece> TextStream::try_next() {
  while (auto event = stream_->try_next()) {
    if (auto piece = convert(std::move(*event))) return piece;
  }
  return std::nullopt;
}

TextPiece TextStream::next() {
  while (true) {
    if (auto piece = convert(stream_->next())) return std::move(*piece);
  }
}

std::optional<TextPiece> TextStream::next_within(std::chrono::milliseconds patience) {
  auto event = stream_->next_within(patience);
  return event ? convert(std::move(*event)) : std::nullopt;
}

// After a stop string the engine still has a step to go until it sees the cancel; its tokens are
// dropped and only its last event, which carries the times, is waited for.
std::optional<TextPiece> TextStream::convert(TokenEvent event) {
  const bool had_stopped = stop_.has_matched();
  if (had_stopped && !event.finish) return std::nullopt;
  TextPiece piece;
  if (event.token && !had_stopped) {
    ++num_tokens_;
    // The token that ends an answer (end of text, a stop id) is not part of it.
    const bool is_ending = event.finish == FinishReason::kStop;
    if (!is_ending) piece.text = stop_.push(detokenizer_.push(*event.token));
    if (stop_.has_matched()) stream_->cancel();
  }
  if (event.finish) convert_last(event, piece);
  if (event.token && !had_stopped) piece.token = std::move(event);
  return piece;
}

void TextStream::convert_last(TokenEvent& event, TextPiece& piece) {
  if (!stop_.has_matched()) {
    piece.text += stop_.push(detokenizer_.finish());
    piece.text += stop_.finish();
  }
  piece.finish = stop_.has_matched() ? FinishReason::kStop : event.finish;
  piece.error = event.error;
  piece.stats = event.stats;
  piece.stats.num_output_tokens = num_tokens_;
}

}  // namespace hotset
