// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 responses as text. Requests are parsed by Boost.Beast; what goes out is simple enough to
// be written here.
#pragma once

#include <string>
#include <string_view>

#include "server/http_message.h"

namespace hotset {

// A whole response with a body.
[[nodiscard]] std::string response_text(const Reply& reply, bool keep_alive);

// The head of an event stream; `chunked`: every piece goes through chunk_text(), and kLastChunk
// ends the body. Without it (HTTP/1.0) the end of the connection does.
[[nodiscard]] std::string stream_head_text(bool keep_alive, bool chunked);
[[nodiscard]] std::string chunk_text(std::string_view bytes);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

[[nodiscard]] std::string_view reason_phrase(int status);

}  // namespace hotset
