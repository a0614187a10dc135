// SPDX-License-Identifier: Apache-2.0
// What a template may cost. A chat template comes with a checkpoint somebody downloaded, and a
// request's messages come from anyone, so both parsing and rendering run against these figures;
// passing one is an error value, never a hang or an exhausted machine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hotset {

struct TemplateLimits {
  size_t max_source_bytes = size_t{1} << 20;
  int max_nesting = 64;  // expressions within expressions, blocks within blocks
};

struct RenderLimits {
  int64_t max_steps = 5'000'000;  // one per evaluated node; long copies and searches cost more
  size_t max_output_bytes = size_t{16} << 20;
  size_t max_live_bytes = size_t{48} << 20;  // strings, lists and dicts alive at one time
  int max_depth = 256;                       // nested evaluation, macro calls included
  int64_t now_unix_s = 0;                    // what strftime_now() tells; the caller owns the clock
};

}  // namespace hotset
