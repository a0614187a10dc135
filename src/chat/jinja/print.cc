// SPDX-License-Identifier: Apache-2.0
// Printing walks values at most kMaxValueDepth deep. A list that holds one big list many times can
// print exponentially more than it occupies, so each visited element costs a step.
#include "chat/jinja/print.h"

#include <fmt/format.h>
#include <unicode/uchar.h>

#include <algorithm>
#include <cmath>

namespace hotset::jinja {
namespace {

bool is_printable(char32_t c) {
  if (c < 0x7f) return c >= 0x20;
  switch (u_charType(static_cast<UChar32>(c))) {
    case U_CONTROL_CHAR:
    case U_FORMAT_CHAR:
    case U_SURROGATE:
    case U_PRIVATE_USE_CHAR:
    case U_UNASSIGNED:
    case U_LINE_SEPARATOR:
    case U_PARAGRAPH_SEPARATOR:
    case U_SPACE_SEPARATOR:
      return false;
    default:
      return true;
  }
}

void append_repr_char(std::string& out, std::string_view raw, char32_t c, char quote) {
  if (c == static_cast<unsigned char>(quote) || c == '\\') {
    out += '\\';
    out += raw;
  } else if (c == '\n') {
    out += "\\n";
  } else if (c == '\r') {
    out += "\\r";
  } else if (c == '\t') {
    out += "\\t";
  } else if (is_printable(c)) {
    out += raw;
  } else {
    const auto code = static_cast<uint32_t>(c);
    out += code < 0x100     ? fmt::format("\\x{:02x}", code)
           : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                            : fmt::format("\\U{:08x}", code);
  }
}

std::string quote_repr(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text[at]);
    append_repr_char(out, text.substr(at, length), decode_char(text, at), quote);
    at += length;
  }
  return out + quote;
}

void append_json_char(std::string& out, std::string_view raw, char32_t c, bool ensure_ascii) {
  const auto code = static_cast<uint32_t>(c);
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    case '\f':
      out += "\\f";
      return;
    case '\b':
      out += "\\b";
      return;
    default:
      break;
  }
  if (code < 0x20) {
    out += fmt::format("\\u{:04x}", code);
  } else if (!ensure_ascii || code < 0x80) {
    out += raw;
  } else if (code < 0x10000) {
    out += fmt::format("\\u{:04x}", code);
  } else {
    const uint32_t rest = code - 0x10000;
    out += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
  }
}

std::string quote_json(std::string_view text, bool ensure_ascii) {
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text[at]);
    append_json_char(out, text.substr(at, length), decode_char(text, at), ensure_ascii);
    at += length;
  }
  return out + '"';
}

class Printer {
 public:
  explicit Printer(Budget& budget) : budget_(budget), out_(&budget) {}
  Status repr(const Value& value);
  Status json(const Value& value, const JsonStyle& style, int level);
  Text take() { return out_.take(); }
  Text take_json() {
    out_.mark_all_untrusted();
    return out_.take();
  }

 private:
  void put(std::string_view bytes, bool untrusted = false) { out_.append(bytes, untrusted); }
  Status repr_list(const List& list);
  Status repr_dict(const Dict& dict);
  Status json_list(const List& list, const JsonStyle& style, int level);
  Status json_dict(const Dict& dict, const JsonStyle& style, int level);
  Status json_key(const Value& key, const JsonStyle& style);
  void json_break(const JsonStyle& style, int level) {
    if (style.indent) put("\n" + std::string(static_cast<size_t>(*style.indent * level), ' '));
  }

  Budget& budget_;
  TextBuilder out_;
};

Status Printer::repr(const Value& value) {
  budget_.spend(1);
  if (budget_.exceeded()) return {};
  if (const auto* text = value.get<Text>()) {
    put(quote_repr(text->view()), text->any_untrusted());
  } else if (const auto* list = value.get<ListRef>()) {
    return repr_list(**list);
  } else if (const auto* dict = value.get<DictRef>()) {
    return repr_dict(**dict);
  } else if (const auto* b = value.get<bool>()) {
    put(*b ? "True" : "False");
  } else if (const auto* n = value.get<Int>()) {
    put(int_to_string(*n));
  } else if (const auto* d = value.get<double>()) {
    put(float_to_string(*d));
  } else if (value.is<None>()) {
    put("None");
  } else if (value.is<Undefined>()) {
    put("Undefined");
  } else {
    return fail(fmt::format("a {} cannot be printed", type_name(value)));
  }
  return {};
}

Status Printer::repr_list(const List& list) {
  put(list.is_tuple ? "(" : "[");
  for (size_t i = 0; i < list.items.size() && !budget_.exceeded(); ++i) {
    if (i > 0) put(", ");
    HS_RETURN_IF_ERROR(repr(list.items[i]));
  }
  put(!list.is_tuple ? "]" : list.items.size() == 1 ? ",)" : ")");
  return {};
}

Status Printer::repr_dict(const Dict& dict) {
  put("{");
  for (size_t i = 0; i < dict.entries.size() && !budget_.exceeded(); ++i) {
    if (i > 0) put(", ");
    HS_RETURN_IF_ERROR(repr(dict.entries[i].first));
    put(": ");
    HS_RETURN_IF_ERROR(repr(dict.entries[i].second));
  }
  put("}");
  return {};
}

std::string json_float(double d) {
  if (std::isnan(d)) return "NaN";
  if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
  return float_to_string(d);
}

Status Printer::json(const Value& value, const JsonStyle& style, int level) {
  budget_.spend(1);
  if (budget_.exceeded()) return {};
  if (const auto* text = value.get<Text>()) {
    put(quote_json(text->view(), style.ensure_ascii), text->any_untrusted());
  } else if (const auto* list = value.get<ListRef>()) {
    return json_list(**list, style, level);
  } else if (const auto* dict = value.get<DictRef>()) {
    return json_dict(**dict, style, level);
  } else if (const auto* b = value.get<bool>()) {
    put(*b ? "true" : "false");
  } else if (const auto* n = value.get<Int>()) {
    put(int_to_string(*n));
  } else if (const auto* d = value.get<double>()) {
    put(json_float(*d));
  } else if (value.is<None>()) {
    put("null");
  } else {
    return fail(fmt::format("object of type {} is not JSON serializable", type_name(value)));
  }
  return {};
}

Status Printer::json_list(const List& list, const JsonStyle& style, int level) {
  if (list.items.empty()) return put("[]"), Status{};
  put("[");
  for (size_t i = 0; i < list.items.size() && !budget_.exceeded(); ++i) {
    if (i > 0) put(style.item_separator);
    json_break(style, level + 1);
    HS_RETURN_IF_ERROR(json(list.items[i], style, level + 1));
  }
  json_break(style, level);
  put("]");
  return {};
}

Status Printer::json_key(const Value& key, const JsonStyle& style) {
  if (const auto* text = key.get<Text>()) {
    put(quote_json(text->view(), style.ensure_ascii), text->any_untrusted());
    return {};
  }
  put("\"");
  HS_RETURN_IF_ERROR(json(key, style, 0));
  put("\"");
  return {};
}

Status Printer::json_dict(const Dict& dict, const JsonStyle& style, int level) {
  if (dict.entries.empty()) return put("{}"), Status{};
  std::vector<const std::pair<Value, Value>*> entries;
  for (const auto& entry : dict.entries) entries.push_back(&entry);
  if (style.sort_keys) {
    const auto name = [](const auto* entry) {
      const auto* text = entry->first.template get<Text>();
      return text != nullptr ? text->view() : std::string_view();
    };
    std::stable_sort(entries.begin(), entries.end(),
                     [&](const auto* a, const auto* b) { return name(a) < name(b); });
  }
  put("{");
  for (size_t i = 0; i < entries.size() && !budget_.exceeded(); ++i) {
    if (i > 0) put(style.item_separator);
    json_break(style, level + 1);
    HS_RETURN_IF_ERROR(json_key(entries[i]->first, style));
    put(style.key_separator);
    HS_RETURN_IF_ERROR(json(entries[i]->second, style, level + 1));
  }
  json_break(style, level);
  put("}");
  return {};
}

}  // namespace

Result<Text> to_text(const Value& value, Budget& budget) {
  if (const auto* text = value.get<Text>()) return *text;
  if (value.is<Undefined>()) return Text();
  return to_repr(value, budget);
}

Result<Text> to_repr(const Value& value, Budget& budget) {
  Printer printer(budget);
  HS_RETURN_IF_ERROR(printer.repr(value));
  return printer.take();
}

Result<Text> to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  Printer printer(budget);
  HS_RETURN_IF_ERROR(printer.json(value, style, 0));
  return printer.take_json();
}

std::string int_to_string(Int n) {
  return fmt::format("{}", n);
}

std::string float_to_string(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  std::string digits = fmt::format("{}", d);
  if (digits.find_first_of(".e") == std::string::npos) digits += ".0";
  return digits;
}

}  // namespace hotset::jinja
