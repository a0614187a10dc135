// SPDX-License-Identifier: Apache-2.0
// How a template treats the two shapes of input that clients vary. Each answer comes from rendering
// a small conversation and looking for a marker word in it, so it holds for templates nobody has
// seen: Qwen3-Coder iterates arguments and needs an object, Qwen3-Next inserts a string verbatim
// and so gets the client's own text.
#pragma once

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "chat/jinja/template.h"

namespace hotset {

struct TemplateTraits {
  bool needs_argument_objects = false;  // a string of arguments fails or is dropped
  bool needs_plain_content = false;     // a list of text parts fails or is dropped
};

[[nodiscard]] TemplateTraits probe_template(const Template& compiled,
                                            const nlohmann::ordered_json& special_tokens);

// Checks that messages and tools have the outer shape templates rely on, and applies the repairs
// that the traits ask for. Errors name the message and field.
[[nodiscard]] Status prepare_messages(nlohmann::ordered_json& messages,
                                      const nlohmann::ordered_json& tools,
                                      const TemplateTraits& traits);

}  // namespace hotset
