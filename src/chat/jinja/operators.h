// SPDX-License-Identifier: Apache-2.0
// Arithmetic and comparison with Python's meaning.
#pragma once

#include "base/result.h"
#include "chat/jinja/ast.h"
#include "chat/jinja/value.h"

namespace hotset::jinja {

// + - * / // % **
[[nodiscard]] Result<Value> binary(Op op, const Value& a, const Value& b, Budget& budget);
// == != < <= > >= in, not in
[[nodiscard]] Result<bool> compare(Op op, const Value& a, const Value& b, Budget& budget);
[[nodiscard]] Result<Value> negate(const Value& value);
// object[start:stop:step]; undefined bounds are left-out ones.
[[nodiscard]] Result<Value> slice(const Value& object, const Value& start, const Value& stop,
                                  const Value& step, Budget& budget);

}  // namespace hotset::jinja
