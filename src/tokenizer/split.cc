// SPDX-License-Identifier: Apache-2.0
// The choice between scanner and regex.
#include "tokenizer/split.h"

namespace hotset {

Result<Splitter> Splitter::compile(std::optional<std::string_view> pattern) {
  Splitter splitter;
  if (!pattern) return splitter;
  if (*pattern == kQwenPattern) {
    splitter.classes_ = std::make_unique<const CharClasses>();
    return splitter;
  }
  HS_ASSIGN_OR_RETURN(splitter.regex_, SplitRegex::compile(*pattern));
  return splitter;
}

}  // namespace hotset
