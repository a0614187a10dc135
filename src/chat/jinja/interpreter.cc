// SPDX-License-Identifier: Apache-2.0
// Statements, scopes and the output.
#include "chat/jinja/interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "chat/jinja/interpreter_guards.h"
#include "chat/jinja/print.h"

namespace hotset::jinja {

Interpreter::Interpreter(const Program& program, Budget& budget)
    : program_(program), budget_(budget) {
  scopes_.emplace_back();
}

// Namespaces may refer to each other; emptying all before freeing any ends that safely.
Interpreter::~Interpreter() {
  scopes_.clear();
  for (const auto& space : namespaces_) space->attributes.clear();
}

Status Interpreter::define(const nlohmann::ordered_json& names, bool is_trusted) {
  for (Symbol symbol = 0; symbol < program_.symbols.size(); ++symbol) {
    const auto it = names.find(program_.symbols[symbol]);
    if (it == names.end()) continue;
    auto value = from_json(*it, is_trusted, &budget_);
    if (!value) {
      return fail(fmt::format("{}: {}", program_.symbols[symbol], value.error().message),
                  value.error().kind);
    }
    HS_RETURN_IF_ERROR(over_budget());
    store(symbol, std::move(*value));
  }
  return {};
}

Result<Text> Interpreter::run() {
  TextBuilder out(&budget_, budget_.limits().max_output_bytes);
  out_ = &out;
  const auto flow = execute(program_.body);
  out_ = nullptr;
  if (!flow) {
    if (raised_) return fail(flow.error());
    return fail(fmt::format("chat template line {}: {}", line_, flow.error().message),
                flow.error().kind);
  }
  return out.take();
}

Status Interpreter::over_budget() const {
  if (!budget_.exceeded()) return {};
  return fail(fmt::format("the render was stopped: {}", budget_.reason()), ErrorKind::kResource);
}

Value Interpreter::look_up(Symbol symbol) {
  static constexpr std::pair<std::string_view, Global> kGlobals[] = {
      {"range", Global::kRange},
      {"namespace", Global::kNamespace},
      {"dict", Global::kDict},
      {"raise_exception", Global::kRaiseException},
      {"strftime_now", Global::kStrftimeNow}};
  for (size_t i = scopes_.size(); i-- > 0;) {
    budget_.spend(1 + scopes_[i].names.size() / 16);
    for (const auto& [name, value] : scopes_[i].names) {
      if (name == symbol) return value;
    }
    if (scopes_[i].is_macro) i = 1;  // continue with the outermost
  }
  const std::string& spelling = program_.symbols[symbol];
  for (const auto& [name, global] : kGlobals) {
    if (name == spelling) return Value(global);
  }
  return make_undefined(fmt::format("'{}' is undefined", spelling), budget_);
}

void Interpreter::store(Symbol symbol, Value value) {
  auto& names = scopes_.back().names;
  for (auto& [name, old] : names) {
    if (name == symbol) {
      old = std::move(value);
      return;
    }
  }
  names.emplace_back(symbol, std::move(value));
}

Status Interpreter::assign(const Target& target, const Value& value) {
  if (!target.attribute.empty()) {
    const Value object = look_up(target.names[0]);
    const auto* space = object.get<Namespace*>();
    if (space == nullptr) return fail("cannot assign attribute on non-namespace object");
    for (auto& [name, old] : (*space)->attributes) {
      budget_.spend(1);
      if (name == target.attribute) {
        old = value;
        return {};
      }
    }
    (*space)->charge.add(128 + target.attribute.size());
    (*space)->attributes.emplace_back(target.attribute, value);
    return {};
  }
  if (!target.is_tuple) {
    store(target.names[0], value);
    return {};
  }
  HS_ASSIGN_OR_RETURN(const ListRef items, iterate(value, budget_));
  if (items->items.size() != target.names.size()) {
    return fail(fmt::format("cannot unpack {} values into {} names", items->items.size(),
                            target.names.size()));
  }
  for (size_t i = 0; i < target.names.size(); ++i) store(target.names[i], items->items[i]);
  return {};
}

Status Interpreter::print(const Value& value) {
  HS_ASSIGN_OR_RETURN(const Text text, to_text(value, budget_));
  out_->append(text);
  return {};
}

Result<Interpreter::Flow> Interpreter::execute(const Block& block) {
  const DepthGuard depth(*this);
  for (const Stmt& stmt : block) {
    budget_.spend(1);
    HS_RETURN_IF_ERROR(over_budget());
    HS_ASSIGN_OR_RETURN(const Flow flow, execute(stmt));
    if (flow != Flow::kNext) return flow;
  }
  HS_RETURN_IF_ERROR(over_budget());
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute(const Stmt& stmt) {
  if (stmt.kind != StmtKind::kText) line_ = stmt.line;
  switch (stmt.kind) {
    case StmtKind::kText:
      out_->append(stmt.text);
      break;
    case StmtKind::kPrint: {
      HS_ASSIGN_OR_RETURN(const Value value, evaluate(*stmt.expr));
      HS_RETURN_IF_ERROR(print(value));
      break;
    }
    case StmtKind::kIf:
      return execute_if(stmt);
    case StmtKind::kFor:
      return execute_for(stmt);
    case StmtKind::kSet: {
      HS_ASSIGN_OR_RETURN(const Value value, evaluate(*stmt.expr));
      HS_RETURN_IF_ERROR(assign(stmt.target, value));
      break;
    }
    case StmtKind::kSetBlock:
    case StmtKind::kCapture:
      HS_RETURN_IF_ERROR(capture(stmt));
      break;
    case StmtKind::kMacro:
      store(stmt.macro->name, Value(static_cast<const MacroDecl*>(stmt.macro.get())));
      break;
    case StmtKind::kWith:
      HS_RETURN_IF_ERROR(execute_with(stmt));
      break;
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute_if(const Stmt& stmt) {
  for (const Branch& branch : stmt.branches) {
    if (branch.condition) {
      HS_ASSIGN_OR_RETURN(const Value condition, evaluate(*branch.condition));
      if (!truth(condition)) continue;
    }
    return execute(branch.body);
  }
  return Flow::kNext;
}

// What the loop visits, its `if` applied.
Result<ListRef> Interpreter::loop_items(const Stmt& stmt) {
  HS_ASSIGN_OR_RETURN(const Value iterable, evaluate(*stmt.expr));
  if (iterable.is<Undefined>()) return std::make_shared<const List>();
  HS_ASSIGN_OR_RETURN(const ListRef all, iterate(iterable, budget_));
  if (!stmt.condition) return all;
  std::vector<Value> kept;
  const ScopeGuard scope(*this, false);
  for (const Value& item : all->items) {
    HS_RETURN_IF_ERROR(assign(stmt.target, item));
    HS_ASSIGN_OR_RETURN(const Value condition, evaluate(*stmt.condition));
    if (truth(condition)) kept.push_back(item);
  }
  HS_ASSIGN_OR_RETURN(const Value list, make_list(std::move(kept), false, &budget_));
  return *list.get<ListRef>();
}

Result<Interpreter::Flow> Interpreter::execute_for(const Stmt& stmt) {
  HS_ASSIGN_OR_RETURN(const ListRef items, loop_items(stmt));
  if (items->items.empty()) {
    const ScopeGuard scope(*this, false);
    return execute(stmt.else_body);
  }
  if (items->depth >= kMaxValueDepth) return fail("the loop's items are nested too deep");
  return loop_over(stmt, items);
}

Result<Interpreter::Flow> Interpreter::loop_over(const Stmt& stmt, const ListRef& items) {
  for (size_t i = 0; i < items->items.size(); ++i) {
    budget_.spend(2);
    const ScopeGuard scope(*this, false);
    store(program_.loop_symbol, Value(std::make_shared<const LoopState>(LoopState{items, i})));
    HS_RETURN_IF_ERROR(assign(stmt.target, items->items[i]));
    HS_ASSIGN_OR_RETURN(const Flow flow, execute(stmt.body));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

Status Interpreter::execute_with(const Stmt& stmt) {
  std::vector<Value> values;
  for (const auto& [target, expr] : stmt.assignments) {
    HS_ASSIGN_OR_RETURN(Value value, evaluate(*expr));
    values.push_back(std::move(value));
  }
  const ScopeGuard scope(*this, false);
  for (size_t i = 0; i < values.size(); ++i) {
    HS_RETURN_IF_ERROR(assign(stmt.assignments[i].first, values[i]));
  }
  HS_RETURN_IF_ERROR(execute(stmt.body));
  return {};
}

Result<Text> Interpreter::render_block(const Block& block) {
  TextBuilder inner(&budget_, budget_.limits().max_output_bytes);
  TextBuilder* outer = std::exchange(out_, &inner);
  const auto flow = execute(block);
  out_ = outer;
  if (!flow) return fail(flow.error());
  return inner.take();
}

// {% set x %}…{% endset %}, {% filter f %}…, {% generation %}…
Status Interpreter::capture(const Stmt& stmt) {
  Value value;
  {
    const ScopeGuard scope(*this, false);
    HS_ASSIGN_OR_RETURN(const Text text, render_block(stmt.body));
    value = Value(text);
  }
  HS_ASSIGN_OR_RETURN(value, follow_filters(stmt.links, std::move(value)));
  return stmt.kind == StmtKind::kSetBlock ? assign(stmt.target, value) : print(value);
}

}  // namespace hotset::jinja
