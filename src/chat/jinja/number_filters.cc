// SPDX-License-Identifier: Apache-2.0
// Filters about numbers and defaults: |int, |float, |abs, |round, |default.
#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "chat/jinja/builtins.h"
#include "chat/jinja/print.h"
#include "chat/jinja/text_ops.h"

namespace hotset::jinja {
namespace {

// Python's float(): surrounding white space, underscores between digits, inf and nan.
std::optional<double> parse_float(std::string digits) {
  if (!digits.empty() && digits[0] == '+') digits.erase(0, 1);
  std::erase(digits, '_');
  double out = 0;
  const char* end = digits.data() + digits.size();
  const auto parsed = std::from_chars(digits.data(), end, out);
  if (digits.empty() || parsed.ptr != end) return std::nullopt;
  if (parsed.ec == std::errc::result_out_of_range) {
    return std::signbit(out) ? -HUGE_VAL : HUGE_VAL;
  }
  return parsed.ec == std::errc() ? std::optional(out) : std::nullopt;
}

std::optional<Int> parse_int(std::string digits, int base) {
  bool negative = false;
  if (!digits.empty() && (digits[0] == '+' || digits[0] == '-')) {
    negative = digits[0] == '-';
    digits.erase(0, 1);
  }
  if (digits.size() > 2 && digits[0] == '0' &&
      ((base == 16 && (digits[1] | 0x20) == 'x') || (base == 8 && (digits[1] | 0x20) == 'o') ||
       (base == 2 && (digits[1] | 0x20) == 'b'))) {
    digits.erase(0, 2);
  }
  std::erase(digits, '_');
  uint64_t out = 0;
  const char* end = digits.data() + digits.size();
  const auto parsed = std::from_chars(digits.data(), end, out, base);
  if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return negative ? -static_cast<Int>(out) : static_cast<Int>(out);
}

std::optional<Int> whole(double d) {
  if (!(d > -1e30 && d < 1e30)) return std::nullopt;
  return static_cast<Int>(d);
}

std::string stripped(const Text& text, Budget& budget) {
  return std::string(strip(text, {}, Side::kBoth, budget).view());
}

Result<Value> int_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"default", "base"}));
  HS_ASSIGN_OR_RETURN(const int64_t base, int_argument(bound[1], "base", 10));
  if (base < 2 || base > 36) return fail("int: base is outside of 2…36");
  if (input.is<Undefined>()) return fail_undefined(input);
  std::optional<Int> out;
  if (const auto* text = input.get<Text>()) {
    const std::string digits = stripped(*text, budget);
    out = parse_int(digits, static_cast<int>(base));
    if (!out) {
      const auto number = parse_float(digits);
      if (number) out = whole(*number);
    }
  } else if (const auto* d = input.get<double>()) {
    out = whole(*d);
  } else if (const auto* n = input.get<Int>()) {
    out = *n;
  } else if (const auto* b = input.get<bool>()) {
    out = *b ? 1 : 0;
  }
  if (out) return Value(*out);
  return bound[0] != nullptr ? *bound[0] : Value(Int{0});
}

Result<Value> float_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"default"}));
  if (input.is<Undefined>()) return fail_undefined(input);
  if (input.is_number()) return Value(as_double(input));
  if (const auto* text = input.get<Text>()) {
    if (const auto number = parse_float(stripped(*text, budget))) return Value(*number);
  }
  return bound[0] != nullptr ? *bound[0] : Value(0.0);
}

Result<Value> abs_filter(const Value& input, const Arguments& args, Budget&) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  if (input.is<Undefined>()) return fail_undefined(input);
  if (const auto* d = input.get<double>()) return Value(std::fabs(*d));
  if (const auto* n = input.get<Int>()) return Value(*n < 0 ? -*n : *n);
  if (const auto* b = input.get<bool>()) return Value(Int{*b ? 1 : 0});
  return fail(fmt::format("abs of a {}", type_name(input)));
}

// Half to even on the decimal expansion, as Python's round().
double round_common(double d, int precision) {
  if (precision >= 0) {
    const std::string digits = fmt::format("{:.{}f}", d, precision);
    return parse_float(digits).value_or(d);
  }
  const double scale = std::pow(10.0, -precision);
  return std::nearbyint(d / scale) * scale;
}

Result<Value> round_filter(const Value& input, const Arguments& args, Budget&) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"precision", "method"}));
  HS_ASSIGN_OR_RETURN(const int64_t precision, int_argument(bound[0], "precision", 0));
  if (precision < -300 || precision > 300) return fail("round: precision is outside of ±300");
  if (input.is<Undefined>()) return fail_undefined(input);
  if (!input.is_number()) return fail(fmt::format("round of a {}", type_name(input)));
  std::string method = "common";
  if (bound[1] != nullptr) {
    HS_ASSIGN_OR_RETURN(const Text name, text_argument(bound[1], "method"));
    method = name.view();
  }
  const double d = as_double(input);
  if (method == "common") {
    // round() of an integer stays one.
    if (!input.is<double>() && precision >= 0) {
      return Value(input.is<bool>() ? Int{*input.get<bool>()} : *input.get<Int>());
    }
    return Value(round_common(d, static_cast<int>(precision)));
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value(std::ceil(d * scale) / scale);
  if (method == "floor") return Value(std::floor(d * scale) / scale);
  return fail("round: method must be common, ceil or floor");
}

Result<Value> default_filter(const Value& input, const Arguments& args, Budget&) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"default_value", "boolean"}));
  const bool missing = input.is<Undefined>() || (bool_argument(bound[1], false) && !truth(input));
  if (!missing) return input;
  return bound[0] != nullptr ? *bound[0] : Value(Text());
}

constexpr FilterRow kFilters[] = {
    {"int", int_filter},     {"float", float_filter},     {"abs", abs_filter},
    {"round", round_filter}, {"default", default_filter}, {"d", default_filter},
};

}  // namespace

std::span<const FilterRow> number_filters() {
  return kFilters;
}

}  // namespace hotset::jinja
