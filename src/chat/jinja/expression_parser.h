// SPDX-License-Identifier: Apache-2.0
// The expression half of the parser, over a token list it shares with the statement half.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "chat/jinja/ast.h"
#include "chat/jinja/lexer.h"

namespace hotset::jinja {

class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, int max_nesting)
      : max_nesting_(max_nesting), tokens_(std::move(tokens)) {}

 protected:
  [[nodiscard]] const Token& current() const { return tokens_[at_]; }
  [[nodiscard]] const Token& peek() const {
    return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_];
  }
  void advance() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  [[nodiscard]] bool is_op(std::string_view op) const {
    return current().kind == TokenKind::kOperator && current().value == op;
  }
  [[nodiscard]] bool is_name(std::string_view name) const {
    return current().kind == TokenKind::kName && current().value == name;
  }
  bool skip_op(std::string_view op);
  bool skip_name(std::string_view name);
  [[nodiscard]] tl::unexpected<Error> error(std::string_view what) const;
  [[nodiscard]] tl::unexpected<Error> unexpected() const;
  Status expect_op(std::string_view op);
  Result<std::string> expect_name();
  Symbol intern(const std::string& name);

  // `with_choice`: whether `a if b else c` may stand here (not after `for x in`).
  Result<ExprPtr> expression(bool with_choice = true);
  // An expression, or a tuple without brackets; ends at the end of the tag.
  Result<ExprPtr> expression_or_tuple(bool with_choice = true);
  Status filters(std::vector<Link>& links);  // |name(…)|name …
  Status call_arguments(CallArguments& out);
  Result<Link> filter_link();

  int depth_ = 0;
  int max_nesting_;
  std::vector<std::string> symbols_;

 private:
  Result<ExprPtr> choice();
  Result<ExprPtr> logic(bool is_or);
  Result<ExprPtr> negation();
  Result<ExprPtr> comparison();
  Result<ExprPtr> sum();
  Result<ExprPtr> concatenation();
  Result<ExprPtr> product();
  Result<ExprPtr> power();
  Result<ExprPtr> unary(bool with_filters);
  Result<ExprPtr> primary();
  Result<ExprPtr> bracketed();
  Result<ExprPtr> dict_literal();
  Result<ExprPtr> list_literal();
  Result<ExprPtr> chain(ExprPtr base, bool with_filters);
  Status subscript(Link& link);
  Result<Link> test_link();
  [[nodiscard]] bool test_takes_argument() const;
  [[nodiscard]] ExprPtr make(ExprKind kind) const;
  [[nodiscard]] ExprPtr make(ExprKind kind, ExprPtr first) const;
  using Operand = Result<ExprPtr> (ExpressionParser::*)();
  Result<ExprPtr> math(Operand operand, std::initializer_list<std::pair<std::string_view, Op>> ops);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  std::unordered_map<std::string, Symbol> symbol_ids_;
};

}  // namespace hotset::jinja
