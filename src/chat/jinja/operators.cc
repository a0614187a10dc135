// SPDX-License-Identifier: Apache-2.0
// Integers are checked at ±2^100: an overflow is an error, not a wrapped number.
#include "chat/jinja/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "chat/jinja/builtins.h"
#include "chat/jinja/text_ops.h"

namespace hotset::jinja {
namespace {

constexpr Int kMaxInt = Int{1} << 100;

std::string_view spelling(Op op) {
  static constexpr std::string_view kSpellings[] = {
      "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kSpellings[static_cast<size_t>(op)];
}

tl::unexpected<Error> fail_types(Op op, const Value& a, const Value& b) {
  return fail(fmt::format("unsupported operand types for {}: '{}' and '{}'", spelling(op),
                          type_name(a), type_name(b)));
}

Result<Value> bounded(Int n) {
  if (n > kMaxInt || n < -kMaxInt) return fail("integer is out of range");
  return Value(n);
}

Int to_int(const Value& value) {
  return value.is<bool>() ? Int{*value.get<bool>() ? 1 : 0} : *value.get<Int>();
}

Result<Value> int_power(Int base, Int exponent) {
  Int out = 1;
  if (base == 0 || base == 1) return Value(exponent == 0 ? Int{1} : base);
  if (base == -1) return Value(exponent % 2 == 0 ? Int{1} : Int{-1});
  for (Int i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(out, base, &out)) return fail("integer is out of range");
  }
  return bounded(out);
}

Result<Value> int_math(Op op, Int a, Int b) {
  Int out = 0;
  switch (op) {
    case Op::kAdd:
      return bounded(a + b);
    case Op::kSub:
      return bounded(a - b);
    case Op::kMul:
      if (__builtin_mul_overflow(a, b, &out)) return fail("integer is out of range");
      return bounded(out);
    case Op::kPow:
      if (b >= 0) return int_power(a, b);
      if (a == 0) return fail("zero to a negative power");
      return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    default:
      break;
  }
  if (b == 0) return fail("division by zero");
  if (op == Op::kDiv) return Value(static_cast<double>(a) / static_cast<double>(b));
  const Int remainder = ((a % b) + b) % b;
  return Value(op == Op::kMod ? remainder : (a - remainder) / b);
}

Result<Value> float_math(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return Value(a + b);
    case Op::kSub:
      return Value(a - b);
    case Op::kMul:
      return Value(a * b);
    case Op::kPow: {
      const double out = std::pow(a, b);
      if (std::isnan(out) && !std::isnan(a) && !std::isnan(b)) return fail("power is not real");
      return Value(out);
    }
    default:
      break;
  }
  if (b == 0) return fail("division by zero");
  if (op == Op::kDiv) return Value(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  return Value(op == Op::kMod ? remainder : std::floor((a - remainder) / b + 0.5));
}

Result<Value> repeat_list(const List& list, Int times, Budget& budget) {
  std::vector<Value> out;
  if (times > 0 && !list.items.empty()) {
    if (times > Int{1} << 40 ||
        !budget.can_hold(list.items.size() * sizeof(Value) * static_cast<size_t>(times))) {
      return fail("a list this long is refused", ErrorKind::kResource);
    }
    budget.spend(list.items.size() * static_cast<size_t>(times) / 8);
    for (Int i = 0; i < times; ++i) out.insert(out.end(), list.items.begin(), list.items.end());
  }
  return make_list(std::move(out), list.is_tuple, &budget);
}

Result<Value> add_sequences(const Value& a, const Value& b, Budget& budget) {
  if (const auto* text = a.get<Text>()) {
    const auto* other = b.get<Text>();
    if (other == nullptr) {
      return fail(fmt::format("can only concatenate str (not \"{}\") to str", type_name(b)));
    }
    TextBuilder out(&budget);
    out.append(*text);
    out.append(*other);
    return Value(out.take());
  }
  const auto* x = a.get<ListRef>();
  const auto* y = b.get<ListRef>();
  if (x == nullptr || y == nullptr || (*x)->is_tuple != (*y)->is_tuple) {
    return fail_types(Op::kAdd, a, b);
  }
  std::vector<Value> items = (*x)->items;
  items.insert(items.end(), (*y)->items.begin(), (*y)->items.end());
  return make_list(std::move(items), (*x)->is_tuple, &budget);
}

Result<Value> multiply_sequence(const Value& sequence, const Value& times, Budget& budget) {
  if (!times.is<Int>() && !times.is<bool>()) return fail_types(Op::kMul, sequence, times);
  if (const auto* text = sequence.get<Text>()) {
    return Value(repeated(*text, to_int(times), budget));
  }
  return repeat_list(**sequence.get<ListRef>(), to_int(times), budget);
}

bool is_sequence(const Value& value) {
  return value.is<Text>() || value.is<ListRef>();
}

bool is_bound(const Value& value) {
  return value.is<Undefined>() || value.is<None>() || value.is<Int>() || value.is<bool>();
}

// One bound of a slice, clamped to what the step's direction allows.
int64_t bound_of(const Value& value, int64_t length, bool backwards, int64_t fallback) {
  if (value.is<Undefined>() || value.is<None>()) return fallback;
  Int at = to_int(value);
  if (at < 0) at += length;
  const Int low = backwards ? -1 : 0;
  const Int high = backwards ? length - 1 : length;
  return static_cast<int64_t>(std::clamp(at, low, std::max(low, high)));
}

struct Range {
  int64_t start = 0;
  int64_t step = 1;
  int64_t count = 0;
};

Result<Range> slice_range(const Value& start, const Value& stop, const Value& step,
                          int64_t length) {
  Range out;
  if (!step.is<Undefined>() && !step.is<None>()) {
    const Int by = to_int(step);
    if (by == 0) return fail("slice step cannot be zero");
    constexpr Int kFar = Int{1} << 40;
    out.step = static_cast<int64_t>(std::clamp(by, -kFar, kFar));
  }
  const bool backwards = out.step < 0;
  out.start = bound_of(start, length, backwards, backwards ? length - 1 : 0);
  const int64_t end = bound_of(stop, length, backwards, backwards ? -1 : length);
  const int64_t distance = backwards ? out.start - end : end - out.start;
  const int64_t stride = backwards ? -out.step : out.step;
  out.count = distance > 0 ? (distance + stride - 1) / stride : 0;
  return out;
}

Text slice_text(const Text& text, const Range& range, Budget& budget) {
  if (range.step == 1) {
    const auto begin = static_cast<size_t>(range.start);
    return text.slice(text.byte_of_char(begin),
                      text.byte_of_char(begin + static_cast<size_t>(range.count)), &budget);
  }
  std::vector<size_t> starts;  // byte offset of every character
  budget.spend(text.num_bytes() / 8);
  if (!budget.can_hold(text.num_chars() * sizeof(size_t))) budget.refuse("too much memory");
  for (size_t at = 0; at < text.num_bytes() && !budget.exceeded();
       at += utf8_length(text.view()[at])) {
    starts.push_back(at);
  }
  TextBuilder out(&budget);
  for (int64_t i = 0; i < range.count && !budget.exceeded(); ++i) {
    budget.spend(1);
    const size_t at = starts[static_cast<size_t>(range.start + i * range.step)];
    out.append(text, at, at + utf8_length(text.view()[at]));
  }
  return out.take();
}

}  // namespace

Result<Value> binary(Op op, const Value& a, const Value& b, Budget& budget) {
  if (a.is<Undefined>()) return fail_undefined(a);
  if (b.is<Undefined>()) return fail_undefined(b);
  if (a.is_number() && b.is_number()) {
    if (a.is<double>() || b.is<double>()) return float_math(op, as_double(a), as_double(b));
    return int_math(op, to_int(a), to_int(b));
  }
  if (op == Op::kAdd) return add_sequences(a, b, budget);
  if (op == Op::kMul && is_sequence(a)) return multiply_sequence(a, b, budget);
  if (op == Op::kMul && is_sequence(b)) return multiply_sequence(b, a, budget);
  if (op == Op::kMod && a.is<Text>()) {
    const auto* list = b.get<ListRef>();
    const bool tuple = list != nullptr && (*list)->is_tuple;
    HS_ASSIGN_OR_RETURN(
        const Text text,
        percent_format(*a.get<Text>(), tuple ? (*list)->items : std::vector{b}, budget));
    return Value(text);
  }
  return fail_types(op, a, b);
}

Result<bool> compare(Op op, const Value& a, const Value& b, Budget& budget) {
  switch (op) {
    case Op::kEq:
      return equal(a, b, budget);
    case Op::kNe:
      return !equal(a, b, budget);
    case Op::kIn:
      return contains(b, a, budget);
    case Op::kNotIn:
      return contains(b, a, budget).map([](bool found) { return !found; });
    default:
      break;
  }
  HS_ASSIGN_OR_RETURN(const int sign, order(a, b, budget));
  switch (op) {
    case Op::kLt:
      return sign < 0;
    case Op::kLe:
      return sign <= 0;
    case Op::kGt:
      return sign > 0;
    default:
      return sign >= 0;
  }
}

Result<Value> negate(const Value& value) {
  if (value.is<Undefined>()) return fail_undefined(value);
  if (const auto* d = value.get<double>()) return Value(-*d);
  if (!value.is_number())
    return fail(fmt::format("bad operand type for -: '{}'", type_name(value)));
  return Value(-to_int(value));
}

Result<Value> slice(const Value& object, const Value& start, const Value& stop, const Value& step,
                    Budget& budget) {
  if (object.is<Undefined>()) return fail_undefined(object);
  const auto* text = object.get<Text>();
  const auto* list = object.get<ListRef>();
  if ((text == nullptr && list == nullptr) || !is_bound(start) || !is_bound(stop) ||
      !is_bound(step)) {
    return make_undefined(fmt::format("{} object has no such slice", type_name(object)), budget);
  }
  const size_t length = text != nullptr ? text->num_chars() : (*list)->items.size();
  HS_ASSIGN_OR_RETURN(const Range range,
                      slice_range(start, stop, step, static_cast<int64_t>(length)));
  if (text != nullptr) return Value(slice_text(*text, range, budget));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(range.count));
  for (int64_t i = 0; i < range.count; ++i) {
    items.push_back((*list)->items[static_cast<size_t>(range.start + i * range.step)]);
  }
  return make_list(std::move(items), (*list)->is_tuple, &budget);
}

}  // namespace hotset::jinja
