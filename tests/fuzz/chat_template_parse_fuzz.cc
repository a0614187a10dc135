// SPDX-License-Identifier: Apache-2.0
// Any bytes as a template: parsed or refused with a message, never a crash.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "chat/jinja/template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto compiled = hotset::Template::parse(source);
  if (!compiled && compiled.error().message.empty()) std::abort();
  return 0;
}
