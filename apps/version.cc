// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <string>

#include "kernels/cpu/isa.h"
#include "verbs.h"

namespace hotset {

int run_version() {
  std::string isas;
  for (const cpu::Isa isa : cpu::available_isas()) {
    isas += isas.empty() ? "" : ", ";
    isas += cpu::isa_name(isa);
  }
  fmt::print("hotset {}\nbuilt with g++ {}, for this processor: {}\n", HOTSET_VERSION, __VERSION__,
             isas);
  return kExitFine;
}

}  // namespace hotset
