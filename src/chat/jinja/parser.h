// SPDX-License-Identifier: Apache-2.0
// Tokens into a Program. Anything this engine does not know (a tag, a filter, a test) is an error
// here, with its line and name, so a checkpoint's template fails at start-up and not in a request.
#pragma once

#include <string_view>

#include "base/result.h"
#include "chat/jinja/ast.h"
#include "chat/jinja/limits.h"

namespace hotset::jinja {

[[nodiscard]] Result<Program> parse_program(std::string_view source, const TemplateLimits& limits);

}  // namespace hotset::jinja
