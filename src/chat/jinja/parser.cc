// SPDX-License-Identifier: Apache-2.0
// The statement half of the parser: tags and the blocks between them.
#include "chat/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>

#include "chat/jinja/expression_parser.h"

namespace hotset::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Result<Program> run() {
    Program program;
    program.loop_symbol = intern("loop");
    HS_ASSIGN_OR_RETURN(program.body, block({}));
    program.symbols = std::move(symbols_);
    return program;
  }

 private:
  // Statements up to one of the tags `ends`, whose name is left as the current token.
  Result<Block> block(Names ends);
  Result<Stmt> statement();
  Result<Stmt> statement_named(const std::string& name);
  Result<Stmt> if_statement();
  Result<Stmt> for_statement();
  Result<Stmt> set_statement();
  Result<Stmt> macro_statement();
  Result<Stmt> with_statement();
  Result<Stmt> capture_statement(bool has_filter, std::string_view end);
  Result<Target> target(bool allows_attribute);
  Status macro_parameters(MacroDecl& macro);
  Status end_tag();
  [[nodiscard]] Stmt make_stmt(StmtKind kind) const {
    Stmt stmt;
    stmt.kind = kind;
    stmt.line = current().line;
    return stmt;
  }

  int loops_ = 0;
};

Status Parser::end_tag() {
  if (current().kind != TokenKind::kBlockEnd) return unexpected();
  advance();
  return {};
}

Result<Block> Parser::block(Names ends) {
  if (++depth_ > max_nesting_) {
    return error(fmt::format("nested deeper than {} levels", max_nesting_));
  }
  Block out;
  while (current().kind != TokenKind::kEnd) {
    if (current().kind == TokenKind::kBlockBegin && peek().kind == TokenKind::kName &&
        std::find(ends.begin(), ends.end(), peek().value) != ends.end()) {
      advance();
      --depth_;
      return out;
    }
    HS_ASSIGN_OR_RETURN(Stmt stmt, statement());
    out.push_back(std::move(stmt));
  }
  if (ends.size() > 0) {
    return error(fmt::format("unexpected end of template, expected '{}'", *ends.begin()));
  }
  --depth_;
  return out;
}

Result<Stmt> Parser::statement() {
  if (current().kind == TokenKind::kText) {
    Stmt stmt = make_stmt(StmtKind::kText);
    stmt.text = Text::trusted(current().value);
    advance();
    return stmt;
  }
  if (current().kind == TokenKind::kPrintBegin) {
    Stmt stmt = make_stmt(StmtKind::kPrint);
    advance();
    HS_ASSIGN_OR_RETURN(stmt.expr, expression_or_tuple());
    if (current().kind != TokenKind::kPrintEnd) return unexpected();
    advance();
    return stmt;
  }
  advance();  // {%
  if (current().kind != TokenKind::kName) return unexpected();
  return statement_named(current().value);
}

Result<Stmt> Parser::statement_named(const std::string& name) {
  if (name == "if") return if_statement();
  if (name == "for") return for_statement();
  if (name == "set") return set_statement();
  if (name == "macro") return macro_statement();
  if (name == "with") return with_statement();
  if (name == "filter") return capture_statement(true, "endfilter");
  if (name == "generation") return capture_statement(false, "endgeneration");
  if (name == "break" || name == "continue") {
    if (loops_ == 0) return error(fmt::format("'{}' outside of a loop", name));
    Stmt stmt = make_stmt(name == "break" ? StmtKind::kBreak : StmtKind::kContinue);
    advance();
    HS_RETURN_IF_ERROR(end_tag());
    return stmt;
  }
  return error(fmt::format("unknown tag '{}'", name));
}

Result<Stmt> Parser::if_statement() {
  Stmt stmt = make_stmt(StmtKind::kIf);
  while (true) {
    Branch branch;
    const bool is_else = is_name("else");
    const bool is_end = is_name("endif");
    advance();  // if, elif, else, endif
    if (!is_else && !is_end) {
      HS_ASSIGN_OR_RETURN(branch.condition, expression_or_tuple(false));
    }
    HS_RETURN_IF_ERROR(end_tag());
    if (is_end) return stmt;
    HS_ASSIGN_OR_RETURN(branch.body, is_else ? block({"endif"}) : block({"endif", "elif", "else"}));
    stmt.branches.push_back(std::move(branch));
  }
}

Result<Target> Parser::target(bool allows_attribute) {
  Target out;
  const bool bracketed = skip_op("(");
  while (true) {
    HS_ASSIGN_OR_RETURN(const std::string name, expect_name());
    static constexpr std::string_view kReserved[] = {"true",  "false", "none", "True",
                                                     "False", "None",  "loop"};
    if (std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved)) {
      return error(fmt::format("cannot assign to '{}'", name));
    }
    out.names.push_back(intern(name));
    if (allows_attribute && out.names.size() == 1 && skip_op(".")) {
      HS_ASSIGN_OR_RETURN(out.attribute, expect_name());
      return out;
    }
    if (!skip_op(",")) break;
    out.is_tuple = true;
    if (is_name("in") || is_op(")") || is_op("=")) break;
  }
  if (bracketed) HS_RETURN_IF_ERROR(expect_op(")"));
  return out;
}

Result<Stmt> Parser::for_statement() {
  Stmt stmt = make_stmt(StmtKind::kFor);
  advance();
  HS_ASSIGN_OR_RETURN(stmt.target, target(false));
  if (!skip_name("in")) return error(fmt::format("expected 'in', got {}", describe(current())));
  HS_ASSIGN_OR_RETURN(stmt.expr, expression_or_tuple(false));
  if (skip_name("if")) {
    HS_ASSIGN_OR_RETURN(stmt.condition, expression());
  }
  if (is_name("recursive")) return error("recursive loops are not supported");
  HS_RETURN_IF_ERROR(end_tag());
  ++loops_;
  HS_ASSIGN_OR_RETURN(stmt.body, block({"endfor", "else"}));
  --loops_;
  if (skip_name("else")) {
    HS_RETURN_IF_ERROR(end_tag());
    HS_ASSIGN_OR_RETURN(stmt.else_body, block({"endfor"}));
  }
  advance();
  HS_RETURN_IF_ERROR(end_tag());
  return stmt;
}

Result<Stmt> Parser::set_statement() {
  Stmt stmt = make_stmt(StmtKind::kSet);
  advance();
  HS_ASSIGN_OR_RETURN(stmt.target, target(true));
  if (skip_op("=")) {
    HS_ASSIGN_OR_RETURN(stmt.expr, expression_or_tuple());
    HS_RETURN_IF_ERROR(end_tag());
    return stmt;
  }
  stmt.kind = StmtKind::kSetBlock;
  HS_RETURN_IF_ERROR(filters(stmt.links));
  HS_RETURN_IF_ERROR(end_tag());
  HS_ASSIGN_OR_RETURN(stmt.body, block({"endset"}));
  advance();
  HS_RETURN_IF_ERROR(end_tag());
  return stmt;
}

Status Parser::macro_parameters(MacroDecl& macro) {
  HS_RETURN_IF_ERROR(expect_op("("));
  while (!is_op(")")) {
    if (!macro.parameters.empty()) HS_RETURN_IF_ERROR(expect_op(","));
    HS_ASSIGN_OR_RETURN(const std::string name, expect_name());
    ExprPtr fallback;
    if (skip_op("=")) {
      HS_ASSIGN_OR_RETURN(fallback, expression());
    } else if (!macro.defaults.empty() && macro.defaults.back()) {
      return error("a parameter without default follows one with a default");
    }
    macro.parameters.emplace_back(intern(name), name);
    macro.defaults.push_back(std::move(fallback));
  }
  return expect_op(")");
}

Result<Stmt> Parser::macro_statement() {
  Stmt stmt = make_stmt(StmtKind::kMacro);
  advance();
  stmt.macro = std::make_unique<MacroDecl>();
  HS_ASSIGN_OR_RETURN(stmt.macro->spelling, expect_name());
  stmt.macro->name = intern(stmt.macro->spelling);
  HS_RETURN_IF_ERROR(macro_parameters(*stmt.macro));
  HS_RETURN_IF_ERROR(end_tag());
  const int outer_loops = std::exchange(loops_, 0);
  HS_ASSIGN_OR_RETURN(stmt.macro->body, block({"endmacro"}));
  loops_ = outer_loops;
  advance();
  HS_RETURN_IF_ERROR(end_tag());
  return stmt;
}

Result<Stmt> Parser::with_statement() {
  Stmt stmt = make_stmt(StmtKind::kWith);
  advance();
  while (current().kind != TokenKind::kBlockEnd) {
    if (!stmt.assignments.empty()) HS_RETURN_IF_ERROR(expect_op(","));
    HS_ASSIGN_OR_RETURN(const std::string name, expect_name());
    Target to;
    to.names.push_back(intern(name));
    HS_RETURN_IF_ERROR(expect_op("="));
    HS_ASSIGN_OR_RETURN(ExprPtr value, expression());
    stmt.assignments.emplace_back(std::move(to), std::move(value));
  }
  HS_RETURN_IF_ERROR(end_tag());
  HS_ASSIGN_OR_RETURN(stmt.body, block({"endwith"}));
  advance();
  HS_RETURN_IF_ERROR(end_tag());
  return stmt;
}

Result<Stmt> Parser::capture_statement(bool has_filter, std::string_view end) {
  Stmt stmt = make_stmt(StmtKind::kCapture);
  advance();
  if (has_filter) {
    HS_ASSIGN_OR_RETURN(Link first, filter_link());
    stmt.links.push_back(std::move(first));
    HS_RETURN_IF_ERROR(filters(stmt.links));
  }
  HS_RETURN_IF_ERROR(end_tag());
  HS_ASSIGN_OR_RETURN(stmt.body, block({end}));
  advance();
  HS_RETURN_IF_ERROR(end_tag());
  return stmt;
}

}  // namespace

Result<Program> parse_program(std::string_view source, const TemplateLimits& limits) {
  if (source.size() > limits.max_source_bytes) {
    return fail(fmt::format("the template has {} bytes, more than the limit of {}", source.size(),
                            limits.max_source_bytes),
                ErrorKind::kResource);
  }
  HS_ASSIGN_OR_RETURN(std::vector<Token> tokens, tokenize_template(source));
  Parser parser(std::move(tokens), limits.max_nesting);
  return parser.run();
}

}  // namespace hotset::jinja
