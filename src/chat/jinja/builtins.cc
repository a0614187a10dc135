// SPDX-License-Identifier: Apache-2.0
// Look-ups in the tables, argument binding, and the rules of x.name and x[key].
#include "chat/jinja/builtins.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace hotset::jinja {
namespace {

const FilterRow* find_in(std::span<const FilterRow> table, std::string_view name) {
  const auto it = std::find_if(table.begin(), table.end(),
                               [&](const FilterRow& row) { return row.name == name; });
  return it == table.end() ? nullptr : &*it;
}

Result<Value> refuse_change(const Value& input, const Arguments&, Budget&) {
  return fail(fmt::format("templates may not change a {}", type_name(input)));
}

Result<Value> dict_get(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"key", "default"}));
  if (bound[0] == nullptr) return fail("get expected at least 1 argument");
  const Dict& dict = **input.get<DictRef>();
  budget.spend(bound[0]->is<Text>() ? 1 : dict.entries.size());
  if (const Value* found = dict.find(*bound[0])) return *found;
  return bound[1] != nullptr ? *bound[1] : Value(None{});
}

Result<Value> dict_parts(const Value& input, bool keys, bool values, Budget& budget) {
  std::vector<Value> out;
  const Dict& dict = **input.get<DictRef>();
  out.reserve(dict.entries.size());
  for (const auto& [key, value] : dict.entries) {
    if (budget.exceeded()) break;
    if (keys && values) {
      HS_ASSIGN_OR_RETURN(Value pair, make_list({key, value}, true, &budget));
      out.push_back(std::move(pair));
    } else {
      out.push_back(keys ? key : value);
    }
  }
  return make_list(std::move(out), false, &budget);
}

Result<Value> dict_items(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  return dict_parts(input, true, true, budget);
}
Result<Value> dict_keys(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  return dict_parts(input, true, false, budget);
}
Result<Value> dict_values(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  return dict_parts(input, false, true, budget);
}
Result<Value> copy_of(const Value& input, const Arguments& args, Budget&) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  return input;
}

Result<Value> list_index(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"value"}));
  if (bound[0] == nullptr) return fail("index expected 1 argument");
  const auto& items = (*input.get<ListRef>())->items;
  for (size_t i = 0; i < items.size() && !budget.exceeded(); ++i) {
    if (equal(items[i], *bound[0], budget)) return Value(static_cast<Int>(i));
  }
  return fail("the value is not in the list");
}

Result<Value> list_count(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"value"}));
  if (bound[0] == nullptr) return fail("count expected 1 argument");
  Int n = 0;
  for (const Value& item : (*input.get<ListRef>())->items) {
    if (budget.exceeded()) break;
    n += equal(item, *bound[0], budget) ? 1 : 0;
  }
  return Value(n);
}

Result<Value> loop_cycle(const Value& input, const Arguments& args, Budget&) {
  if (args.positional.empty()) return fail("no items for cycling given");
  return args.positional[(*input.get<LoopRef>())->index % args.positional.size()];
}

constexpr FilterRow kDictMethods[] = {
    {"get", dict_get},          {"items", dict_items},
    {"keys", dict_keys},        {"values", dict_values},
    {"copy", copy_of},          {"pop", refuse_change},
    {"popitem", refuse_change}, {"update", refuse_change},
    {"clear", refuse_change},   {"setdefault", refuse_change},
};
constexpr FilterRow kListMethods[] = {
    {"index", list_index},      {"count", list_count},     {"copy", copy_of},
    {"append", refuse_change},  {"extend", refuse_change}, {"insert", refuse_change},
    {"pop", refuse_change},     {"remove", refuse_change}, {"clear", refuse_change},
    {"reverse", refuse_change}, {"sort", refuse_change},
};
constexpr FilterRow kTupleMethods[] = {{"index", list_index}, {"count", list_count}};
constexpr FilterRow kLoopMethods[] = {{"cycle", loop_cycle}};

// loop.index and its siblings.
Value loop_attribute(const LoopState& loop, std::string_view name, Budget& budget) {
  const auto length = static_cast<Int>(loop.items->items.size());
  const auto index = static_cast<Int>(loop.index);
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(length - index);
  if (name == "revindex0") return Value(length - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == length);
  if (name == "length") return Value(length);
  if (name == "depth") return Value(Int{1});  // only recursive loops go deeper
  if (name == "depth0") return Value(Int{0});
  if (name == "previtem") {
    return index > 0 ? loop.items->items[loop.index - 1]
                     : make_undefined("there is no previous item", budget);
  }
  if (name == "nextitem") {
    return index + 1 < length ? loop.items->items[loop.index + 1]
                              : make_undefined("there is no next item", budget);
  }
  return make_undefined(fmt::format("loop has no attribute '{}'", name), budget);
}

}  // namespace

const FilterRow* find_filter(std::string_view name) {
  for (const auto table : {text_filters(), number_filters(), list_filters(), select_filters()}) {
    if (const FilterRow* row = find_in(table, name)) return row;
  }
  return nullptr;
}

const FilterRow* find_method(const Value& receiver, std::string_view name) {
  if (receiver.is<Text>()) return find_in(text_methods(), name);
  if (receiver.is<DictRef>()) return find_in(kDictMethods, name);
  if (receiver.is<LoopRef>()) return find_in(kLoopMethods, name);
  const auto* list = receiver.get<ListRef>();
  if (list == nullptr) return nullptr;
  return (*list)->is_tuple ? find_in(kTupleMethods, name) : find_in(kListMethods, name);
}

Result<std::vector<const Value*>> bind(const Arguments& args,
                                       std::initializer_list<std::string_view> parameters) {
  std::vector<const Value*> out(parameters.size(), nullptr);
  if (args.positional.size() > out.size()) {
    return fail(
        fmt::format("takes at most {} arguments, got {}", out.size(), args.positional.size()));
  }
  for (size_t i = 0; i < args.positional.size(); ++i) out[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto* it = std::find(parameters.begin(), parameters.end(), name);
    if (it == parameters.end()) return fail(fmt::format("unexpected keyword argument '{}'", name));
    const auto i = static_cast<size_t>(it - parameters.begin());
    if (out[i] != nullptr) return fail(fmt::format("argument '{}' is given twice", name));
    out[i] = &value;
  }
  return out;
}

Result<Text> text_argument(const Value* value, std::string_view parameter) {
  const auto* text = value != nullptr ? value->get<Text>() : nullptr;
  if (text == nullptr) {
    return fail(fmt::format("argument '{}' must be a string, not {}", parameter,
                            value != nullptr ? type_name(*value) : "missing"));
  }
  return *text;
}

Result<int64_t> int_argument(const Value* value, std::string_view parameter, int64_t fallback) {
  if (value == nullptr || value->is<None>()) return fallback;
  if (const auto* b = value->get<bool>()) return *b ? 1 : 0;
  const auto* n = value->get<Int>();
  if (n == nullptr) {
    return fail(
        fmt::format("argument '{}' must be an integer, not {}", parameter, type_name(*value)));
  }
  constexpr Int kLimit = Int{1} << 62;
  return static_cast<int64_t>(std::clamp(*n, -kLimit, kLimit));
}

Value make_undefined(std::string_view message, Budget& budget) {
  return Value(Undefined{Text::trusted(message.substr(0, 200), &budget)});
}

Result<Value> get_item(const Value& object, const Value& key, Budget& budget) {
  if (object.is<Undefined>()) return fail_undefined(object);
  if (const auto* dict = object.get<DictRef>()) {
    budget.spend(key.is<Text>() ? 1 : (*dict)->entries.size());
    if (const Value* found = (*dict)->find(key)) return *found;
  }
  const auto* text = object.get<Text>();
  const auto* list = object.get<ListRef>();
  if ((text != nullptr || list != nullptr) && (key.is<Int>() || key.is<bool>())) {
    const auto length =
        static_cast<Int>(text != nullptr ? text->num_chars() : (*list)->items.size());
    Int index = key.is<bool>() ? Int{*key.get<bool>()} : *key.get<Int>();
    if (index < 0) index += length;
    if (index < 0 || index >= length) {
      return make_undefined(fmt::format("{} object has no element {}", type_name(object),
                                        static_cast<int64_t>(index)),
                            budget);
    }
    const auto at = static_cast<size_t>(index);
    if (list != nullptr) return (*list)->items[at];
    budget.spend(text->is_ascii() ? 0 : at / 16);
    const size_t begin = text->byte_of_char(at);
    return Value(text->slice(begin, begin + utf8_length(text->view()[begin]), &budget));
  }
  if (const auto* name = key.get<Text>()) {
    if (!object.is<DictRef>()) return get_attribute(object, *name, budget);
    if (const FilterRow* row = find_method(object, name->view())) {
      return make_method(object, row->name);
    }
    return make_undefined(fmt::format("'dict object' has no attribute '{}'", name->view()), budget);
  }
  return make_undefined(
      fmt::format("{} object has no such element ({})", type_name(object), type_name(key)), budget);
}

Result<Value> get_attribute(const Value& object, const Text& name, Budget& budget) {
  if (object.is<Undefined>()) return fail_undefined(object);
  if (const auto* loop = object.get<LoopRef>(); loop != nullptr && name.view() != "cycle") {
    return loop_attribute(**loop, name.view(), budget);
  }
  if (const auto* space = object.get<Namespace*>()) {
    for (const auto& [key, value] : (*space)->attributes) {
      budget.spend(1);
      if (key == name.view()) return value;
    }
  }
  if (const auto* macro = object.get<const MacroDecl*>(); macro != nullptr) {
    return fail(fmt::format("attribute '{}' of a macro is not supported", name.view()));
  }
  if (const FilterRow* row = find_method(object, name.view())) {
    return make_method(object, row->name);
  }
  if (const auto* dict = object.get<DictRef>()) {
    if (const Value* found = (*dict)->find(name.view())) return *found;
  }
  return make_undefined(
      fmt::format("'{} object' has no attribute '{}'", type_name(object), name.view()), budget);
}

Result<Value> get_path(const Value& object, std::string_view path, Budget& budget) {
  Value current = object;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    int64_t index = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = parsed.ec == std::errc() && parsed.ptr == part.data() + part.size();
    const Value key = is_index ? Value::integer(index) : Value(Text::trusted(part, &budget));
    HS_ASSIGN_OR_RETURN(current, get_item(current, key, budget));
    begin = end + 1;
  }
  return current;
}

}  // namespace hotset::jinja
