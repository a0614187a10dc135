// SPDX-License-Identifier: Apache-2.0
// Building and comparing values. Walks recurse at most kMaxValueDepth deep, because no container is
// built deeper than that, and every visited element costs a step.
#include "chat/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

namespace hotset::jinja {
namespace {

constexpr size_t kContainerOverheadBytes = 96;
constexpr size_t kIndexedFrom = 8;  // smaller dicts are searched

Error too_deep() {
  return Error{ErrorKind::kResource,
               fmt::format("lists and objects are nested deeper than {}", kMaxValueDepth)};
}

bool is_known_role(std::string_view role) {
  static constexpr std::array<std::string_view, 5> kRoles = {"system", "user", "assistant", "tool",
                                                             "developer"};
  return std::find(kRoles.begin(), kRoles.end(), role) != kRoles.end();
}

Result<Value> json_to_value(const nlohmann::ordered_json& json, bool is_trusted, int depth,
                            Budget* budget);

Result<Value> json_object(const nlohmann::ordered_json& json, bool is_trusted, int depth,
                          Budget* budget) {
  std::vector<std::pair<Value, Value>> entries;
  entries.reserve(json.size());
  for (const auto& [key, item] : json.items()) {
    const bool role =
        key == "role" && item.is_string() && is_known_role(item.get_ref<const std::string&>());
    HS_ASSIGN_OR_RETURN(Value value, json_to_value(item, is_trusted || role, depth + 1, budget));
    entries.emplace_back(
        Value(is_trusted ? Text::trusted(key, budget) : Text::untrusted(key, budget)),
        std::move(value));
  }
  return make_dict(std::move(entries), budget);
}

Result<Value> json_to_value(const nlohmann::ordered_json& json, bool is_trusted, int depth,
                            Budget* budget) {
  if (depth > kMaxValueDepth) return fail(too_deep());
  if (budget != nullptr && budget->exceeded()) return Value();
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean:
      return Value(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer:
      return Value(static_cast<Int>(json.get<int64_t>()));
    case nlohmann::ordered_json::value_t::number_unsigned:
      return Value(static_cast<Int>(json.get<uint64_t>()));
    case nlohmann::ordered_json::value_t::number_float:
      return Value(json.get<double>());
    case nlohmann::ordered_json::value_t::string: {
      const auto& bytes = json.get_ref<const std::string&>();
      return Value(is_trusted ? Text::trusted(bytes, budget) : Text::untrusted(bytes, budget));
    }
    case nlohmann::ordered_json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) {
        HS_ASSIGN_OR_RETURN(Value value, json_to_value(item, is_trusted, depth + 1, budget));
        items.push_back(std::move(value));
      }
      return make_list(std::move(items), false, budget);
    }
    case nlohmann::ordered_json::value_t::object:
      return json_object(json, is_trusted, depth, budget);
    default:
      return Value(None{});
  }
}

bool equal_lists(const List& a, const List& b, Budget& budget) {
  if (a.is_tuple != b.is_tuple || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (budget.exceeded() || !equal(a.items[i], b.items[i], budget)) return false;
  }
  return true;
}

bool equal_dicts(const Dict& a, const Dict& b, Budget& budget) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = budget.exceeded() ? nullptr : b.find(key);
    if (other == nullptr || !equal(value, *other, budget)) return false;
  }
  return true;
}

// Hashable keys only hold scalars here, so comparing two keys needs no budget.
bool same_key(const Value& a, const Value& b) {
  if (const auto* x = a.get<Text>(), *y = b.get<Text>(); x != nullptr && y != nullptr) {
    return x->view() == y->view();
  }
  if (a.is_number() && b.is_number()) return as_double(a) == as_double(b);
  return a.is<None>() && b.is<None>();
}

}  // namespace

int Value::depth() const {
  if (const auto* list = get<ListRef>()) return (*list)->depth;
  if (const auto* dict = get<DictRef>()) return (*dict)->depth;
  if (const auto* method = get<MethodRef>()) return (*method)->receiver.depth() + 1;
  if (const auto* loop = get<LoopRef>()) return (*loop)->items->depth + 1;
  return 0;
}

const Value* Dict::find(std::string_view key) const {
  if (!by_text.empty()) {
    const auto it = by_text.find(key);
    return it == by_text.end() ? nullptr : &entries[it->second].second;
  }
  for (const auto& [name, value] : entries) {
    const auto* text = name.get<Text>();
    if (text != nullptr && text->view() == key) return &value;
  }
  return nullptr;
}

const Value* Dict::find(const Value& key) const {
  if (const auto* text = key.get<Text>()) return find(text->view());
  for (const auto& [name, value] : entries) {
    if (same_key(name, key)) return &value;
  }
  return nullptr;
}

Result<Value> make_list(std::vector<Value> items, bool is_tuple, Budget* budget) {
  auto list = std::make_shared<List>();
  for (const Value& item : items) list->depth = std::max(list->depth, item.depth() + 1);
  if (list->depth > kMaxValueDepth) return fail(too_deep());
  if (budget != nullptr) budget->spend(1 + items.size() / 4);
  list->charge = Charge(budget, kContainerOverheadBytes + items.capacity() * sizeof(Value));
  list->items = std::move(items);
  list->is_tuple = is_tuple;
  return Value(ListRef(std::move(list)));
}

Result<Value> make_dict(std::vector<std::pair<Value, Value>> entries, Budget* budget) {
  auto dict = std::make_shared<Dict>();
  const bool indexed = entries.size() > kIndexedFrom;
  dict->entries.reserve(entries.size());
  for (auto& [key, value] : entries) {
    if (key.depth() > 0 || key.is<Namespace*>()) {
      return fail(fmt::format("unhashable type: '{}'", type_name(key)));
    }
    dict->depth = std::max(dict->depth, value.depth() + 1);
    if (budget != nullptr) {
      budget->spend(key.is<Text>() ? 1 : 1 + dict->entries.size() / 8);
      if (budget->exceeded()) return Value();
    }
    if (const Value* known = dict->find(key)) {
      const auto at = static_cast<size_t>(
          std::find_if(dict->entries.begin(), dict->entries.end(),
                       [&](const auto& entry) { return &entry.second == known; }) -
          dict->entries.begin());
      dict->entries[at].second = std::move(value);
      continue;
    }
    dict->entries.emplace_back(std::move(key), std::move(value));
    if (const auto* text = dict->entries.back().first.get<Text>(); indexed && text != nullptr) {
      dict->by_text.emplace(text->view(), dict->entries.size() - 1);
    }
  }
  if (dict->depth > kMaxValueDepth) return fail(too_deep());
  const size_t per_entry = 2 * sizeof(Value) + (indexed ? 64 : 0);
  dict->charge = Charge(budget, kContainerOverheadBytes + dict->entries.size() * per_entry);
  return Value(DictRef(std::move(dict)));
}

Result<Value> make_method(Value receiver, std::string_view name) {
  if (receiver.depth() >= kMaxValueDepth) return fail(too_deep());
  return Value(std::make_shared<const Method>(Method{std::move(receiver), name}));
}

Result<Value> from_json(const nlohmann::ordered_json& json, bool is_trusted, Budget* budget) {
  return json_to_value(json, is_trusted, 0, budget);
}

bool truth(const Value& value) {
  if (const auto* b = value.get<bool>()) return *b;
  if (const auto* n = value.get<Int>()) return *n != 0;
  if (const auto* d = value.get<double>()) return *d != 0;
  if (const auto* text = value.get<Text>()) return !text->empty();
  if (const auto* list = value.get<ListRef>()) return !(*list)->items.empty();
  if (const auto* dict = value.get<DictRef>()) return !(*dict)->entries.empty();
  return !value.is<Undefined>() && !value.is<None>();
}

double as_double(const Value& number) {
  if (const auto* b = number.get<bool>()) return *b ? 1 : 0;
  if (const auto* n = number.get<Int>()) return static_cast<double>(*n);
  const auto* d = number.get<double>();
  return d != nullptr ? *d : std::nan("");
}

namespace {
// Integers compare exactly; a float makes both sides floats.
bool both_integers(const Value& a, const Value& b, Int& x, Int& y) {
  if (a.is<double>() || b.is<double>()) return false;
  x = a.is<bool>() ? Int{*a.get<bool>()} : *a.get<Int>();
  y = b.is<bool>() ? Int{*b.get<bool>()} : *b.get<Int>();
  return true;
}
}  // namespace

bool equal(const Value& a, const Value& b, Budget& budget) {
  budget.spend(1);
  if (a.is_number() && b.is_number()) {
    Int x = 0;
    Int y = 0;
    return both_integers(a, b, x, y) ? x == y : as_double(a) == as_double(b);
  }
  if (a.data().index() != b.data().index()) return false;
  if (const auto* text = a.get<Text>()) {
    budget.spend(text->num_bytes() / 64);
    return text->view() == b.get<Text>()->view();
  }
  if (const auto* list = a.get<ListRef>()) return equal_lists(**list, **b.get<ListRef>(), budget);
  if (const auto* dict = a.get<DictRef>()) return equal_dicts(**dict, **b.get<DictRef>(), budget);
  if (const auto* space = a.get<Namespace*>()) return *space == *b.get<Namespace*>();
  if (const auto* macro = a.get<const MacroDecl*>()) return *macro == *b.get<const MacroDecl*>();
  if (const auto* global = a.get<Global>()) return *global == *b.get<Global>();
  if (const auto* method = a.get<MethodRef>()) {
    return (*method)->name == (*b.get<MethodRef>())->name &&
           equal((*method)->receiver, (*b.get<MethodRef>())->receiver, budget);
  }
  if (const auto* loop = a.get<LoopRef>()) return *loop == *b.get<LoopRef>();
  return true;  // none and none, undefined and undefined
}

Result<int> order(const Value& a, const Value& b, Budget& budget) {
  budget.spend(1);
  if (a.is<Undefined>()) return fail_undefined(a);
  if (b.is<Undefined>()) return fail_undefined(b);
  if (a.is_number() && b.is_number()) {
    Int x = 0;
    Int y = 0;
    if (both_integers(a, b, x, y)) return x < y ? -1 : x > y ? 1 : 0;
    const double p = as_double(a);
    const double q = as_double(b);
    if (std::isnan(p) || std::isnan(q)) return fail("nan has no order");
    return p < q ? -1 : p > q ? 1 : 0;
  }
  if (const auto* x = a.get<Text>(), *y = b.get<Text>(); x != nullptr && y != nullptr) {
    budget.spend(std::min(x->num_bytes(), y->num_bytes()) / 64);
    const int sign = x->view().compare(y->view());  // UTF-8 keeps the order of code points
    return sign < 0 ? -1 : sign > 0 ? 1 : 0;
  }
  const auto* x = a.get<ListRef>();
  const auto* y = b.get<ListRef>();
  if (x != nullptr && y != nullptr && (*x)->is_tuple == (*y)->is_tuple) {
    const size_t common = std::min((*x)->items.size(), (*y)->items.size());
    for (size_t i = 0; i < common && !budget.exceeded(); ++i) {
      HS_ASSIGN_OR_RETURN(const int sign, order((*x)->items[i], (*y)->items[i], budget));
      if (sign != 0) return sign;
    }
    return static_cast<int>((*x)->items.size() > common) -
           static_cast<int>((*y)->items.size() > common);
  }
  return fail(fmt::format("'{}' and '{}' have no order", type_name(a), type_name(b)));
}

std::string_view type_name(const Value& value) {
  static constexpr std::array<std::string_view, 13> kNames = {
      "undefined", "NoneType",  "bool",  "int",      "float",  "str",        "list",
      "dict",      "Namespace", "Macro", "function", "method", "LoopContext"};
  const auto* list = value.get<ListRef>();
  if (list != nullptr && (*list)->is_tuple) return "tuple";
  return kNames[value.data().index()];
}

Result<ListRef> iterate(const Value& value, Budget& budget) {
  if (const auto* list = value.get<ListRef>()) return *list;
  if (value.is<Undefined>()) return std::make_shared<const List>();
  std::vector<Value> items;
  if (const auto* dict = value.get<DictRef>()) {
    items.reserve((*dict)->entries.size());
    for (const auto& entry : (*dict)->entries) items.push_back(entry.first);
  } else if (const auto* text = value.get<Text>()) {
    if (!budget.can_hold(text->num_chars() * (sizeof(Value) + 128))) {
      return fail("a string this long cannot be looped over", ErrorKind::kResource);
    }
    for (size_t at = 0; at < text->num_bytes() && !budget.exceeded();) {
      const size_t next = at + utf8_length(text->view()[at]);
      items.emplace_back(text->slice(at, next, &budget));
      at = next;
    }
  } else {
    return fail(fmt::format("'{}' object is not iterable", type_name(value)));
  }
  HS_ASSIGN_OR_RETURN(const Value list, make_list(std::move(items), false, &budget));
  return *list.get<ListRef>();
}

Result<bool> contains(const Value& haystack, const Value& needle, Budget& budget) {
  if (const auto* text = haystack.get<Text>()) {
    const auto* part = needle.get<Text>();
    if (part == nullptr) {
      return fail(
          fmt::format("'in <string>' requires string as left operand, not {}", type_name(needle)));
    }
    budget.spend(text->num_bytes() / 32);
    return find_bytes(text->view(), part->view(), 0) != std::string_view::npos;
  }
  if (const auto* dict = haystack.get<DictRef>()) {
    budget.spend(needle.is<Text>() ? 1 : (*dict)->entries.size());
    return (*dict)->find(needle) != nullptr;
  }
  HS_ASSIGN_OR_RETURN(const ListRef items, iterate(haystack, budget));
  for (const Value& item : items->items) {
    if (budget.exceeded()) return false;
    if (equal(item, needle, budget)) return true;
  }
  return false;
}

tl::unexpected<Error> fail_undefined(const Value& value) {
  const auto* undefined = value.get<Undefined>();
  if (undefined == nullptr || undefined->message.empty()) return fail("value is undefined");
  return fail(std::string(undefined->message.view()));
}

}  // namespace hotset::jinja
