// SPDX-License-Identifier: Apache-2.0
// Any text as a routing profile: refused with a message that names the file, or counts that add up
// and are read back as they are written.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "experts/routing_profile.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto profile = hotset::RoutingProfile::parse(text, "fuzz");
  if (!profile) {
    HS_CHECK(profile.error().message.starts_with("fuzz: "), "{}", profile.error().message);
    return 0;
  }
  for (int32_t layer = 0; layer < profile->num_layers(); ++layer) {
    int64_t sum = 0;
    for (int32_t expert = 0; expert < profile->num_experts(); ++expert) {
      HS_CHECK(profile->count(layer, expert) >= 0 && profile->probability(layer, expert) <= 1,
               "layer {} expert {}", layer, expert);
      sum += profile->count(layer, expert);
    }
    HS_CHECK(sum == profile->num_tokens() * profile->shape().top_k, "layer {}: {}", layer, sum);
  }
  const std::string written = profile->to_json();
  const auto back = hotset::RoutingProfile::parse(written, "fuzz");
  HS_CHECK(back && back->to_json() == written, "not read back: {}", written);
  return 0;
}
