// SPDX-License-Identifier: Apache-2.0
// The packers' inner loops for one instruction set; the build gives this file its compiler flags.
#include "quant/pack_loops_body.h"

namespace hotset {

const PackLoops& pack_loops_scalar() {
  static constexpr PackLoops kLoops = make_pack_loops("scalar");
  return kLoops;
}

}  // namespace hotset
