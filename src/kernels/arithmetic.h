// SPDX-License-Identifier: Apache-2.0
// The two ways to multiply that every backend has.
#pragma once

#include <cstdint>

namespace hotset {

// kExact: activations stay fp32 and a product is within fp32 rounding of the dequantised weights.
// kFast: against 4-bit and int8 weights, activations are rounded to int8 per 32 columns and the dot
// products are integer; other weights as kExact. With integer products the bits of a token's result
// depend on neither the batch, the number of threads, the instruction set nor the processor.
enum class Arithmetic : uint8_t { kExact, kFast };

}  // namespace hotset
