// SPDX-License-Identifier: Apache-2.0
// Filters that make strings: |trim, |upper, |join, |tojson, |indent … Input that is not a string is
// printed first, as Jinja does it.
#include <fmt/format.h>

#include "chat/jinja/builtins.h"
#include "chat/jinja/print.h"
#include "chat/jinja/text_ops.h"

namespace hotset::jinja {
namespace {

template <Case kTo>
Result<Value> case_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  HS_ASSIGN_OR_RETURN(const Text text, to_text(input, budget));
  return Value(change_case(text, kTo, budget));
}

// Jinja's |title starts words after white space and opening brackets only ("it's" -> "It's").
Result<Value> title_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  HS_ASSIGN_OR_RETURN(const Text text, to_text(input, budget));
  TextBuilder out(&budget);
  const std::string_view bytes = text.view();
  const auto separates = [&](size_t at) {
    const char32_t c = decode_char(bytes, at);
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  for (size_t at = 0; at < bytes.size() && !budget.exceeded();) {
    size_t end = at;
    const bool word = !separates(at);
    while (end < bytes.size() && separates(end) != word) end += utf8_length(bytes[end]);
    const Text piece = text.slice(at, end, &budget);
    out.append(word ? change_case(piece, Case::kCapitalized, budget) : piece);
    at = end;
  }
  return Value(out.take());
}

Result<Value> trim_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"chars"}));
  HS_ASSIGN_OR_RETURN(const Text text, to_text(input, budget));
  std::optional<Text> chars;
  if (bound[0] != nullptr && !bound[0]->is<None>()) {
    HS_ASSIGN_OR_RETURN(chars, text_argument(bound[0], "chars"));
  }
  return Value(strip(text, chars, Side::kBoth, budget));
}

Result<Value> string_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  HS_ASSIGN_OR_RETURN(const Text text, to_text(input, budget));
  return Value(text);
}

// There is no autoescaping in chat templates, so nothing needs to be marked safe.
Result<Value> safe_filter(const Value& input, const Arguments& args, Budget& budget) {
  return string_filter(input, args, budget);
}

Result<Value> escape_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  HS_ASSIGN_OR_RETURN(Text text, to_text(input, budget));
  static constexpr std::pair<std::string_view, std::string_view> kEntities[] = {
      {"&", "&amp;"}, {">", "&gt;"}, {"<", "&lt;"}, {"'", "&#39;"}, {"\"", "&#34;"}};
  for (const auto& [plain, entity] : kEntities) {
    text = replace(text, Text::trusted(plain), Text::trusted(entity), -1, budget);
  }
  return Value(text);
}

Result<Value> replace_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"old", "new", "count"}));
  if (bound[0] == nullptr || bound[1] == nullptr) return fail("replace needs 'old' and 'new'");
  HS_ASSIGN_OR_RETURN(const Text text, to_text(input, budget));
  HS_ASSIGN_OR_RETURN(const Text from, to_text(*bound[0], budget));
  HS_ASSIGN_OR_RETURN(const Text to, to_text(*bound[1], budget));
  HS_ASSIGN_OR_RETURN(const int64_t count, int_argument(bound[2], "count", -1));
  return Value(replace(text, from, to, count, budget));
}

Result<Value> join_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"d", "attribute"}));
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(input, budget));
  Text separator;
  if (bound[0] != nullptr) {
    HS_ASSIGN_OR_RETURN(separator, to_text(*bound[0], budget));
  }
  std::vector<Value> items = list->items;
  if (bound[1] != nullptr && !bound[1]->is<None>()) {
    HS_ASSIGN_OR_RETURN(const Text path, to_text(*bound[1], budget));
    for (Value& item : items) {
      HS_ASSIGN_OR_RETURN(item, get_path(item, path.view(), budget));
    }
  }
  HS_ASSIGN_OR_RETURN(const Text text, joined(items, separator, budget));
  return Value(text);
}

Result<Value> tojson_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound,
                      bind(args, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ensure_ascii = bool_argument(bound[0], false);
  style.sort_keys = bool_argument(bound[3], false);
  if (bound[1] != nullptr && !bound[1]->is<None>()) {
    HS_ASSIGN_OR_RETURN(const int64_t indent, int_argument(bound[1], "indent", 0));
    if (indent < 0 || indent > 64) return fail("tojson: indent is outside of 0…64");
    style.indent = static_cast<int>(indent);
    style.item_separator = ",";
  }
  if (bound[2] != nullptr && !bound[2]->is<None>()) {
    const auto* pair = bound[2]->get<ListRef>();
    if (pair == nullptr || (*pair)->items.size() != 2) {
      return fail("tojson: separators must be a pair of strings");
    }
    HS_ASSIGN_OR_RETURN(const Text item, text_argument(&(*pair)->items[0], "separators"));
    HS_ASSIGN_OR_RETURN(const Text key, text_argument(&(*pair)->items[1], "separators"));
    style.item_separator = item.view();
    style.key_separator = key.view();
  }
  HS_ASSIGN_OR_RETURN(const Text text, to_json(input, style, budget));
  return Value(text);
}

Result<Value> indent_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"width", "first", "blank"}));
  HS_ASSIGN_OR_RETURN(const Text text, to_text(input, budget));
  Text pad;
  if (bound[0] != nullptr && bound[0]->is<Text>()) {
    pad = *bound[0]->get<Text>();
  } else {
    HS_ASSIGN_OR_RETURN(const int64_t width, int_argument(bound[0], "width", 4));
    if (width < 0 || width > 1000) return fail("indent: width is outside of 0…1000");
    pad = Text::trusted(std::string(static_cast<size_t>(width), ' '), &budget);
  }
  const bool first = bool_argument(bound[1], false);
  const bool blank = bool_argument(bound[2], false);
  HS_ASSIGN_OR_RETURN(const auto lines, split(text, Text::trusted("\n"), -1, false, budget));
  TextBuilder out(&budget);
  for (size_t i = 0; i < lines.size() && !budget.exceeded(); ++i) {
    const Text& line = *lines[i].get<Text>();
    if (i > 0) out.append("\n", false);
    if (i == 0 ? first : blank || !line.empty()) out.append(pad);
    out.append(line);
  }
  return Value(out.take());
}

Result<Value> format_filter(const Value& input, const Arguments& args, Budget& budget) {
  if (!args.named.empty()) return fail("format takes no named arguments here");
  HS_ASSIGN_OR_RETURN(const Text format, to_text(input, budget));
  HS_ASSIGN_OR_RETURN(const Text text, percent_format(format, args.positional, budget));
  return Value(text);
}

Result<Value> wordcount_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  HS_ASSIGN_OR_RETURN(const Text text, to_text(input, budget));
  Int words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.num_bytes(); at += utf8_length(text.view()[at])) {
    const char32_t c = decode_char(text.view(), at);
    const bool word =
        c == '_' || (c < 0x80 ? (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
                              : !is_space(c));
    words += word && !inside ? 1 : 0;
    inside = word;
  }
  return Value(words);
}

constexpr FilterRow kFilters[] = {
    {"tojson", tojson_filter},
    {"trim", trim_filter},
    {"string", string_filter},
    {"safe", safe_filter},
    {"join", join_filter},
    {"replace", replace_filter},
    {"upper", case_filter<Case::kUpper>},
    {"lower", case_filter<Case::kLower>},
    {"capitalize", case_filter<Case::kCapitalized>},
    {"title", title_filter},
    {"indent", indent_filter},
    {"escape", escape_filter},
    {"e", escape_filter},
    {"format", format_filter},
    {"wordcount", wordcount_filter},
};

}  // namespace

std::span<const FilterRow> text_filters() {
  return kFilters;
}

}  // namespace hotset::jinja
