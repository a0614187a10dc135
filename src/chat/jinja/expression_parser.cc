// SPDX-License-Identifier: Apache-2.0
// Recursive descent, one function a precedence level, lowest first: choice, or, and, not,
// comparison, + -, ~, * / // %, **, unary, then chains of links. Only brackets, unary signs, `not`
// and `if … else` recurse, and each of these counts against max_nesting.
#include "chat/jinja/expression_parser.h"

#include <fmt/format.h>

#include "chat/jinja/builtins.h"

namespace hotset::jinja {
namespace {

// Counts one level for as long as it lives.
struct Nesting {
  explicit Nesting(int& depth) : depth_(depth) { ++depth_; }
  ~Nesting() { --depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;
  int& depth_;
};

}  // namespace

bool ExpressionParser::skip_op(std::string_view op) {
  const bool hit = is_op(op);
  if (hit) advance();
  return hit;
}

bool ExpressionParser::skip_name(std::string_view name) {
  const bool hit = is_name(name);
  if (hit) advance();
  return hit;
}

tl::unexpected<Error> ExpressionParser::error(std::string_view what) const {
  return fail(fmt::format("line {}: {}", current().line, what));
}

tl::unexpected<Error> ExpressionParser::unexpected() const {
  return error(fmt::format("unexpected {}", describe(current())));
}

Status ExpressionParser::expect_op(std::string_view op) {
  if (skip_op(op)) return {};
  return error(fmt::format("expected '{}', got {}", op, describe(current())));
}

Result<std::string> ExpressionParser::expect_name() {
  if (current().kind != TokenKind::kName) {
    return error(fmt::format("expected a name, got {}", describe(current())));
  }
  std::string name = current().value;
  advance();
  return name;
}

Symbol ExpressionParser::intern(const std::string& name) {
  const auto [it, is_new] = symbol_ids_.emplace(name, static_cast<Symbol>(symbols_.size()));
  if (is_new) symbols_.push_back(name);
  return it->second;
}

ExprPtr ExpressionParser::make(ExprKind kind) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = current().line;
  return expr;
}

ExprPtr ExpressionParser::make(ExprKind kind, ExprPtr first) const {
  ExprPtr expr = make(kind);
  expr->line = first->line;
  expr->operands.push_back(std::move(first));
  return expr;
}

Result<ExprPtr> ExpressionParser::expression(bool with_choice) {
  const Nesting nesting(depth_);
  if (depth_ > max_nesting_) {
    return error(fmt::format("nested deeper than {} levels", max_nesting_));
  }
  return with_choice ? choice() : logic(true);
}

Result<ExprPtr> ExpressionParser::expression_or_tuple(bool with_choice) {
  HS_ASSIGN_OR_RETURN(ExprPtr first, expression(with_choice));
  if (!is_op(",")) return first;
  ExprPtr tuple = make(ExprKind::kTuple, std::move(first));
  while (skip_op(",")) {
    if (current().kind == TokenKind::kBlockEnd || current().kind == TokenKind::kPrintEnd ||
        is_op(")")) {
      break;
    }
    HS_ASSIGN_OR_RETURN(ExprPtr item, expression(with_choice));
    tuple->operands.push_back(std::move(item));
  }
  return tuple;
}

Result<ExprPtr> ExpressionParser::choice() {
  HS_ASSIGN_OR_RETURN(ExprPtr value, logic(true));
  for (int conditions = 1; skip_name("if"); ++conditions) {
    if (conditions > max_nesting_) return error("too many conditions in one expression");
    value = make(ExprKind::kChoice, std::move(value));
    HS_ASSIGN_OR_RETURN(ExprPtr condition, logic(true));
    value->operands.push_back(std::move(condition));
    if (skip_name("else")) {
      HS_ASSIGN_OR_RETURN(ExprPtr otherwise, expression());
      value->operands.push_back(std::move(otherwise));
      break;
    }
  }
  return value;
}

Result<ExprPtr> ExpressionParser::logic(bool is_or) {
  const auto operand = [&] { return is_or ? logic(false) : negation(); };
  HS_ASSIGN_OR_RETURN(ExprPtr first, operand());
  const std::string_view word = is_or ? "or" : "and";
  if (!is_name(word)) return first;
  ExprPtr expr = make(is_or ? ExprKind::kOr : ExprKind::kAnd, std::move(first));
  while (skip_name(word)) {
    HS_ASSIGN_OR_RETURN(ExprPtr next, operand());
    expr->operands.push_back(std::move(next));
  }
  return expr;
}

Result<ExprPtr> ExpressionParser::negation() {
  if (!is_name("not")) return comparison();
  const Nesting nesting(depth_);
  if (depth_ > max_nesting_) {
    return error(fmt::format("nested deeper than {} levels", max_nesting_));
  }
  advance();
  HS_ASSIGN_OR_RETURN(ExprPtr inner, negation());
  return make(ExprKind::kNot, std::move(inner));
}

Result<ExprPtr> ExpressionParser::comparison() {
  static constexpr std::pair<std::string_view, Op> kOps[] = {{"==", Op::kEq}, {"!=", Op::kNe},
                                                             {"<", Op::kLt},  {"<=", Op::kLe},
                                                             {">", Op::kGt},  {">=", Op::kGe}};
  HS_ASSIGN_OR_RETURN(ExprPtr left, sum());
  ExprPtr expr;
  while (true) {
    const Op* found = nullptr;
    Op op = Op::kIn;
    for (const auto& [spelling, code] : kOps) {
      if (is_op(spelling)) found = &code;
    }
    if (found != nullptr) {
      op = *found;
      advance();
    } else if (is_name("in")) {
      advance();
    } else if (is_name("not") && peek().kind == TokenKind::kName && peek().value == "in") {
      op = Op::kNotIn;
      advance();
      advance();
    } else {
      break;
    }
    if (!expr) expr = make(ExprKind::kCompare, std::move(left));
    HS_ASSIGN_OR_RETURN(ExprPtr right, sum());
    expr->ops.push_back(op);
    expr->operands.push_back(std::move(right));
  }
  return expr ? std::move(expr) : std::move(left);
}

Result<ExprPtr> ExpressionParser::math(Operand operand,
                                       std::initializer_list<std::pair<std::string_view, Op>> ops) {
  HS_ASSIGN_OR_RETURN(ExprPtr left, (this->*operand)());
  ExprPtr expr;
  while (true) {
    const Op* op = nullptr;
    for (const auto& [spelling, code] : ops) {
      if (is_op(spelling)) op = &code;
    }
    if (op == nullptr) break;
    advance();
    if (!expr) expr = make(ExprKind::kMath, std::move(left));
    HS_ASSIGN_OR_RETURN(ExprPtr right, (this->*operand)());
    expr->ops.push_back(*op);
    expr->operands.push_back(std::move(right));
  }
  return expr ? std::move(expr) : std::move(left);
}

Result<ExprPtr> ExpressionParser::sum() {
  return math(&ExpressionParser::concatenation, {{"+", Op::kAdd}, {"-", Op::kSub}});
}

Result<ExprPtr> ExpressionParser::concatenation() {
  HS_ASSIGN_OR_RETURN(ExprPtr first, product());
  if (!is_op("~")) return first;
  ExprPtr expr = make(ExprKind::kConcat, std::move(first));
  while (skip_op("~")) {
    HS_ASSIGN_OR_RETURN(ExprPtr next, product());
    expr->operands.push_back(std::move(next));
  }
  return expr;
}

Result<ExprPtr> ExpressionParser::product() {
  return math(&ExpressionParser::power,
              {{"*", Op::kMul}, {"/", Op::kDiv}, {"//", Op::kFloorDiv}, {"%", Op::kMod}});
}

Result<ExprPtr> ExpressionParser::power() {
  HS_ASSIGN_OR_RETURN(ExprPtr left, unary(true));
  if (!is_op("**")) return left;
  ExprPtr expr = make(ExprKind::kMath, std::move(left));
  while (skip_op("**")) {
    HS_ASSIGN_OR_RETURN(ExprPtr right, unary(true));
    expr->ops.push_back(Op::kPow);
    expr->operands.push_back(std::move(right));
  }
  return expr;
}

Result<ExprPtr> ExpressionParser::unary(bool with_filters) {
  if (!is_op("-") && !is_op("+")) {
    HS_ASSIGN_OR_RETURN(ExprPtr base, primary());
    return chain(std::move(base), with_filters);
  }
  const Nesting nesting(depth_);
  if (depth_ > max_nesting_) {
    return error(fmt::format("nested deeper than {} levels", max_nesting_));
  }
  const ExprKind kind = is_op("-") ? ExprKind::kNegate : ExprKind::kPlus;
  advance();
  HS_ASSIGN_OR_RETURN(ExprPtr inner, unary(false));
  return chain(make(kind, std::move(inner)), with_filters);
}

Result<ExprPtr> ExpressionParser::primary() {
  const Token& token = current();
  ExprPtr expr = make(ExprKind::kConst);
  switch (token.kind) {
    case TokenKind::kName: {
      const std::string& name = token.value;
      if (name == "true" || name == "True" || name == "false" || name == "False") {
        expr->constant = Value(name == "true" || name == "True");
      } else if (name == "none" || name == "None") {
        expr->constant = Value(None{});
      } else {
        expr->kind = ExprKind::kName;
        expr->symbol = intern(name);
      }
      advance();
      return expr;
    }
    case TokenKind::kString: {
      std::string joined;
      for (; current().kind == TokenKind::kString; advance()) joined += current().value;
      expr->constant = Value(Text::trusted(joined));
      return expr;
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      expr->constant = token.kind == TokenKind::kFloat ? Value(token.number) : Value(token.integer);
      advance();
      return expr;
    default:
      break;
  }
  if (is_op("(")) return bracketed();
  if (is_op("[")) return list_literal();
  if (is_op("{")) return dict_literal();
  return unexpected();
}

Result<ExprPtr> ExpressionParser::bracketed() {
  ExprPtr expr = make(ExprKind::kTuple);
  advance();
  if (skip_op(")")) return expr;
  HS_ASSIGN_OR_RETURN(expr, expression_or_tuple());
  HS_RETURN_IF_ERROR(expect_op(")"));
  return expr;
}

Result<ExprPtr> ExpressionParser::list_literal() {
  ExprPtr list = make(ExprKind::kList);
  advance();
  while (!is_op("]")) {
    if (!list->operands.empty()) HS_RETURN_IF_ERROR(expect_op(","));
    if (is_op("]")) break;
    HS_ASSIGN_OR_RETURN(ExprPtr item, expression());
    list->operands.push_back(std::move(item));
  }
  advance();
  return list;
}

Result<ExprPtr> ExpressionParser::dict_literal() {
  ExprPtr dict = make(ExprKind::kDict);
  advance();
  while (!is_op("}")) {
    if (!dict->operands.empty()) HS_RETURN_IF_ERROR(expect_op(","));
    if (is_op("}")) break;
    HS_ASSIGN_OR_RETURN(ExprPtr key, expression());
    HS_RETURN_IF_ERROR(expect_op(":"));
    HS_ASSIGN_OR_RETURN(ExprPtr value, expression());
    dict->operands.push_back(std::move(key));
    dict->operands.push_back(std::move(value));
  }
  advance();
  return dict;
}

Result<ExprPtr> ExpressionParser::chain(ExprPtr base, bool with_filters) {
  std::vector<Link> links;
  while (true) {
    Link link;
    link.line = current().line;
    if (is_op(".") || is_op("[")) {
      HS_RETURN_IF_ERROR(subscript(link));
    } else if (is_op("(")) {
      link.kind = LinkKind::kCall;
      HS_RETURN_IF_ERROR(call_arguments(link.arguments));
    } else if (with_filters && skip_op("|")) {
      HS_ASSIGN_OR_RETURN(link, filter_link());
    } else if (with_filters && is_name("is")) {
      HS_ASSIGN_OR_RETURN(link, test_link());
    } else {
      break;
    }
    links.push_back(std::move(link));
  }
  if (links.empty()) return base;
  ExprPtr expr = make(ExprKind::kChain, std::move(base));
  expr->links = std::move(links);
  return expr;
}

Status ExpressionParser::subscript(Link& link) {
  if (skip_op(".")) {
    if (current().kind == TokenKind::kInteger) {
      link.kind = LinkKind::kItem;
      HS_ASSIGN_OR_RETURN(link.index, primary());
      return {};
    }
    HS_ASSIGN_OR_RETURN(const std::string name, expect_name());
    link.kind = LinkKind::kAttribute;
    link.name = Text::trusted(name);
    return {};
  }
  advance();
  link.kind = LinkKind::kItem;
  if (!is_op(":")) {
    HS_ASSIGN_OR_RETURN(link.index, expression());
  }
  if (is_op(":")) {
    link.kind = LinkKind::kSlice;
    link.slice[0] = std::move(link.index);
    for (int part = 1; part < 3 && skip_op(":"); ++part) {
      if (is_op(":") || is_op("]")) continue;
      HS_ASSIGN_OR_RETURN(link.slice[part], expression());
    }
  }
  return expect_op("]");
}

Status ExpressionParser::call_arguments(CallArguments& out) {
  HS_RETURN_IF_ERROR(expect_op("("));
  bool first = true;
  while (!is_op(")")) {
    if (!first) HS_RETURN_IF_ERROR(expect_op(","));
    if (is_op(")")) break;
    first = false;
    if (is_op("*") || is_op("**")) return error("* and ** arguments are not supported");
    const bool named = current().kind == TokenKind::kName && peek().kind == TokenKind::kOperator &&
                       peek().value == "=";
    std::string name;
    if (named) {
      name = current().value;
      advance();
      advance();
    } else if (!out.named.empty()) {
      return error("a positional argument follows a named one");
    }
    HS_ASSIGN_OR_RETURN(ExprPtr value, expression());
    if (named) {
      out.named.emplace_back(std::move(name), std::move(value));
    } else {
      out.positional.push_back(std::move(value));
    }
  }
  return expect_op(")");
}

Result<Link> ExpressionParser::filter_link() {
  Link link;
  link.kind = LinkKind::kFilter;
  link.line = current().line;
  HS_ASSIGN_OR_RETURN(const std::string name, expect_name());
  link.filter = find_filter(name);
  if (link.filter == nullptr) return error(fmt::format("no filter named '{}'", name));
  if (is_op("(")) HS_RETURN_IF_ERROR(call_arguments(link.arguments));
  return link;
}

Status ExpressionParser::filters(std::vector<Link>& links) {
  while (skip_op("|")) {
    HS_ASSIGN_OR_RETURN(Link link, filter_link());
    links.push_back(std::move(link));
  }
  return {};
}

bool ExpressionParser::test_takes_argument() const {
  switch (current().kind) {
    case TokenKind::kName:
      return !is_name("else") && !is_name("or") && !is_name("and");
    case TokenKind::kString:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return true;
    default:
      return is_op("[") || is_op("{");
  }
}

Result<Link> ExpressionParser::test_link() {
  Link link;
  link.kind = LinkKind::kTest;
  link.line = current().line;
  advance();
  link.negated = skip_name("not");
  HS_ASSIGN_OR_RETURN(const std::string name, expect_name());
  link.test = find_test(name);
  if (link.test == nullptr) return error(fmt::format("no test named '{}'", name));
  if (is_op("(")) {
    HS_RETURN_IF_ERROR(call_arguments(link.arguments));
  } else if (test_takes_argument()) {
    if (is_name("is")) return error("tests cannot be chained with 'is'");
    HS_ASSIGN_OR_RETURN(ExprPtr base, primary());
    HS_ASSIGN_OR_RETURN(ExprPtr argument, chain(std::move(base), false));
    link.arguments.positional.push_back(std::move(argument));
  }
  return link;
}

}  // namespace hotset::jinja
