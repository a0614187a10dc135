// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/isa.h"

#include <array>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace hotset::cpu {
namespace {

constexpr std::array<const char*, kNumIsas> kNames = {"scalar", "avx2", "avx-vnni", "avx512-vnni",
                                                      "amx"};

#if defined(__x86_64__)

struct CpuidRegisters {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};

CpuidRegisters cpuid(uint32_t leaf, uint32_t subleaf) {
  CpuidRegisters r;
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool has_bits(uint64_t value, uint64_t mask) {
  return (value & mask) == mask;
}

uint64_t bit(int index) {
  return uint64_t{1} << index;
}

// The register files that the operating system saves on a switch.
uint64_t enabled_state() {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

bool request_amx_tiles() {
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

#endif

}  // namespace

const char* isa_name(Isa isa) {
  return kNames[static_cast<size_t>(isa)];
}

std::optional<Isa> parse_isa(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<Isa>(i);
  }
  return std::nullopt;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas = {Isa::kScalar};
#if defined(__x86_64__)
  const CpuidRegisters one = cpuid(1, 0);
  if (!has_bits(one.c, bit(27) | bit(28) | bit(12) | bit(29))) return isas;  // xsave avx fma f16c
  const uint64_t state = enabled_state();
  const CpuidRegisters seven = cpuid(7, 0);
  const CpuidRegisters seven_one = cpuid(7, 1);
  if (!has_bits(state, bit(1) | bit(2)) || !has_bits(seven.b, bit(5))) return isas;
  isas.push_back(Isa::kAvx2);
  if (has_bits(seven_one.a, bit(4))) isas.push_back(Isa::kAvxVnni);
  // avx512 f, dq, bw, vl and vnni, with the opmask and both upper halves saved
  if (!has_bits(state, bit(5) | bit(6) | bit(7)) ||
      !has_bits(seven.b, bit(16) | bit(17) | bit(30) | bit(31)) || !has_bits(seven.c, bit(11))) {
    return isas;
  }
  isas.push_back(Isa::kAvx512Vnni);
  if (has_bits(state, bit(17) | bit(18)) && has_bits(seven.d, bit(24) | bit(25)) &&
      request_amx_tiles()) {
    isas.push_back(Isa::kAmxInt8);
  }
#endif
  return isas;
}

Isa detect_isa() {
  return available_isas().back();
}

}  // namespace hotset::cpu
