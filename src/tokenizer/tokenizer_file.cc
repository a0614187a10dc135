// SPDX-License-Identifier: Apache-2.0
// One pass over the document in its own order; strings stay in the parser's buffer.
#include "tokenizer/tokenizer_file.h"

#include <filesystem>

#include "tokenizer/json_reader.h"
#include "tokenizer/vocabulary.h"

namespace hotset {
namespace {

using json::Value;

struct Storage {
  simdjson::padded_string text;
  simdjson::ondemand::parser parser;
};

tl::unexpected<Error> unsupported(std::string_view field, std::string_view value) {
  return fail(fmt::format("{} '{}' is not supported", field, value.substr(0, 60)),
              ErrorKind::kUnsupported);
}

// A setting that must be off; null, false, "" and 0 all mean off.
Status expect_off(Value value, std::string_view field) {
  simdjson::ondemand::json_type type{};
  if (const auto code = value.type().get(type)) return json::malformed(field, code);
  std::string_view text = "x";
  bool flag = true;
  double number = 1;
  using Type = simdjson::ondemand::json_type;
  if (type == Type::null) return {};
  if (type == Type::boolean && value.get_bool().get(flag) == simdjson::SUCCESS && !flag) return {};
  if (type == Type::string && value.get_string().get(text) == simdjson::SUCCESS && text.empty()) {
    return {};
  }
  if (type == Type::number && value.get_double().get(number) == simdjson::SUCCESS && number == 0) {
    return {};
  }
  return fail(fmt::format("{} is set, which is not supported", field), ErrorKind::kUnsupported);
}

Result<int32_t> token_id(Value value, std::string_view field) {
  HS_ASSIGN_OR_RETURN(const int64_t id, json::integer(value, field));
  if (id < 0 || id > kMaxTokenId) {
    return fail(fmt::format("{} has the id {}; ids are 0 … {}", field, id, kMaxTokenId));
  }
  return static_cast<int32_t>(id);
}

class Reader {
 public:
  explicit Reader(TokenizerFile& file) : file_(file) {}

  Status read(Value root) {
    bool has_model = false, has_pre_tokenizer = false;
    HS_RETURN_IF_ERROR(json::each_field(root, "the file", [&](std::string_view key, Value value) {
      if (key == "model") return has_model = true, read_model(value);
      if (key == "added_tokens") return read_added_tokens(value);
      if (key == "normalizer") return read_normalizer(value);
      if (key == "pre_tokenizer") return has_pre_tokenizer = true, read_pre_tokenizer(value);
      if (key == "decoder" || key == "post_processor") return expect_byte_level(value, key);
      return Status{};  // version, truncation, padding: nothing that changes the ids
    }));
    if (!has_model) return fail("model is missing");
    if (!has_pre_tokenizer) return fail("pre_tokenizer is missing");
    return {};
  }

 private:
  Status read_model(Value model) {
    std::string type = "BPE";
    bool has_vocab = false, has_merges = false;
    HS_RETURN_IF_ERROR(json::each_field(model, "model", [&](std::string_view key, Value value) {
      if (key == "type") return read_string(value, "model.type", type);
      if (key == "vocab") return has_vocab = true, read_vocab(value);
      if (key == "merges") return has_merges = true, read_merges(value);
      if (key == "ignore_merges")
        return read_bool(value, "model.ignore_merges", file_.ignore_merges);
      if (key == "dropout" || key == "continuing_subword_prefix" || key == "end_of_word_suffix" ||
          key == "byte_fallback") {
        return expect_off(value, fmt::format("model.{}", key));
      }
      return Status{};  // unk_token, fuse_unk: every byte has a token, so neither is ever used
    }));
    if (type != "BPE") return unsupported("model.type", type);
    if (!has_vocab) return fail("model.vocab is missing");
    if (!has_merges) return fail("model.merges is missing");
    return {};
  }

  Status read_vocab(Value vocab) {
    const auto on_field = [&](std::string_view key, Value value) -> Status {
      int64_t id = 0;
      if (value.get_int64().get(id) != simdjson::SUCCESS || id < 0 || id > kMaxTokenId) {
        return fail(fmt::format("model.vocab['{}'] is not an id of 0 … {}", key.substr(0, 60),
                                kMaxTokenId));
      }
      file_.vocab.push_back({key, static_cast<int32_t>(id)});
      return {};
    };
    return json::each_field(vocab, "model.vocab", on_field, false);
  }

  Status read_merges(Value merges) {
    return json::each_element(merges, "model.merges", [&](size_t index, Value value) -> Status {
      simdjson::ondemand::json_type type{};
      if (const auto code = value.type().get(type)) return json::malformed("model.merges", code);
      TokenizerFile::Merge merge;
      const bool good = type == simdjson::ondemand::json_type::array ? read_pair(value, merge)
                                                                     : read_spaced(value, merge);
      if (!good) {
        return fail(
            fmt::format("model.merges[{}] is neither \"left right\" nor [left, right]", index));
      }
      file_.merges.push_back(merge);
      return {};
    });
  }

  static bool read_spaced(Value value, TokenizerFile::Merge& merge) {
    std::string_view text;
    if (value.get_string().get(text) != simdjson::SUCCESS) return false;
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.rfind(' ') != space) return false;
    merge = {text.substr(0, space), text.substr(space + 1)};
    return true;
  }

  static bool read_pair(Value value, TokenizerFile::Merge& merge) {
    simdjson::ondemand::array array;
    if (value.get_array().get(array) != simdjson::SUCCESS) return false;
    size_t count = 0;
    for (auto element : array) {
      std::string_view text;
      if (count == 2 || element.get_string().get(text) != simdjson::SUCCESS) return false;
      (count++ == 0 ? merge.first : merge.second) = text;
    }
    return count == 2;
  }

  Status read_added_tokens(Value tokens) {
    return json::each_element(tokens, "added_tokens", [&](size_t index, Value value) -> Status {
      if (index == TokenizerFile::kMaxAddedTokens) {
        return fail(fmt::format("added_tokens has more than {} entries", index));
      }
      const std::string name = fmt::format("added_tokens[{}]", index);
      TokenizerFile::AddedToken token;
      bool has_id = false, has_text = false;
      const auto on_field = [&](std::string_view key, Value field) -> Status {
        const auto field_name = [&] { return fmt::format("{}.{}", name, key); };
        if (key == "id") {
          HS_ASSIGN_OR_RETURN(token.id, token_id(field, field_name()));
          has_id = true;
        } else if (key == "content") {
          HS_ASSIGN_OR_RETURN(token.text, json::string(field, field_name()));
          has_text = true;
        } else if (key == "special" || key == "normalized") {
          return read_bool(field, field_name(),
                           key == "special" ? token.special : token.normalized);
        } else if (key == "lstrip" || key == "rstrip" || key == "single_word") {
          return expect_off(field, field_name());
        }
        return {};
      };
      HS_RETURN_IF_ERROR(json::each_field(value, name, on_field));
      if (!has_id || !has_text) return fail(fmt::format("{} lacks id or content", name));
      file_.added_tokens.push_back(token);
      return {};
    });
  }

  Status read_normalizer(Value normalizer) {
    HS_ASSIGN_OR_RETURN(const bool none, json::is_null(normalizer, "normalizer"));
    if (none) return {};
    std::string type;
    HS_RETURN_IF_ERROR(
        json::each_field(normalizer, "normalizer", [&](std::string_view key, Value value) {
          return key == "type" ? read_string(value, "normalizer.type", type) : Status{};
        }));
    if (type != "NFC") return unsupported("normalizer.type", type);
    file_.nfc = true;
    return {};
  }

  // ByteLevel alone, or a Sequence of at most one Split and then ByteLevel.
  struct PreTokenizer {
    std::string type, behavior = "Isolated";
    std::optional<std::string_view> pattern;
    bool use_regex = true;
    std::vector<PreTokenizer> parts;
  };

  Status read_pre_tokenizer(Value value) {
    PreTokenizer top;
    HS_RETURN_IF_ERROR(read_pre_tokenizer_level(value, "pre_tokenizer", true, top));
    if (top.type != "Sequence") top.parts = {PreTokenizer(top)};
    if (top.parts.empty() || top.parts.back().type != "ByteLevel" || top.parts.size() > 2 ||
        (top.parts.size() == 2 && top.parts.front().type != "Split")) {
      return fail("pre_tokenizer is neither ByteLevel nor a Sequence of Split and ByteLevel",
                  ErrorKind::kUnsupported);
    }
    const bool has_split = top.parts.size() == 2;
    if (has_split && top.parts.back().use_regex) {
      return fail("pre_tokenizer: ByteLevel.use_regex behind a Split is not supported",
                  ErrorKind::kUnsupported);
    }
    if (has_split) {
      if (!top.parts.front().pattern) return fail("pre_tokenizer: Split.pattern is missing");
      file_.split_pattern = top.parts.front().pattern;
    } else if (top.parts.back().use_regex) {
      file_.split_pattern = kGpt2Pattern;
    }
    return {};
  }

  Status read_pre_tokenizer_level(Value value, std::string_view name, bool is_top,
                                  PreTokenizer& out) {
    const auto on_field = [&](std::string_view key, Value field) -> Status {
      const std::string field_name = fmt::format("{}.{}", name, key);
      if (key == "type") return read_string(field, field_name, out.type);
      if (key == "behavior") return read_string(field, field_name, out.behavior);
      if (key == "use_regex") return read_bool(field, field_name, out.use_regex);
      if (key == "pattern") return read_pattern(field, field_name, out.pattern);
      if (key == "add_prefix_space" || key == "invert") return expect_off(field, field_name);
      if (key != "pretokenizers" || !is_top) return {};
      return json::each_element(field, field_name, [&](size_t index, Value part) {
        out.parts.emplace_back();
        return read_pre_tokenizer_level(part, fmt::format("{}[{}]", field_name, index), false,
                                        out.parts.back());
      });
    };
    HS_RETURN_IF_ERROR(json::each_field(value, name, on_field));
    if (out.type == "Split" && out.behavior != "Isolated") {
      return unsupported(fmt::format("{}.behavior", name), out.behavior);
    }
    const bool known =
        out.type == "ByteLevel" || out.type == "Split" || (is_top && out.type == "Sequence");
    return known ? Status{} : unsupported(fmt::format("{}.type", name), out.type);
  }

  static Status read_pattern(Value value, std::string_view name,
                             std::optional<std::string_view>& pattern) {
    HS_RETURN_IF_ERROR(
        json::each_field(value, name, [&](std::string_view key, Value text) -> Status {
          if (key != "Regex") return unsupported(name, key);
          HS_ASSIGN_OR_RETURN(pattern, json::string(text, fmt::format("{}.Regex", name)));
          return {};
        }));
    return pattern ? Status{} : Status(fail(fmt::format("{}.Regex is missing", name)));
  }

  static Status expect_byte_level(Value value, std::string_view name) {
    HS_ASSIGN_OR_RETURN(const bool none, json::is_null(value, name));
    if (none) return {};
    std::string type;
    HS_RETURN_IF_ERROR(json::each_field(value, name, [&](std::string_view key, Value field) {
      return key == "type" ? read_string(field, fmt::format("{}.type", name), type) : Status{};
    }));
    return type == "ByteLevel" ? Status{} : unsupported(fmt::format("{}.type", name), type);
  }

  static Status read_bool(Value value, std::string_view name, bool& out) {
    HS_ASSIGN_OR_RETURN(out, json::boolean(value, name));
    return {};
  }
  static Status read_string(Value value, std::string_view name, std::string& out) {
    HS_ASSIGN_OR_RETURN(out, json::string(value, name));
    return {};
  }

  static constexpr std::string_view kGpt2Pattern =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

  TokenizerFile& file_;
};

Result<TokenizerFile> parse(simdjson::padded_string text, std::string_view name) {
  const auto storage = std::make_shared<Storage>();
  storage->text = std::move(text);
  TokenizerFile file;
  file.name = name;
  file.storage = storage;
  simdjson::ondemand::document document;
  Value root;
  auto code = storage->parser.iterate(storage->text).get(document);
  if (code == simdjson::SUCCESS) code = document.get_value().get(root);
  if (code != simdjson::SUCCESS) {
    return fail(fmt::format("{}: not a JSON object: {}", name, simdjson::error_message(code)));
  }
  if (const Status status = Reader(file).read(root); !status) {
    return fail(Error{status.error().kind, fmt::format("{}: {}", name, status.error().message)});
  }
  return file;
}

Result<simdjson::padded_string> read_file(const std::string& path) {
  std::error_code error;
  const bool is_file = std::filesystem::is_regular_file(path, error);
  const uintmax_t size = is_file ? std::filesystem::file_size(path, error) : 0;
  if (!is_file || error) return fail(fmt::format("{}: no such file", path), ErrorKind::kNotFound);
  if (size > TokenizerFile::kMaxBytes) {
    return fail(fmt::format("{}: {} bytes, the limit is {}", path, size, TokenizerFile::kMaxBytes));
  }
  simdjson::padded_string text;
  if (const auto code = simdjson::padded_string::load(path).get(text)) {
    return fail(fmt::format("{}: {}", path, simdjson::error_message(code)), ErrorKind::kInternal);
  }
  return text;
}

// A token in tokenizer_config.json: null, a string, or an object with content.
Result<std::optional<std::string>> read_named_token(Value value, std::string_view name) {
  simdjson::ondemand::json_type type{};
  if (const auto code = value.type().get(type)) return json::malformed(name, code);
  if (type == simdjson::ondemand::json_type::null) return std::nullopt;
  std::optional<std::string> text;
  if (type != simdjson::ondemand::json_type::object) {
    HS_ASSIGN_OR_RETURN(text, json::string(value, name));
    return text;
  }
  HS_RETURN_IF_ERROR(
      json::each_field(value, name, [&](std::string_view key, Value field) -> Status {
        if (key == "content") {
          HS_ASSIGN_OR_RETURN(text, json::string(field, fmt::format("{}.content", name)));
        }
        return {};
      }));
  return text;
}

Status read_config(Value root, TokenizerConfigFile& config) {
  const auto on_added = [&](std::string_view key, Value value) -> Status {
    const std::string name = fmt::format("added_tokens_decoder['{}']", key.substr(0, 30));
    int64_t id = 0;
    const bool is_number = !key.empty() && key.size() <= 9 &&
                           key.find_first_not_of("0123456789") == std::string_view::npos;
    if (!is_number) return json::wrong(name, "keyed by an id");
    for (const char digit : key) id = 10 * id + (digit - '0');
    HS_ASSIGN_OR_RETURN(auto text, read_named_token(value, name));
    if (!text) return fail(fmt::format("{}.content is missing", name));
    config.added_tokens.push_back({id, std::move(*text)});
    return {};
  };
  return json::each_field(root, "the file", [&](std::string_view key, Value value) -> Status {
    if (key == "bos_token") {
      HS_ASSIGN_OR_RETURN(config.bos_token, read_named_token(value, key));
    } else if (key == "eos_token") {
      HS_ASSIGN_OR_RETURN(config.eos_token, read_named_token(value, key));
    } else if (key == "pad_token") {
      HS_ASSIGN_OR_RETURN(config.pad_token, read_named_token(value, key));
    } else if (key == "add_bos_token" || key == "add_eos_token" || key == "add_prefix_space") {
      return expect_off(value, key);
    } else if (key == "added_tokens_decoder") {
      return json::each_field(value, key, on_added, false);
    }
    return {};
  });
}

}  // namespace

Result<TokenizerFile> read_tokenizer_file(const std::string& path) {
  HS_ASSIGN_OR_RETURN(auto text, read_file(path));
  return parse(std::move(text), path);
}

Result<TokenizerFile> parse_tokenizer_file(std::string_view json, std::string_view name) {
  if (json.size() > TokenizerFile::kMaxBytes) {
    return fail(
        fmt::format("{}: {} bytes, the limit is {}", name, json.size(), TokenizerFile::kMaxBytes));
  }
  return parse(simdjson::padded_string(json), name);
}

Result<TokenizerConfigFile> read_tokenizer_config_file(const std::string& path) {
  HS_ASSIGN_OR_RETURN(const auto text, read_file(path));
  TokenizerConfigFile config;
  simdjson::ondemand::parser parser;
  simdjson::ondemand::document document;
  Value root;
  auto code = parser.iterate(text).get(document);
  if (code == simdjson::SUCCESS) code = document.get_value().get(root);
  if (code != simdjson::SUCCESS) {
    return fail(fmt::format("{}: not a JSON object: {}", path, simdjson::error_message(code)));
  }
  if (const Status status = read_config(root, config); !status) {
    return fail(Error{status.error().kind, fmt::format("{}: {}", path, status.error().message)});
  }
  return config;
}

}  // namespace hotset
