// SPDX-License-Identifier: Apache-2.0
// Filters that look at lists as a whole: |length, |first, |sort, |unique, |dictsort, |sum …
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "chat/jinja/builtins.h"
#include "chat/jinja/operators.h"
#include "chat/jinja/print.h"
#include "chat/jinja/text_ops.h"

namespace hotset::jinja {
namespace {

Result<Value> length_filter(const Value& input, const Arguments& args, Budget&) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  if (input.is<Undefined>()) return Value(Int{0});
  if (const auto* text = input.get<Text>()) return Value(static_cast<Int>(text->num_chars()));
  if (const auto* list = input.get<ListRef>()) {
    return Value(static_cast<Int>((*list)->items.size()));
  }
  if (const auto* dict = input.get<DictRef>()) {
    return Value(static_cast<Int>((*dict)->entries.size()));
  }
  return fail(fmt::format("object of type '{}' has no length", type_name(input)));
}

Result<Value> first_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(input, budget));
  if (list->items.empty()) return make_undefined("no first item, sequence was empty", budget);
  return list->items.front();
}

Result<Value> last_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(input, budget));
  if (list->items.empty()) return make_undefined("no last item, sequence was empty", budget);
  return list->items.back();
}

Result<Value> list_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(input, budget));
  if (!list->is_tuple) return Value(list);
  return make_list(list->items, false, &budget);
}

Result<Value> reverse_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  if (const auto* text = input.get<Text>()) return Value(reversed(*text, budget));
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(input, budget));
  return make_list({list->items.rbegin(), list->items.rend()}, false, &budget);
}

Result<Value> items_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  if (input.is<Undefined>()) return make_list({}, false, &budget);
  if (!input.is<DictRef>()) return fail("can only get item pairs from a mapping");
  return find_method(input, "items")->apply(input, args, budget);
}

// A value as sorting sees it: an attribute of it, and strings without case on request.
Result<Value> sort_key(const Value& item, const Value* attribute, bool ignore_case,
                       Budget& budget) {
  Value key = item;
  if (attribute != nullptr && !attribute->is<None>()) {
    HS_ASSIGN_OR_RETURN(const Text path, to_text(*attribute, budget));
    HS_ASSIGN_OR_RETURN(key, get_path(item, path.view(), budget));
  }
  const auto* text = key.get<Text>();
  if (ignore_case && text != nullptr) return Value(change_case(*text, Case::kLower, budget));
  return key;
}

struct Keyed {
  Value key;
  Value item;
};

Result<std::vector<Keyed>> keyed(const ListRef& list, const Value* attribute, bool ignore_case,
                                 Budget& budget) {
  std::vector<Keyed> out;
  for (const Value& item : list->items) {
    if (budget.exceeded()) break;
    HS_ASSIGN_OR_RETURN(Value key, sort_key(item, attribute, ignore_case, budget));
    out.push_back({std::move(key), item});
  }
  return out;
}

// Sorting needs one kind of key throughout: the comparison must not fail half way.
Status check_sortable(const std::vector<Keyed>& items) {
  for (const Keyed& entry : items) {
    if (entry.key.is<Undefined>()) return fail_undefined(entry.key);
    const bool number = entry.key.is_number() && !std::isnan(as_double(entry.key));
    const bool as_first =
        entry.key.is<Text>() ? items[0].key.is<Text>() : number && items[0].key.is_number();
    if (!as_first) {
      return fail(
          fmt::format("cannot sort '{}' and '{}'", type_name(items[0].key), type_name(entry.key)));
    }
  }
  return {};
}

Result<Value> sorted(std::vector<Keyed> items, bool reverse, Budget& budget) {
  HS_RETURN_IF_ERROR(check_sortable(items));
  const auto less = [&](const Keyed& a, const Keyed& b) {
    return order(a.key, b.key, budget).value_or(0) < 0;
  };
  if (reverse) {
    std::stable_sort(items.begin(), items.end(),
                     [&](const Keyed& a, const Keyed& b) { return less(b, a); });
  } else {
    std::stable_sort(items.begin(), items.end(), less);
  }
  std::vector<Value> out;
  out.reserve(items.size());
  for (Keyed& entry : items) out.push_back(std::move(entry.item));
  return make_list(std::move(out), false, &budget);
}

Result<Value> sort_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"reverse", "case_sensitive", "attribute"}));
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(input, budget));
  HS_ASSIGN_OR_RETURN(auto items, keyed(list, bound[2], !bool_argument(bound[1], false), budget));
  return sorted(std::move(items), bool_argument(bound[0], false), budget);
}

Result<Value> dictsort_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"case_sensitive", "by", "reverse"}));
  if (!input.is<DictRef>()) return fail("dictsort needs a mapping");
  int64_t column = 0;
  if (bound[1] != nullptr) {
    HS_ASSIGN_OR_RETURN(const Text by, text_argument(bound[1], "by"));
    if (by.view() != "key" && by.view() != "value") return fail("dictsort: by is key or value");
    column = by.view() == "value" ? 1 : 0;
  }
  HS_ASSIGN_OR_RETURN(const Value pairs, find_method(input, "items")->apply(input, {}, budget));
  const Value attribute = Value::integer(column);
  HS_ASSIGN_OR_RETURN(auto items, keyed(*pairs.get<ListRef>(), &attribute,
                                        !bool_argument(bound[0], false), budget));
  return sorted(std::move(items), bool_argument(bound[2], false), budget);
}

Result<Value> unique_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"case_sensitive", "attribute"}));
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(input, budget));
  HS_ASSIGN_OR_RETURN(const auto items,
                      keyed(list, bound[1], !bool_argument(bound[0], false), budget));
  std::vector<Value> out;
  std::vector<const Value*> seen;
  for (const Keyed& entry : items) {
    const bool known = std::any_of(seen.begin(), seen.end(), [&](const Value* key) {
      return budget.exceeded() || equal(*key, entry.key, budget);
    });
    if (known) continue;
    seen.push_back(&entry.key);
    out.push_back(entry.item);
  }
  return make_list(std::move(out), false, &budget);
}

template <int kSign>
Result<Value> extreme_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"case_sensitive", "attribute"}));
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(input, budget));
  HS_ASSIGN_OR_RETURN(const auto items,
                      keyed(list, bound[1], !bool_argument(bound[0], false), budget));
  if (items.empty()) return make_undefined("no aggregated item, sequence was empty", budget);
  size_t best = 0;
  for (size_t i = 1; i < items.size() && !budget.exceeded(); ++i) {
    HS_ASSIGN_OR_RETURN(const int sign, order(items[i].key, items[best].key, budget));
    if (sign * kSign > 0) best = i;
  }
  return items[best].item;
}

Result<Value> sum_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"attribute", "start"}));
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(input, budget));
  Value total = bound[1] != nullptr ? *bound[1] : Value(Int{0});
  for (const Value& item : list->items) {
    if (budget.exceeded()) break;
    HS_ASSIGN_OR_RETURN(const Value term, sort_key(item, bound[0], false, budget));
    HS_ASSIGN_OR_RETURN(total, binary(Op::kAdd, total, term, budget));
  }
  return total;
}

constexpr FilterRow kFilters[] = {
    {"length", length_filter}, {"count", length_filter},    {"first", first_filter},
    {"last", last_filter},     {"list", list_filter},       {"reverse", reverse_filter},
    {"items", items_filter},   {"sort", sort_filter},       {"dictsort", dictsort_filter},
    {"unique", unique_filter}, {"min", extreme_filter<-1>}, {"max", extreme_filter<1>},
    {"sum", sum_filter},
};

}  // namespace

std::span<const FilterRow> list_filters() {
  return kFilters;
}

}  // namespace hotset::jinja
