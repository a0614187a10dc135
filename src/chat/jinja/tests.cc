// SPDX-License-Identifier: Apache-2.0
// The tests behind `is`: types, comparisons and membership.
#include <fmt/format.h>

#include <algorithm>

#include "chat/jinja/builtins.h"
#include "chat/jinja/operators.h"
#include "chat/jinja/print.h"
#include "chat/jinja/text_ops.h"

namespace hotset::jinja {
namespace {

using Predicate = bool (*)(const Value&);

template <Predicate kHolds>
Result<bool> type_test(const Value& input, const Arguments& args, Budget&) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  return kHolds(input);
}

bool is_callable(const Value& value) {
  return value.is<const MacroDecl*>() || value.is<Global>() || value.is<MethodRef>();
}
bool is_iterable(const Value& value) {
  return value.is<Text>() || value.is<ListRef>() || value.is<DictRef>() || value.is<Undefined>();
}

template <Op kOp>
Result<bool> compare_test(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"other"}));
  if (bound[0] == nullptr) return fail("the test needs an argument");
  return compare(kOp, input, *bound[0], budget);
}

Result<bool> same_test(const Value& input, const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"other"}));
  if (bound[0] == nullptr) return fail("sameas needs an argument");
  return input.data().index() == bound[0]->data().index() && equal(input, *bound[0], budget);
}

Result<Int> integer_of(const Value& value) {
  if (const auto* n = value.get<Int>()) return *n;
  if (const auto* b = value.get<bool>()) return Int{*b ? 1 : 0};
  if (value.is<Undefined>()) return fail_undefined(value);
  return fail(fmt::format("an integer is needed, not {}", type_name(value)));
}

template <int kRemainder>
Result<bool> parity_test(const Value& input, const Arguments& args, Budget&) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  HS_ASSIGN_OR_RETURN(const Int n, integer_of(input));
  return (n % 2 != 0) == (kRemainder != 0);
}

Result<bool> divisible_test(const Value& input, const Arguments& args, Budget&) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"num"}));
  if (bound[0] == nullptr) return fail("divisibleby needs an argument");
  HS_ASSIGN_OR_RETURN(const Int n, integer_of(input));
  HS_ASSIGN_OR_RETURN(const Int by, integer_of(*bound[0]));
  if (by == 0) return fail("division by zero");
  return n % by == 0;
}

template <Case kCase>
Result<bool> case_test(const Value& input, const Arguments& args, Budget& budget) {
  HS_RETURN_IF_ERROR(bind(args, {}));
  HS_ASSIGN_OR_RETURN(const Text text, to_text(input, budget));
  const Text mapped = change_case(text, kCase, budget);
  const Text other = change_case(text, kCase == Case::kLower ? Case::kUpper : Case::kLower, budget);
  return mapped.view() == text.view() && other.view() != text.view();
}

constexpr TestRow kTests[] = {
    {"defined", type_test<[](const Value& v) { return !v.is<Undefined>(); }>},
    {"undefined", type_test<[](const Value& v) { return v.is<Undefined>(); }>},
    {"none", type_test<[](const Value& v) { return v.is<None>(); }>},
    {"string", type_test<[](const Value& v) { return v.is<Text>(); }>},
    {"mapping", type_test<[](const Value& v) { return v.is<DictRef>(); }>},
    {"number", type_test<[](const Value& v) { return v.is_number(); }>},
    {"integer", type_test<[](const Value& v) { return v.is<Int>(); }>},
    {"float", type_test<[](const Value& v) { return v.is<double>(); }>},
    {"boolean", type_test<[](const Value& v) { return v.is<bool>(); }>},
    {"true", type_test<[](const Value& v) { return v.is<bool>() && truth(v); }>},
    {"false", type_test<[](const Value& v) { return v.is<bool>() && !truth(v); }>},
    {"iterable", type_test<is_iterable>},
    {"sequence", type_test<is_iterable>},
    {"callable", type_test<is_callable>},
    {"eq", compare_test<Op::kEq>},
    {"==", compare_test<Op::kEq>},
    {"equalto", compare_test<Op::kEq>},
    {"ne", compare_test<Op::kNe>},
    {"!=", compare_test<Op::kNe>},
    {"lt", compare_test<Op::kLt>},
    {"<", compare_test<Op::kLt>},
    {"lessthan", compare_test<Op::kLt>},
    {"le", compare_test<Op::kLe>},
    {"<=", compare_test<Op::kLe>},
    {"gt", compare_test<Op::kGt>},
    {">", compare_test<Op::kGt>},
    {"greaterthan", compare_test<Op::kGt>},
    {"ge", compare_test<Op::kGe>},
    {">=", compare_test<Op::kGe>},
    {"in", compare_test<Op::kIn>},
    {"sameas", same_test},
    {"odd", parity_test<1>},
    {"even", parity_test<0>},
    {"divisibleby", divisible_test},
    {"lower", case_test<Case::kLower>},
    {"upper", case_test<Case::kUpper>},
};

}  // namespace

const TestRow* find_test(std::string_view name) {
  const auto* it = std::find_if(std::begin(kTests), std::end(kTests),
                                [&](const TestRow& row) { return row.name == name; });
  return it == std::end(kTests) ? nullptr : it;
}

}  // namespace hotset::jinja
