// SPDX-License-Identifier: Apache-2.0
// Errors as the user sees them: one line on standard error that says what to do next.
#pragma once

#include <string_view>

#include "base/result.h"

namespace hotset {

// Prints "hotset: error: …" and returns the exit code for that kind of error.
int report_error(const Error& error);
int report_bad_input(std::string_view message);

}  // namespace hotset
