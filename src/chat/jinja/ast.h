// SPDX-License-Identifier: Apache-2.0
// The parsed template. Chains of one kind (a + b + c, x.y[0].z()|f, a and b) are flat lists rather
// than nested nodes, so the tree is only as deep as the source's brackets and blocks are, which the
// parser limits. Nodes are immutable after parsing and may be rendered by several threads at once.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "chat/jinja/value.h"

namespace hotset::jinja {

struct FilterRow;
struct TestRow;
struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Block = std::vector<Stmt>;
using Symbol = uint32_t;  // index into Program::symbols

enum class Op : uint8_t {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kIn,
  kNotIn,
};

enum class ExprKind : uint8_t {
  kConst,    // constant
  kName,     // symbol
  kList,     // operands
  kTuple,    // operands
  kDict,     // operands: key, value, key, value …
  kNegate,   // operands[0]
  kPlus,     // operands[0]
  kNot,      // operands[0]
  kMath,     // operands[0] ops[0] operands[1] ops[1] operands[2] …, left to right
  kConcat,   // operands joined by ~
  kCompare,  // as kMath, with Python's chaining
  kAnd,      // operands
  kOr,       // operands
  kChoice,   // operands: value, condition [, otherwise]
  kChain,    // operands[0], then links
};

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
};

enum class LinkKind : uint8_t { kAttribute, kItem, kSlice, kCall, kFilter, kTest };

// One step of a chain: .name  [index]  [a:b:c]  (arguments)  |name(arguments)  is [not] name …
struct Link {
  LinkKind kind = LinkKind::kAttribute;
  int line = 0;
  Text name;
  ExprPtr index;     // kItem
  ExprPtr slice[3];  // kSlice; null where left out
  CallArguments arguments;
  const FilterRow* filter = nullptr;
  const TestRow* test = nullptr;
  bool negated = false;
};

struct Expr {
  ExprKind kind = ExprKind::kConst;
  int line = 0;
  Value constant;
  Symbol symbol = 0;
  std::vector<ExprPtr> operands;
  std::vector<Op> ops;
  std::vector<Link> links;
};

// `a`, `a, b` or `ns.attribute`.
struct Target {
  std::vector<Symbol> names;
  bool is_tuple = false;
  std::string attribute;  // of the namespace names[0]; empty: plain names
};

struct Branch {
  ExprPtr condition;  // null: else
  Block body;
};

struct MacroDecl {
  Symbol name = 0;
  std::string spelling;
  std::vector<std::pair<Symbol, std::string>> parameters;
  std::vector<ExprPtr> defaults;  // aligned with parameters; null: none
  Block body;
};

enum class StmtKind : uint8_t {
  kText,
  kPrint,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kBreak,
  kContinue,
  kWith,     // assignments, body
  kCapture,  // {% filter %} (links) and {% generation %} (no links)
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  int line = 0;
  Text text;
  ExprPtr expr;       // kPrint, kSet: the value; kFor: what to visit
  ExprPtr condition;  // kFor: `if`
  Target target;      // kSet, kSetBlock, kFor
  std::vector<Branch> branches;
  std::vector<std::pair<Target, ExprPtr>> assignments;
  Block body;
  Block else_body;
  std::vector<Link> links;  // filters of kSetBlock and kCapture
  std::unique_ptr<MacroDecl> macro;
};

struct Program {
  Block body;
  std::vector<std::string> symbols;
  Symbol loop_symbol = 0;  // "loop"
};

}  // namespace hotset::jinja
