// SPDX-License-Identifier: Apache-2.0
// Filters that apply other filters and tests to each item: |map, |select, |reject, |selectattr,
// |rejectattr. They give lists where Jinja gives generators.
#include <fmt/format.h>

#include "chat/jinja/builtins.h"
#include "chat/jinja/print.h"

namespace hotset::jinja {
namespace {

Arguments without_first(const Arguments& args, size_t count) {
  Arguments rest = args;
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<std::ptrdiff_t>(count));
  return rest;
}

Result<Value> map_attribute(const ListRef& list, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"attribute", "default"}));
  HS_ASSIGN_OR_RETURN(const Text path, to_text(*bound[0], budget));
  std::vector<Value> out;
  for (const Value& item : list->items) {
    if (budget.exceeded()) break;
    HS_ASSIGN_OR_RETURN(Value value, get_path(item, path.view(), budget));
    if (value.is<Undefined>() && bound[1] != nullptr) value = *bound[1];
    out.push_back(std::move(value));
  }
  return make_list(std::move(out), false, &budget);
}

Result<Value> map_filter(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(input, budget));
  if (args.positional.empty()) {
    if (args.named.empty() || args.named[0].first != "attribute") {
      return fail("map needs a filter's name or an attribute");
    }
    return map_attribute(list, args, budget);
  }
  HS_ASSIGN_OR_RETURN(const Text name, text_argument(&args.positional[0], "filter"));
  const FilterRow* filter = find_filter(name.view());
  if (filter == nullptr) return fail(fmt::format("no filter named '{}'", name.view()));
  if (filter->apply == &map_filter) return fail("map of map is not supported");
  const Arguments rest = without_first(args, 1);
  std::vector<Value> out;
  for (const Value& item : list->items) {
    if (budget.exceeded()) break;
    budget.spend(2);
    HS_ASSIGN_OR_RETURN(Value value, filter->apply(item, rest, budget));
    out.push_back(std::move(value));
  }
  return make_list(std::move(out), false, &budget);
}

// Keeps the items for which the test (without one: truth) equals `keep`.
Result<Value> filtered(const Value& input, const Arguments& args, bool by_attribute, bool keep,
                       Budget& budget) {
  HS_ASSIGN_OR_RETURN(const ListRef list, iterate(input, budget));
  const size_t skip = by_attribute ? 1 : 0;
  if (args.positional.size() < skip) return fail("an attribute's name is missing");
  Text path;
  if (by_attribute) {
    HS_ASSIGN_OR_RETURN(path, to_text(args.positional[0], budget));
  }
  const TestRow* test = nullptr;
  if (args.positional.size() > skip) {
    HS_ASSIGN_OR_RETURN(const Text name, text_argument(&args.positional[skip], "test"));
    test = find_test(name.view());
    if (test == nullptr) return fail(fmt::format("no test named '{}'", name.view()));
  }
  const Arguments rest = without_first(args, test != nullptr ? skip + 1 : skip);
  std::vector<Value> out;
  for (const Value& item : list->items) {
    if (budget.exceeded()) break;
    budget.spend(2);
    Value subject = item;
    if (by_attribute) {
      HS_ASSIGN_OR_RETURN(subject, get_path(item, path.view(), budget));
    }
    bool holds = truth(subject);
    if (test != nullptr) {
      HS_ASSIGN_OR_RETURN(holds, test->apply(subject, rest, budget));
    }
    if (holds == keep) out.push_back(item);
  }
  return make_list(std::move(out), false, &budget);
}

template <bool kByAttribute, bool kKeep>
Result<Value> select_filter(const Value& input, const Arguments& args, Budget& budget) {
  return filtered(input, args, kByAttribute, kKeep, budget);
}

constexpr FilterRow kFilters[] = {
    {"map", map_filter},
    {"select", select_filter<false, true>},
    {"reject", select_filter<false, false>},
    {"selectattr", select_filter<true, true>},
    {"rejectattr", select_filter<true, false>},
};

}  // namespace

std::span<const FilterRow> select_filters() {
  return kFilters;
}

}  // namespace hotset::jinja
