// SPDX-License-Identifier: Apache-2.0
// The checkpoint's own way to talk: its chat template renders prompts, and its way to write
// reasoning and tool calls is what answers are parsed for.
#pragma once

#include "server/dialect.h"

namespace hotset {

class ChatTemplate;

// The template must outlive the dialect.
[[nodiscard]] std::unique_ptr<Dialect> make_chat_dialect(const ChatTemplate& chat_template);

}  // namespace hotset
