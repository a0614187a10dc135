// SPDX-License-Identifier: Apache-2.0
// From a parsed file to tables, with every cross-check between vocabulary, merges and added tokens.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <unordered_map>

#include "tokenizer/nfc.h"
#include "tokenizer/tokenizer_data.h"

namespace hotset {
namespace {

// Enough of a token to recognise it in a message.
std::string_view shown(std::string_view text) {
  return text.substr(0, 60);
}

class Builder {
 public:
  explicit Builder(const TokenizerFile& file) : file_(file) {}

  Result<std::unique_ptr<TokenizerData>> build() {
    HS_RETURN_IF_ERROR(index_added_tokens());
    HS_ASSIGN_OR_RETURN(Vocabulary vocabulary, make_vocabulary());
    HS_ASSIGN_OR_RETURN(Bpe bpe, make_bpe(vocabulary));
    auto splitter = Splitter::compile(file_.split_pattern);
    if (!splitter) {
      return fail(fmt::format("pre_tokenizer: Split.pattern: {}", splitter.error().message));
    }
    auto data = std::make_unique<TokenizerData>(TokenizerData{
        .vocabulary = std::move(vocabulary),
        .bpe = std::move(bpe),
        .splitter = std::move(*splitter),
        .raw_added = {},
        .normalized_added = {},
        .added = std::move(added_),
        .nfc = file_.nfc,
        .ignore_merges = file_.ignore_merges,
        .bos_id = {},
        .eos_id = {},
        .pad_id = {},
    });
    HS_RETURN_IF_ERROR(add_added_tokens(*data));
    return data;
  }

 private:
  using AddedToken = TokenizerFile::AddedToken;

  Status index_added_tokens() {
    for (const AddedToken& token : file_.added_tokens) {
      if (!added_by_text_.emplace(token.text, &token).second) {
        return fail(fmt::format("added_tokens: '{}' comes twice", shown(token.text)));
      }
      max_id_ = std::max(max_id_, token.id);
    }
    for (const auto& entry : file_.vocab) max_id_ = std::max(max_id_, entry.id);
    added_.assign(static_cast<size_t>(max_id_) + 1, 0);
    return {};
  }

  Result<Vocabulary> make_vocabulary() {
    const size_t tokens = file_.vocab.size() + file_.added_tokens.size();
    Vocabulary vocabulary(max_id_, tokens, 8 * tokens);
    std::string bytes;
    for (const auto& entry : file_.vocab) {
      if (const auto found = added_by_text_.find(entry.spelled); found != added_by_text_.end()) {
        if (found->second->id != entry.id) {
          return fail(fmt::format("'{}' has id {} in model.vocab and {} in added_tokens",
                                  shown(entry.spelled), entry.id, found->second->id));
        }
        if (found->second->special) continue;
      }
      bytes.clear();
      if (!append_spelled_bytes(entry.spelled, bytes)) {
        if (added_by_text_.contains(entry.spelled)) continue;
        return fail(fmt::format("model.vocab['{}'] has a character that stands for no byte",
                                shown(entry.spelled)));
      }
      if (bytes.empty()) return fail("model.vocab has an empty token");
      if (const Status status = vocabulary.add(entry.id, bytes, true); !status) {
        return fail(fmt::format("model.vocab: {}", status.error().message));
      }
    }
    for (const AddedToken& token : file_.added_tokens) {
      if (vocabulary.has(token.id) && vocabulary.bytes(token.id) == token.text) continue;
      if (const Status status = vocabulary.add(token.id, token.text, false); !status) {
        return fail(fmt::format("added_tokens: {}", status.error().message));
      }
    }
    return vocabulary;
  }

  Result<Bpe> make_bpe(const Vocabulary& vocabulary) const {
    std::array<int32_t, 256> byte_ids{};
    for (size_t byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      const auto id = vocabulary.find({&c, 1});
      if (!id) return fail(fmt::format("model.vocab has no token for the byte {:#04x}", byte));
      byte_ids[byte] = *id;
    }
    Bpe bpe(byte_ids, file_.merges.size());
    std::string bytes;
    for (size_t i = 0; i < file_.merges.size(); ++i) {
      const auto& [left, right] = file_.merges[i];
      bytes.clear();
      const bool left_good = append_spelled_bytes(left, bytes);
      const size_t cut = bytes.size();
      const bool good = left_good && append_spelled_bytes(right, bytes) && cut < bytes.size();
      const std::string_view whole = bytes;
      const auto left_id = good ? vocabulary.find(whole.substr(0, cut)) : std::nullopt;
      const auto right_id = good ? vocabulary.find(whole.substr(cut)) : std::nullopt;
      const auto id = good ? vocabulary.find(whole) : std::nullopt;
      if (!left_id || !right_id || !id) {
        return fail(
            fmt::format("model.merges[{}]: '{}', '{}' or the two together are not in "
                        "model.vocab",
                        i, shown(left), shown(right)));
      }
      if (const Status status = bpe.add_merge(*left_id, *right_id, *id); !status) {
        return fail(fmt::format("model.merges[{}]: {}", i, status.error().message));
      }
    }
    return bpe;
  }

  Status add_added_tokens(TokenizerData& data) const {
    std::string buffer;
    for (const AddedToken& token : file_.added_tokens) {
      data.added[static_cast<size_t>(token.id)] = token.special ? 2 : 1;
      const bool normalized = token.normalized && data.nfc;
      const std::string_view text = normalized ? to_nfc(token.text, buffer) : token.text;
      AddedTokens& added = token.normalized ? data.normalized_added : data.raw_added;
      if (const Status status = added.add(text, token.id); !status) {
        return fail(fmt::format("added_tokens: {}", status.error().message));
      }
    }
    return {};
  }

  const TokenizerFile& file_;
  std::unordered_map<std::string_view, const AddedToken*> added_by_text_;
  std::vector<uint8_t> added_;
  int32_t max_id_ = 0;
};

}  // namespace

Result<std::unique_ptr<TokenizerData>> build_tokenizer(const TokenizerFile& file) {
  auto data = Builder(file).build();
  if (!data) {
    return fail(Error{data.error().kind, fmt::format("{}: {}", file.name, data.error().message)});
  }
  return data;
}

Status apply_tokenizer_config(const TokenizerConfigFile& config, TokenizerData& data) {
  const auto id_of = [&](std::string_view text) {
    auto id = data.raw_added.id_of(text);
    if (!id) id = data.normalized_added.id_of(text);
    return id ? id : data.vocabulary.find(text);
  };
  for (const auto& token : config.added_tokens) {
    if (id_of(token.text) != token.id) {
      return fail(fmt::format("added_tokens_decoder: '{}' with id {} is not in tokenizer.json",
                              shown(token.text), token.id));
    }
  }
  const auto set = [&](std::string_view field, const std::optional<std::string>& text,
                       std::optional<int32_t>& id) -> Status {
    if (!text) return {};
    id = id_of(*text);
    if (!id) return fail(fmt::format("{} '{}' is not in tokenizer.json", field, shown(*text)));
    return {};
  };
  HS_RETURN_IF_ERROR(set("bos_token", config.bos_token, data.bos_id));
  HS_RETURN_IF_ERROR(set("eos_token", config.eos_token, data.eos_id));
  return set("pad_token", config.pad_token, data.pad_id);
}

}  // namespace hotset
