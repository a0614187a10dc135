// SPDX-License-Identifier: Apache-2.0
// The pipeline: cut at added tokens, normalize, cut at normalized added tokens, split, merge.
#include "tokenizer/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "base/utf8.h"
#include "tokenizer/nfc.h"
#include "tokenizer/piece_cache.h"
#include "tokenizer/tokenizer_data.h"

namespace hotset {
namespace {

// One call's state: the output and what is remembered for its duration.
class Run {
 public:
  Run(const TokenizerData& data, size_t text_bytes, size_t max_tokens)
      : data_(data), max_tokens_(max_tokens), cache_(text_bytes) {
    out_.reserve(std::min(text_bytes / 4, max_tokens) + 4);
  }

  Status add(std::string_view text, bool parse_special) {
    if (const size_t valid = utf8_valid_prefix(text); valid != text.size()) {
      return fail(fmt::format("the text is not valid UTF-8 at byte {}", valid));
    }
    if (!parse_special) return add_normalized(normalize(text), false);
    return cut(data_.raw_added, text,
               [&](std::string_view between) { return add_normalized(normalize(between), true); });
  }

  // There are too many ids already: the rest needs no look.
  [[nodiscard]] bool is_full() const { return out_.size() > max_tokens_; }

  // The ids, unless there are too many.
  Result<std::vector<int32_t>> take() {
    if (is_full()) return too_long();
    return std::move(out_);
  }

 private:
  // Appends the ids of the added tokens in `text`, and has `between` append what lies around them.
  template <typename Between>
  Status cut(const AddedTokens& tokens, std::string_view text, Between&& between) {
    size_t at = 0;
    if (!tokens.empty()) {
      while (const auto match = tokens.find(text, at)) {
        HS_RETURN_IF_ERROR(between(text.substr(at, match->begin - at)));
        out_.push_back(match->id);
        at = match->end;
        if (is_full()) return {};
      }
    }
    return between(text.substr(at));
  }

  std::string_view normalize(std::string_view text) {
    if (!data_.nfc) return text;
    std::string buffer;
    const std::string_view normal = to_nfc(text, buffer);
    return normal.data() == text.data() ? text : normalized_.emplace_back(std::move(buffer));
  }

  Status add_normalized(std::string_view text, bool parse_special) {
    if (!parse_special) return add_plain(text);
    return cut(data_.normalized_added, text,
               [&](std::string_view between) { return add_plain(between); });
  }

  tl::unexpected<Error> too_long() const {
    return fail(fmt::format("the text has more than {} tokens", max_tokens_), ErrorKind::kResource);
  }

  // A text that can't fit even if it were nothing but the longest token is not looked at.
  Status add_plain(std::string_view text) {
    const size_t room = max_tokens_ - std::min(out_.size(), max_tokens_);
    if (text.size() / std::max<size_t>(data_.vocabulary.longest_bytes(), 1) > room) {
      return too_long();
    }
    return data_.splitter.for_each_piece(text, [&](std::string_view piece) {
      cache_.append(piece, out_, [&](std::string_view unknown, std::vector<int32_t>& out) {
        if (data_.ignore_merges) {
          const auto id = data_.vocabulary.find(unknown);
          if (id && data_.added[static_cast<size_t>(*id)] == 0) return out.push_back(*id);
        }
        data_.bpe.merge(unknown, out);
      });
      return !is_full();
    });
  }

  const TokenizerData& data_;
  const size_t max_tokens_;
  PieceCache cache_;
  std::deque<std::string> normalized_;  // the cache holds views of these
  std::vector<int32_t> out_;
};

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerData> data) : data_(std::move(data)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::load(const std::string& tokenizer_json,
                                  const std::string& tokenizer_config_json) {
  HS_ASSIGN_OR_RETURN(const TokenizerFile file, read_tokenizer_file(tokenizer_json));
  HS_ASSIGN_OR_RETURN(auto data, build_tokenizer(file));
  if (!tokenizer_config_json.empty()) {
    HS_ASSIGN_OR_RETURN(const auto config, read_tokenizer_config_file(tokenizer_config_json));
    if (const Status status = apply_tokenizer_config(config, *data); !status) {
      return fail(fmt::format("{}: {}", tokenizer_config_json, status.error().message));
    }
  }
  return Tokenizer(std::move(data));
}

Result<Tokenizer> Tokenizer::parse(std::string_view tokenizer_json, std::string_view name) {
  HS_ASSIGN_OR_RETURN(const TokenizerFile file, parse_tokenizer_file(tokenizer_json, name));
  HS_ASSIGN_OR_RETURN(auto data, build_tokenizer(file));
  return Tokenizer(std::move(data));
}

Result<std::vector<int32_t>> Tokenizer::tokenize(std::string_view text,
                                                 TokenizeOptions options) const {
  const Segment segment{text, options.parse_special == ParseSpecial::kAll};
  return tokenize_segments({&segment, 1});
}

Result<std::vector<int32_t>> Tokenizer::tokenize_segments(std::span<const Segment> segments,
                                                          size_t max_tokens) const {
  size_t bytes = 0;
  for (const Segment& segment : segments) {
    if (segment.text.size() > kMaxTextBytes || bytes > kMaxTextBytes) bytes = kMaxTextBytes;
    bytes += segment.text.size();
  }
  if (bytes > kMaxTextBytes) {
    return fail(fmt::format("the text is longer than {} bytes", kMaxTextBytes));
  }
  Run run(*data_, bytes, max_tokens);
  for (const Segment& segment : segments) {
    HS_RETURN_IF_ERROR(run.add(segment.text, segment.is_trusted));
    if (run.is_full()) break;
  }
  return run.take();
}

std::string Tokenizer::detokenize(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!skip_special || !is_special(id)) bytes += token_bytes(id);
  }
  return utf8_replace_invalid(bytes);
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  return data_->vocabulary.bytes(id);
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && data_->added[static_cast<size_t>(id)] == 2;
}

bool Tokenizer::is_added(int32_t id) const {
  return id >= 0 && id < vocab_size() && data_->added[static_cast<size_t>(id)] != 0;
}

int32_t Tokenizer::vocab_size() const {
  return data_->vocabulary.size();
}

std::optional<int32_t> Tokenizer::find(std::string_view token) const {
  auto id = data_->raw_added.id_of(token);
  if (!id) id = data_->normalized_added.id_of(token);
  return id ? id : data_->vocabulary.find(token);
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return data_->bos_id;
}
std::optional<int32_t> Tokenizer::eos_id() const {
  return data_->eos_id;
}
std::optional<int32_t> Tokenizer::pad_id() const {
  return data_->pad_id;
}

}  // namespace hotset
