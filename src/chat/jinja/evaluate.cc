// SPDX-License-Identifier: Apache-2.0
// Expressions. Chains are walked in loops, so the C++ stack grows only with the template's own
// nesting and with macro calls.
#include <fmt/format.h>

#include "chat/jinja/interpreter.h"
#include "chat/jinja/interpreter_guards.h"
#include "chat/jinja/operators.h"
#include "chat/jinja/print.h"

namespace hotset::jinja {

Result<Value> Interpreter::evaluate(const Expr& expr) {
  const DepthGuard depth(*this);
  budget_.spend(1);
  HS_RETURN_IF_ERROR(over_budget());
  if (expr.kind == ExprKind::kConst) return expr.constant;
  line_ = expr.line;
  if (expr.kind == ExprKind::kName) return look_up(expr.symbol);
  auto value = evaluate_node(expr);
  if (value) HS_RETURN_IF_ERROR(over_budget());
  return value;
}

Result<Value> Interpreter::evaluate_node(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kList:
      return evaluate_items(expr, false);
    case ExprKind::kTuple:
      return evaluate_items(expr, true);
    case ExprKind::kDict:
      return evaluate_dict(expr);
    case ExprKind::kMath:
      return evaluate_math(expr);
    case ExprKind::kCompare:
      return evaluate_compare(expr);
    case ExprKind::kConcat:
      return evaluate_concat(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return evaluate_logic(expr);
    case ExprKind::kChoice:
      return evaluate_choice(expr);
    case ExprKind::kChain:
      return evaluate_chain(expr);
    default:
      break;
  }
  HS_ASSIGN_OR_RETURN(const Value value, evaluate(*expr.operands[0]));  // one operand
  if (expr.kind == ExprKind::kNot) return Value(!truth(value));
  if (expr.kind == ExprKind::kNegate) return negate(value);
  HS_ASSIGN_OR_RETURN(const Value negative, negate(value));
  return negate(negative);
}

Result<Value> Interpreter::evaluate_items(const Expr& expr, bool is_tuple) {
  std::vector<Value> items;
  items.reserve(expr.operands.size());
  for (const ExprPtr& operand : expr.operands) {
    HS_ASSIGN_OR_RETURN(Value item, evaluate(*operand));
    items.push_back(std::move(item));
  }
  return make_list(std::move(items), is_tuple, &budget_);
}

Result<Value> Interpreter::evaluate_dict(const Expr& expr) {
  std::vector<std::pair<Value, Value>> entries;
  for (size_t i = 0; i + 1 < expr.operands.size(); i += 2) {
    HS_ASSIGN_OR_RETURN(Value key, evaluate(*expr.operands[i]));
    HS_ASSIGN_OR_RETURN(Value value, evaluate(*expr.operands[i + 1]));
    entries.emplace_back(std::move(key), std::move(value));
  }
  return make_dict(std::move(entries), &budget_);
}

Result<Value> Interpreter::evaluate_math(const Expr& expr) {
  HS_ASSIGN_OR_RETURN(Value left, evaluate(*expr.operands[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    HS_ASSIGN_OR_RETURN(const Value right, evaluate(*expr.operands[i + 1]));
    HS_ASSIGN_OR_RETURN(left, binary(expr.ops[i], left, right, budget_));
    HS_RETURN_IF_ERROR(over_budget());
  }
  return left;
}

// a < b < c means a < b and b < c, with b evaluated once.
Result<Value> Interpreter::evaluate_compare(const Expr& expr) {
  HS_ASSIGN_OR_RETURN(Value left, evaluate(*expr.operands[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    HS_ASSIGN_OR_RETURN(Value right, evaluate(*expr.operands[i + 1]));
    HS_ASSIGN_OR_RETURN(const bool holds, compare(expr.ops[i], left, right, budget_));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Result<Value> Interpreter::evaluate_concat(const Expr& expr) {
  TextBuilder out(&budget_);
  for (const ExprPtr& operand : expr.operands) {
    HS_ASSIGN_OR_RETURN(const Value value, evaluate(*operand));
    HS_ASSIGN_OR_RETURN(const Text text, to_text(value, budget_));
    out.append(text);
  }
  return Value(out.take());
}

// The value that decided, as in Python.
Result<Value> Interpreter::evaluate_logic(const Expr& expr) {
  const bool stops_at = expr.kind == ExprKind::kOr;
  Value value;
  for (const ExprPtr& operand : expr.operands) {
    HS_ASSIGN_OR_RETURN(value, evaluate(*operand));
    if (truth(value) == stops_at) break;
  }
  return value;
}

Result<Value> Interpreter::evaluate_choice(const Expr& expr) {
  HS_ASSIGN_OR_RETURN(const Value condition, evaluate(*expr.operands[1]));
  if (truth(condition)) return evaluate(*expr.operands[0]);
  if (expr.operands.size() > 2) return evaluate(*expr.operands[2]);
  return make_undefined("the inline if-expression had no else section", budget_);
}

Result<Value> Interpreter::evaluate_chain(const Expr& expr) {
  HS_ASSIGN_OR_RETURN(Value value, evaluate(*expr.operands[0]));
  return follow_filters(expr.links, std::move(value));
}

Result<Value> Interpreter::follow_filters(const std::vector<Link>& links, Value object) {
  for (const Link& link : links) {
    budget_.spend(1);
    line_ = link.line;
    HS_ASSIGN_OR_RETURN(object, follow(link, object));
    HS_RETURN_IF_ERROR(over_budget());
  }
  return object;
}

Result<Value> Interpreter::follow(const Link& link, const Value& object) {
  switch (link.kind) {
    case LinkKind::kAttribute:
      return get_attribute(object, link.name, budget_);
    case LinkKind::kItem: {
      HS_ASSIGN_OR_RETURN(const Value key, evaluate(*link.index));
      return get_item(object, key, budget_);
    }
    case LinkKind::kSlice:
      return evaluate_slice(link, object);
    default:
      break;
  }
  HS_ASSIGN_OR_RETURN(const Arguments args, evaluate_arguments(link.arguments));
  line_ = link.line;
  if (link.kind == LinkKind::kCall) return call(object, args);
  const std::string_view name = link.filter != nullptr ? link.filter->name : link.test->name;
  const auto named = [&](const Error& error) {
    return fail(fmt::format("{}: {}", name, error.message), error.kind);
  };
  if (link.kind == LinkKind::kFilter) {
    auto out = link.filter->apply(object, args, budget_);
    if (!out) return named(out.error());
    return out;
  }
  const auto holds = link.test->apply(object, args, budget_);
  if (!holds) return named(holds.error());
  return Value(*holds != link.negated);
}

Result<Value> Interpreter::evaluate_slice(const Link& link, const Value& object) {
  Value bounds[3];
  for (int i = 0; i < 3; ++i) {
    if (!link.slice[i]) continue;
    HS_ASSIGN_OR_RETURN(bounds[i], evaluate(*link.slice[i]));
    if (bounds[i].is<Undefined>()) return fail_undefined(bounds[i]);
  }
  return slice(object, bounds[0], bounds[1], bounds[2], budget_);
}

Result<Arguments> Interpreter::evaluate_arguments(const CallArguments& syntax) {
  Arguments out;
  for (const ExprPtr& expr : syntax.positional) {
    HS_ASSIGN_OR_RETURN(Value value, evaluate(*expr));
    out.positional.push_back(std::move(value));
  }
  for (const auto& [name, expr] : syntax.named) {
    HS_ASSIGN_OR_RETURN(Value value, evaluate(*expr));
    out.named.emplace_back(name, std::move(value));
  }
  return out;
}

}  // namespace hotset::jinja
