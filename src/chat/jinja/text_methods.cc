// SPDX-License-Identifier: Apache-2.0
// Methods of strings. Positions count characters, as in Python.
#include <fmt/format.h>

#include <algorithm>

#include "chat/jinja/builtins.h"
#include "chat/jinja/print.h"
#include "chat/jinja/text_ops.h"

namespace hotset::jinja {
namespace {

const Text& self(const Value& input) {
  return *input.get<Text>();
}

template <Side kSide>
Result<Value> strip_method(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"chars"}));
  std::optional<Text> chars;
  if (bound[0] != nullptr && !bound[0]->is<None>()) {
    HS_ASSIGN_OR_RETURN(chars, text_argument(bound[0], "chars"));
  }
  return Value(strip(self(input), chars, kSide, budget));
}

template <bool kFromRight>
Result<Value> split_method(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"sep", "maxsplit"}));
  std::optional<Text> separator;
  if (bound[0] != nullptr && !bound[0]->is<None>()) {
    HS_ASSIGN_OR_RETURN(separator, text_argument(bound[0], "sep"));
  }
  HS_ASSIGN_OR_RETURN(const int64_t max_splits, int_argument(bound[1], "maxsplit", -1));
  HS_ASSIGN_OR_RETURN(auto pieces, split(self(input), separator, max_splits, kFromRight, budget));
  return make_list(std::move(pieces), false, &budget);
}

Result<Value> splitlines_method(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"keepends"}));
  return make_list(split_lines(self(input), bool_argument(bound[0], false), budget), false,
                   &budget);
}

template <bool kEnd>
bool affix_matches(std::string_view text, std::string_view affix) {
  return kEnd ? text.ends_with(affix) : text.starts_with(affix);
}

// The argument is a string, or a tuple of which one has to match.
template <bool kEnd>
Result<Value> affix_method(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"affix"}));
  const std::string_view text = self(input).view();
  const auto* list = bound[0] != nullptr ? bound[0]->get<ListRef>() : nullptr;
  if (list == nullptr || !(*list)->is_tuple) {
    HS_ASSIGN_OR_RETURN(const Text affix, text_argument(bound[0], "affix"));
    return Value(affix_matches<kEnd>(text, affix.view()));
  }
  for (const Value& item : (*list)->items) {
    budget.spend(1);
    HS_ASSIGN_OR_RETURN(const Text affix, text_argument(&item, "affix"));
    if (affix_matches<kEnd>(text, affix.view())) return Value(true);
  }
  return Value(false);
}

template <bool kEnd>
Result<Value> remove_affix_method(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"affix"}));
  HS_ASSIGN_OR_RETURN(const Text affix, text_argument(bound[0], "affix"));
  const Text& text = self(input);
  if (!affix_matches<kEnd>(text.view(), affix.view())) return input;
  const size_t cut = affix.num_bytes();
  return Value(kEnd ? text.slice(0, text.num_bytes() - cut, &budget)
                    : text.slice(cut, text.num_bytes(), &budget));
}

Result<Value> replace_method(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"old", "new", "count"}));
  HS_ASSIGN_OR_RETURN(const Text from, text_argument(bound[0], "old"));
  HS_ASSIGN_OR_RETURN(const Text to, text_argument(bound[1], "new"));
  HS_ASSIGN_OR_RETURN(const int64_t count, int_argument(bound[2], "count", -1));
  return Value(replace(self(input), from, to, count, budget));
}

template <Case kTo>
Result<Value> case_method(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  return Value(change_case(self(input), kTo, budget));
}

// Byte offset of a character position that may be negative, as slices count.
size_t offset_of(const Text& text, int64_t position) {
  const auto length = static_cast<int64_t>(text.num_chars());
  if (position < 0) position = std::max<int64_t>(0, position + length);
  return text.byte_of_char(static_cast<size_t>(position));
}

template <bool kFromRight, bool kFails>
Result<Value> find_method_of_text(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"sub", "start", "end"}));
  HS_ASSIGN_OR_RETURN(const Text part, text_argument(bound[0], "sub"));
  const Text& text = self(input);
  HS_ASSIGN_OR_RETURN(const int64_t from, int_argument(bound[1], "start", 0));
  HS_ASSIGN_OR_RETURN(const int64_t to,
                      int_argument(bound[2], "end", static_cast<int64_t>(text.num_chars())));
  const size_t begin = offset_of(text, from);
  const size_t end = offset_of(text, to);
  size_t at = std::string_view::npos;
  if (from <= static_cast<int64_t>(text.num_chars()) && begin <= end) {
    const std::string_view window = text.view().substr(0, end);
    budget.spend(1 + window.size() / 32);
    if (kFromRight) {
      budget.spend(window.size() * part.num_bytes() / 256);
      if (!budget.exceeded()) at = window.rfind(part.view());
      if (at != std::string_view::npos && at < begin) at = std::string_view::npos;
    } else {
      at = find_bytes(window, part.view(), begin);
    }
  }
  if (at != std::string_view::npos) return Value(static_cast<Int>(text.char_of_byte(at)));
  if (kFails) return fail("substring not found");
  return Value(Int{-1});
}

Result<Value> count_method(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"sub"}));
  HS_ASSIGN_OR_RETURN(const Text part, text_argument(bound[0], "sub"));
  const Text& text = self(input);
  if (part.empty()) return Value(static_cast<Int>(text.num_chars() + 1));
  budget.spend(text.num_bytes() / 32);
  Int n = 0;
  for (size_t at = 0;; ++n) {
    budget.spend(1);
    at = find_bytes(text.view(), part.view(), at);
    if (at == std::string_view::npos || budget.exceeded()) return Value(n);
    at += part.num_bytes();
  }
}

Result<Value> join_method(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"iterable"}));
  if (bound[0] == nullptr) return fail("join expected 1 argument");
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(*bound[0], budget));
  for (const Value& item : list->items) {
    if (!item.is<Text>()) {
      return fail(fmt::format("join: expected str instances, {} found", type_name(item)));
    }
  }
  HS_ASSIGN_OR_RETURN(const Text text, joined(list->items, self(input), budget));
  return Value(text);
}

using CharTest = bool (*)(char32_t);

// isdigit and its siblings: not empty, and every character of the class. ASCII classes; letters
// beyond ASCII count as letters.
template <CharTest kIn>
Result<Value> all_method(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  const Text& text = self(input);
  budget.spend(text.num_bytes() / 8);
  for (size_t at = 0; at < text.num_bytes(); at += utf8_length(text.view()[at])) {
    if (!kIn(decode_char(text.view(), at))) return Value(false);
  }
  return Value(!text.empty());
}

bool is_digit(char32_t c) {
  return c >= '0' && c <= '9';
}
bool is_alpha(char32_t c) {
  return c >= 0x80 ? !is_space(c) : (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}
bool is_alnum(char32_t c) {
  return is_digit(c) || is_alpha(c);
}

template <Case kCase>
Result<Value> is_case_method(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  const Text& text = self(input);
  constexpr Case kOther = kCase == Case::kLower ? Case::kUpper : Case::kLower;
  return Value(change_case(text, kCase, budget).view() == text.view() &&
               change_case(text, kOther, budget).view() != text.view());
}

// "…{}…{0}…".format(values): plain replacement fields only.
Result<Value> format_method(const Value& input, const Arguments& args, Budget& budget) {
  TextBuilder out(&budget);
  const Text& text = self(input);
  const std::string_view bytes = text.view();
  size_t next = 0;
  for (size_t at = 0; at < bytes.size() && !budget.exceeded();) {
    budget.spend(1);
    const size_t brace = std::min(bytes.find_first_of("{}", at), bytes.size());
    out.append(text, at, brace);
    if (brace >= bytes.size()) break;
    at = brace + 1;
    if (at < bytes.size() && bytes[at] == bytes[brace]) {
      out.append(text, at, at + 1);
      ++at;
      continue;
    }
    const size_t close = bytes.find('}', brace);
    if (bytes[brace] == '}' || close == std::string_view::npos) {
      return fail("format: single brace in the format string");
    }
    const std::string_view field = bytes.substr(at, close - at);
    const Value* value = nullptr;
    for (const auto& [name, item] : args.named) {
      if (name == field) value = &item;
    }
    const bool number = field.size() == 1 && field[0] >= '0' && field[0] <= '9';
    const size_t index = number          ? static_cast<size_t>(field[0] - '0')
                         : field.empty() ? next++
                                         : SIZE_MAX;
    if (value == nullptr && index < args.positional.size()) value = &args.positional[index];
    if (value == nullptr) return fail(fmt::format("format: no value for field '{{{}}}'", field));
    HS_ASSIGN_OR_RETURN(const Text piece, to_text(*value, budget));
    out.append(piece);
    at = close + 1;
  }
  return Value(out.take());
}

constexpr FilterRow kMethods[] = {
    {"strip", strip_method<Side::kBoth>},
    {"lstrip", strip_method<Side::kLeft>},
    {"rstrip", strip_method<Side::kRight>},
    {"split", split_method<false>},
    {"rsplit", split_method<true>},
    {"splitlines", splitlines_method},
    {"startswith", affix_method<false>},
    {"endswith", affix_method<true>},
    {"removeprefix", remove_affix_method<false>},
    {"removesuffix", remove_affix_method<true>},
    {"replace", replace_method},
    {"upper", case_method<Case::kUpper>},
    {"lower", case_method<Case::kLower>},
    {"capitalize", case_method<Case::kCapitalized>},
    {"title", case_method<Case::kTitle>},
    {"find", find_method_of_text<false, false>},
    {"rfind", find_method_of_text<true, false>},
    {"index", find_method_of_text<false, true>},
    {"rindex", find_method_of_text<true, true>},
    {"count", count_method},
    {"join", join_method},
    {"format", format_method},
    {"isdigit", all_method<is_digit>},
    {"isalpha", all_method<is_alpha>},
    {"isalnum", all_method<is_alnum>},
    {"isspace", all_method<is_space>},
    {"islower", is_case_method<Case::kLower>},
    {"isupper", is_case_method<Case::kUpper>},
};

}  // namespace

std::span<const FilterRow> text_methods() {
  return kMethods;
}

}  // namespace hotset::jinja
