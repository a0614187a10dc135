// SPDX-License-Identifier: Apache-2.0
// Scope and depth of the interpreter, undone on every way out.
#pragma once

#include "chat/jinja/interpreter.h"

namespace hotset::jinja {

struct Interpreter::ScopeGuard {
  ScopeGuard(Interpreter& interpreter, bool is_macro) : interpreter_(interpreter) {
    interpreter_.scopes_.emplace_back().is_macro = is_macro;
  }
  ~ScopeGuard() { interpreter_.scopes_.pop_back(); }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;
  Interpreter& interpreter_;
};

struct Interpreter::DepthGuard {
  explicit DepthGuard(Interpreter& interpreter) : interpreter_(interpreter) {
    if (++interpreter_.depth_ > interpreter_.budget_.limits().max_depth) {
      interpreter_.budget_.refuse("too deeply nested calls");
    }
  }
  ~DepthGuard() { --interpreter_.depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;
  Interpreter& interpreter_;
};

}  // namespace hotset::jinja
