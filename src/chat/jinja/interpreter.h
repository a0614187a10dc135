// SPDX-License-Identifier: Apache-2.0
// Renders a Program once. Holds everything a render changes: scopes, namespaces, the output, the
// budget's account. Names are looked up from the innermost scope outwards; a macro's body sees its
// own scope and the outermost one. Recursion is counted and limited by RenderLimits::max_depth.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "chat/jinja/ast.h"
#include "chat/jinja/budget.h"
#include "chat/jinja/builtins.h"

namespace hotset::jinja {

class Interpreter {
 public:
  Interpreter(const Program& program, Budget& budget);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Names with trusted values (special tokens' texts), then the request's own names.
  Status define(const nlohmann::ordered_json& names, bool is_trusted);
  Result<Text> run();

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };
  struct Scope {
    std::vector<std::pair<Symbol, Value>> names;
    bool is_macro = false;  // look-ups go on at the outermost scope
  };
  struct ScopeGuard;
  struct DepthGuard;

  // Statements (interpreter.cc)
  Result<Flow> execute(const Block& block);
  Result<Flow> execute(const Stmt& stmt);
  Result<Flow> execute_if(const Stmt& stmt);
  Result<Flow> execute_for(const Stmt& stmt);
  Result<ListRef> loop_items(const Stmt& stmt);
  Result<Flow> loop_over(const Stmt& stmt, const ListRef& items);
  Status execute_with(const Stmt& stmt);
  Status capture(const Stmt& stmt);
  Result<Text> render_block(const Block& block);
  Status assign(const Target& target, const Value& value);
  Status print(const Value& value);

  // Expressions (evaluate.cc)
  Result<Value> evaluate(const Expr& expr);
  Result<Value> evaluate_node(const Expr& expr);
  Result<Value> evaluate_items(const Expr& expr, bool is_tuple);
  Result<Value> evaluate_dict(const Expr& expr);
  Result<Value> evaluate_math(const Expr& expr);
  Result<Value> evaluate_compare(const Expr& expr);
  Result<Value> evaluate_concat(const Expr& expr);
  Result<Value> evaluate_logic(const Expr& expr);
  Result<Value> evaluate_choice(const Expr& expr);
  Result<Value> evaluate_chain(const Expr& expr);
  Result<Value> follow(const Link& link, const Value& object);
  Result<Value> follow_filters(const std::vector<Link>& links, Value object);
  Result<Value> evaluate_slice(const Link& link, const Value& object);
  Result<Arguments> evaluate_arguments(const CallArguments& syntax);

  // Calls (calls.cc)
  Result<Value> call(const Value& callee, const Arguments& args);
  Result<Value> call_macro(const MacroDecl& macro, const Arguments& args);
  Status bind_parameters(const MacroDecl& macro, const Arguments& args);
  Result<Value> call_global(Global global, const Arguments& args);
  Result<Value> call_namespace(const Arguments& args);

  Value look_up(Symbol symbol);
  void store(Symbol symbol, Value value);
  Status over_budget() const;

  const Program& program_;
  Budget& budget_;
  std::vector<std::unique_ptr<Namespace>> namespaces_;  // live until the render ends
  std::vector<Scope> scopes_;
  TextBuilder* out_ = nullptr;
  int depth_ = 0;
  int line_ = 1;         // of the node evaluated last, for error messages
  bool raised_ = false;  // the template itself called raise_exception
};

}  // namespace hotset::jinja
