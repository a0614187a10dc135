// SPDX-License-Identifier: Apache-2.0
// The instruction sets the matrix kernels are built for. Which of them this machine can run is
// asked of the processor and the operating system once, at start; a kernel never asks.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace hotset::cpu {

// Every kind above kAvx2 also has what the ones below it offer, in the order of detect_isa's
// choice.
enum class Isa : uint8_t { kScalar, kAvx2, kAvxVnni, kAvx512Vnni, kAmxInt8 };
inline constexpr int kNumIsas = 5;

[[nodiscard]] const char* isa_name(Isa isa);  // "scalar", "avx2", "avx-vnni", "avx512-vnni", "amx"
[[nodiscard]] std::optional<Isa> parse_isa(std::string_view name);

// All that this machine can run, kScalar first. Asks the kernel for leave to use AMX tiles, which
// then holds for the whole process.
[[nodiscard]] std::vector<Isa> available_isas();
[[nodiscard]] Isa detect_isa();  // the last of available_isas()

}  // namespace hotset::cpu
