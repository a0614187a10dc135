// SPDX-License-Identifier: Apache-2.0
// The tables of what templates may call: filters, tests, methods of strings, dicts and lists. A new
// one is a function and a row. Unknown filters and tests are found out when a template is parsed,
// unknown methods when they are called.
#pragma once

#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "chat/jinja/value.h"

namespace hotset::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;
};

using FilterFn = Result<Value> (*)(const Value& input, const Arguments& args, Budget& budget);
using TestFn = Result<bool> (*)(const Value& input, const Arguments& args, Budget& budget);

struct FilterRow {
  std::string_view name;
  FilterFn apply;
};
struct TestRow {
  std::string_view name;
  TestFn apply;
};

[[nodiscard]] const FilterRow* find_filter(std::string_view name);
[[nodiscard]] const TestRow* find_test(std::string_view name);
// A method of the receiver's type; the names a sandbox refuses (list.append …) are rows that say
// so.
[[nodiscard]] const FilterRow* find_method(const Value& receiver, std::string_view name);

// The tables of each file.
[[nodiscard]] std::span<const FilterRow> text_filters();
[[nodiscard]] std::span<const FilterRow> number_filters();
[[nodiscard]] std::span<const FilterRow> list_filters();
[[nodiscard]] std::span<const FilterRow> select_filters();
[[nodiscard]] std::span<const FilterRow> text_methods();

// Arguments sorted to parameters, positional first; null where none was given.
[[nodiscard]] Result<std::vector<const Value*>> bind(
    const Arguments& args, std::initializer_list<std::string_view> parameters);
// Typed reads of a bound argument, with a fallback for null.
[[nodiscard]] Result<Text> text_argument(const Value* value, std::string_view parameter);
[[nodiscard]] Result<int64_t> int_argument(const Value* value, std::string_view parameter,
                                           int64_t fallback);
[[nodiscard]] inline bool bool_argument(const Value* value, bool fallback) {
  return value == nullptr ? fallback : truth(*value);
}

// container[key] and object.name, as the templates' environment resolves them; a miss is undefined.
[[nodiscard]] Result<Value> get_item(const Value& object, const Value& key, Budget& budget);
[[nodiscard]] Result<Value> get_attribute(const Value& object, const Text& name, Budget& budget);
// "a.b.0", as the attribute arguments of filters are written.
[[nodiscard]] Result<Value> get_path(const Value& object, std::string_view path, Budget& budget);

[[nodiscard]] Value make_undefined(std::string_view message, Budget& budget);

}  // namespace hotset::jinja
