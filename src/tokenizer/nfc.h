// SPDX-License-Identifier: Apache-2.0
// Unicode normalization form C, by ICU, in n log n for any text.
#pragma once

#include <string>
#include <string_view>

namespace hotset {

// Returns `text` itself when it is normalized already (ASCII always is), else a view of `buffer`,
// which then holds the normalized text. `text` is valid UTF-8.
[[nodiscard]] std::string_view to_nfc(std::string_view text, std::string& buffer);

}  // namespace hotset
