// SPDX-License-Identifier: Apache-2.0
// What a template computes with: Python's values as far as chat templates see them. Lists, tuples
// and dicts are immutable once built (the sandbox that templates are written for forbids changing
// them too), so no value can contain itself, and each container knows its nesting depth; both
// together make every recursive walk over a value bounded. Only a namespace() object changes; it
// belongs to the interpreter and is compared and printed by identity.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "chat/jinja/text.h"

namespace hotset::jinja {

using Int = __int128;  // JSON's integers reach 2^64-1; beyond 2^120 arithmetic reports an overflow

class Value;
struct List;
struct Dict;
struct Method;
struct LoopState;
struct Namespace;
struct MacroDecl;

struct Undefined {
  Text message;  // what to say when something needs a value: "'x' is undefined"
};
struct None {};
enum class Global : uint8_t { kRange, kNamespace, kDict, kRaiseException, kStrftimeNow };

using ListRef = std::shared_ptr<const List>;
using DictRef = std::shared_ptr<const Dict>;
using MethodRef = std::shared_ptr<const Method>;
using LoopRef = std::shared_ptr<const LoopState>;

constexpr int kMaxValueDepth = 100;

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, Int, double, Text, ListRef, DictRef, Namespace*,
                            const MacroDecl*, Global, MethodRef, LoopRef>;
  Value() = default;  // undefined, without a message
  template <typename T>
  explicit Value(T data) : data_(std::move(data)) {}
  static Value integer(int64_t n) { return Value(static_cast<Int>(n)); }

  template <typename T>
  [[nodiscard]] const T* get() const {
    return std::get_if<T>(&data_);
  }
  template <typename T>
  [[nodiscard]] bool is() const {
    return std::holds_alternative<T>(data_);
  }
  [[nodiscard]] const Data& data() const { return data_; }
  [[nodiscard]] bool is_number() const { return is<Int>() || is<double>() || is<bool>(); }
  [[nodiscard]] int depth() const;

 private:
  Data data_;
};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;
  Charge charge;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in the order of insertion
  std::unordered_map<std::string_view, size_t> by_text;
  int depth = 1;
  Charge charge;

  [[nodiscard]] const Value* find(const Value& key) const;
  [[nodiscard]] const Value* find(std::string_view key) const;
};

struct Method {
  Value receiver;
  std::string_view name;  // a row of the methods' table
};

struct LoopState {
  ListRef items;
  size_t index = 0;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  Charge charge;
};

// Builds containers: checks nesting and charges the budget.
[[nodiscard]] Result<Value> make_list(std::vector<Value> items, bool is_tuple, Budget* budget);
// A later entry with an equal key replaces the value of the earlier one, as in Python.
[[nodiscard]] Result<Value> make_dict(std::vector<std::pair<Value, Value>> entries, Budget* budget);
[[nodiscard]] Result<Value> make_method(Value receiver, std::string_view name);

// A context value. Its strings are untrusted, save the well-known names under a "role" key.
[[nodiscard]] Result<Value> from_json(const nlohmann::ordered_json& json, bool is_trusted,
                                      Budget* budget);

[[nodiscard]] bool truth(const Value& value);
[[nodiscard]] bool equal(const Value& a, const Value& b, Budget& budget);
// Negative, zero or positive; an error when Python would not order the two.
[[nodiscard]] Result<int> order(const Value& a, const Value& b, Budget& budget);
[[nodiscard]] std::string_view type_name(const Value& value);  // as Python names it: "str", "dict"
[[nodiscard]] double as_double(const Value& number);

// What a `for` would visit: items, keys, characters.
[[nodiscard]] Result<ListRef> iterate(const Value& value, Budget& budget);
// `needle in haystack`.
[[nodiscard]] Result<bool> contains(const Value& haystack, const Value& needle, Budget& budget);

// The error of using an undefined value.
[[nodiscard]] tl::unexpected<Error> fail_undefined(const Value& value);

}  // namespace hotset::jinja
