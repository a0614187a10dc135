// SPDX-License-Identifier: Apache-2.0
// Any bytes as a routing trace: refused with a message that names the file, or whole steps of ids
// that are in range and distinct within their layer.
#include <cstdint>
#include <cstring>
#include <set>
#include <span>
#include <vector>

#include "base/check.h"
#include "experts/routing_profile.h"
#include "experts/routing_trace.h"

namespace {

void check(std::span<const std::byte> bytes) {
  const auto trace = hotset::RoutingTrace::parse(bytes, "fuzz");
  if (!trace) {
    HS_CHECK(trace.error().message.starts_with("fuzz: "), "{}", trace.error().message);
    return;
  }
  const hotset::RoutingShape& shape = trace->shape();
  for (int64_t step = 0; step < trace->num_steps(); ++step) {
    for (int32_t layer = 0; layer < shape.num_layers; ++layer) {
      std::set<uint16_t> seen;
      for (const uint16_t id : trace->ids(step, layer)) {
        HS_CHECK(id < shape.num_experts && seen.insert(id).second, "step {} id {}", step, id);
      }
    }
  }
  if (int64_t{shape.num_layers} * shape.num_experts > 100'000) return;  // slow to count, no wiser
  const auto profile = hotset::RoutingProfile::from_trace(*trace);
  HS_CHECK(profile && profile->num_tokens() == trace->num_steps(), "a trace that can't be counted");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  check(std::as_bytes(std::span(data, size)));
  // The magic is hard to guess by mutation, so the input is also read as what follows it.
  std::vector<std::byte> headed(8 + size);
  std::memcpy(headed.data(), "HSROUTE1", 8);
  if (size > 0) std::memcpy(headed.data() + 8, data, size);
  check(headed);
  return 0;
}
