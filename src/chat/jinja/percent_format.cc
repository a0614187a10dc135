// SPDX-License-Identifier: Apache-2.0
// Python's "%" formatting, as far as templates use it: positional values, no mapping keys.
#include <fmt/format.h>

#include <algorithm>

#include "chat/jinja/print.h"
#include "chat/jinja/text_ops.h"

namespace hotset::jinja {
namespace {

constexpr size_t kMaxWidth = 1000;

struct Directive {
  bool left = false;
  bool zero = false;
  bool plus = false;
  size_t width = 0;
  int precision = -1;
  char kind = 's';
};

Result<Directive> parse_directive(std::string_view format, size_t& at) {
  Directive out;
  for (; at < format.size(); ++at) {
    const char c = format[at];
    if (c == '-') {
      out.left = true;
    } else if (c == '0') {
      out.zero = true;
    } else if (c == '+') {
      out.plus = true;
    } else {
      break;
    }
  }
  const auto number = [&] {
    size_t n = 0;
    for (; at < format.size() && format[at] >= '0' && format[at] <= '9'; ++at) {
      n = std::min(n * 10 + static_cast<size_t>(format[at] - '0'), kMaxWidth + 1);
    }
    return n;
  };
  out.width = number();
  if (at < format.size() && format[at] == '.') {
    ++at;
    out.precision = static_cast<int>(number());
  }
  if (at >= format.size()) return fail("incomplete format");
  out.kind = format[at++];
  if (out.width > kMaxWidth || out.precision > static_cast<int>(kMaxWidth)) {
    return fail("format width is too large");
  }
  return out;
}

Result<std::string> format_number(const Directive& how, const Value& value) {
  if (!value.is_number()) {
    return fail(
        fmt::format("%{} format: a number is required, not {}", how.kind, type_name(value)));
  }
  const int precision = how.precision < 0 ? 6 : how.precision;
  switch (how.kind) {
    case 'f':
      return fmt::format("{:.{}f}", as_double(value), precision);
    case 'e':
      return fmt::format("{:.{}e}", as_double(value), precision);
    case 'g':
      return fmt::format("{:.{}g}", as_double(value), std::max(precision, 1));
    default:
      break;
  }
  const auto* n = value.get<Int>();
  const double whole = as_double(value);
  if (n == nullptr && !(whole > -1e18 && whole < 1e18)) return fail("number is out of range");
  const Int integer = n != nullptr ? *n : static_cast<Int>(whole);
  if (how.kind == 'x') return fmt::format("{:x}", integer);
  return int_to_string(integer);
}

Result<Text> format_one(const Directive& how, const Value& value, Budget& budget) {
  Text body;
  switch (how.kind) {
    case 's':
    case 'r': {
      HS_ASSIGN_OR_RETURN(body, how.kind == 's' ? to_text(value, budget) : to_repr(value, budget));
      if (how.precision >= 0) {
        body = body.slice(0, body.byte_of_char(static_cast<size_t>(how.precision)), &budget);
      }
      break;
    }
    case 'd':
    case 'i':
    case 'x':
    case 'f':
    case 'e':
    case 'g': {
      HS_ASSIGN_OR_RETURN(std::string digits, format_number(how, value));
      if (how.plus && digits[0] != '-') digits.insert(0, "+");
      const bool sign = digits[0] == '-' || digits[0] == '+';
      if (how.zero && !how.left && digits.size() < how.width) {
        digits.insert(sign ? 1 : 0, how.width - digits.size(), '0');
      }
      body = Text::trusted(digits, &budget);
      break;
    }
    default:
      return fail(fmt::format("unsupported format character '{}'", how.kind));
  }
  const size_t chars = body.num_chars();
  if (chars >= how.width) return body;
  TextBuilder out(&budget);
  const std::string padding(how.width - chars, ' ');
  if (!how.left) out.append(padding, false);
  out.append(body);
  if (how.left) out.append(padding, false);
  return out.take();
}

}  // namespace

Result<Text> percent_format(const Text& format, const std::vector<Value>& values, Budget& budget) {
  TextBuilder out(&budget);
  const std::string_view bytes = format.view();
  size_t used = 0;
  for (size_t at = 0; at < bytes.size() && !budget.exceeded();) {
    const size_t percent = std::min(bytes.find('%', at), bytes.size());
    out.append(format, at, percent);
    at = percent + 1;
    if (percent >= bytes.size()) break;
    if (at < bytes.size() && bytes[at] == '%') {
      out.append(format, at, at + 1);
      ++at;
      continue;
    }
    HS_ASSIGN_OR_RETURN(const Directive how, parse_directive(bytes, at));
    if (used >= values.size()) return fail("not enough arguments for format string");
    HS_ASSIGN_OR_RETURN(const Text piece, format_one(how, values[used++], budget));
    out.append(piece);
  }
  if (used < values.size()) return fail("not all arguments converted during string formatting");
  return out.take();
}

}  // namespace hotset::jinja
