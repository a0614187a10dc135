// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back, as a checkpoint's tokenizer.json says: byte-level BPE with an
// optional NFC normalizer, one split pattern and added tokens. The ids equal those of Hugging Face
// `tokenizers` for the same file.
//
//   HS_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::load(dir + "/tokenizer.json"));
//   HS_ASSIGN_OR_RETURN(const auto ids, tokenizer.tokenize("Hello, world!"));
//   std::string text = tokenizer.detokenize(ids);
//
// A Tokenizer never changes after loading; any number of threads may use one at the same time.
// Text that streams out of a model goes through a Detokenizer (tokenizer/detokenizer.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hotset {

struct TokenizerData;

// Which added tokens (<|im_start|>, <tool_call>, …) are recognised inside a text.
enum class ParseSpecial {
  kAll,   // every added token, special or not: text that a template wrote
  kNone,  // none: they are spelled out like any other characters
};

struct TokenizeOptions {
  ParseSpecial parse_special = ParseSpecial::kAll;
};

// A stretch of a prompt. Added tokens are recognised in trusted segments only, so that a client who
// writes "<|im_end|>" gets those ten characters and ends no turn.
struct Segment {
  std::string_view text;
  bool is_trusted = false;
};

class Tokenizer {
 public:
  // Longer texts are refused.
  static constexpr size_t kMaxTextBytes = size_t{1} << 30;

  // Reads tokenizer.json and, if a path is given, tokenizer_config.json (for bos, eos and pad).
  // Anything malformed, contradictory or outside of what this room does is an error that names the
  // field; the files are held to be hostile.
  static Result<Tokenizer> load(const std::string& tokenizer_json,
                                const std::string& tokenizer_config_json = {});

  // The same from memory; `name` stands for the file in messages.
  static Result<Tokenizer> parse(std::string_view tokenizer_json, std::string_view name);

  // Text to ids; no BOS or EOS is added. Text that isn't UTF-8 is an error with the byte offset.
  // Time is linear in the text, and n log n in the longest word.
  [[nodiscard]] Result<std::vector<int32_t>> tokenize(std::string_view text,
                                                      TokenizeOptions options = {}) const;

  // Each segment is tokenized by itself and the ids are put in a row: no token spans two segments.
  // More than `max_tokens` ids are an error (ErrorKind::kResource) that is found early: the work is
  // bounded by what is asked for, not by the text.
  [[nodiscard]] Result<std::vector<int32_t>> tokenize_segments(
      std::span<const Segment> segments, size_t max_tokens = kMaxTextBytes) const;

  // The bytes of all tokens in a row, invalid UTF-8 replaced by U+FFFD.
  [[nodiscard]] std::string detokenize(std::span<const int32_t> ids,
                                       bool skip_special = false) const;

  // The raw bytes that a token stands for, maybe a part of a character; added tokens verbatim.
  // Ids that no token has (a checkpoint's padded rows, negative ids) give an empty view.
  [[nodiscard]] std::string_view token_bytes(int32_t id) const;

  // True for the tokens that detokenizing with skip_special leaves out.
  [[nodiscard]] bool is_special(int32_t id) const;
  // True for every added token, special or not.
  [[nodiscard]] bool is_added(int32_t id) const;

  // The highest id + 1. Checkpoints may have more rows than this.
  [[nodiscard]] int32_t vocab_size() const;

  // The id of an added token by its text, or of a vocabulary token by its bytes.
  [[nodiscard]] std::optional<int32_t> find(std::string_view token) const;

  // As tokenizer_config.json names them; empty when it doesn't, or when no such file was read.
  [[nodiscard]] std::optional<int32_t> bos_id() const;
  [[nodiscard]] std::optional<int32_t> eos_id() const;
  [[nodiscard]] std::optional<int32_t> pad_id() const;

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

 private:
  explicit Tokenizer(std::unique_ptr<const TokenizerData> data);

  std::unique_ptr<const TokenizerData> data_;
};

}  // namespace hotset
