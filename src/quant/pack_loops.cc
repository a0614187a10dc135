// SPDX-License-Identifier: Apache-2.0
#include "quant/pack_loops.h"

namespace hotset {
namespace {

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") != 0;
#else
  return false;
#endif
}

}  // namespace

const PackLoops& pack_loops() {
  return has_avx2() ? pack_loops_avx2() : pack_loops_scalar();
}

std::vector<const PackLoops*> all_pack_loops() {
  std::vector<const PackLoops*> all = {&pack_loops_scalar()};
  if (has_avx2()) all.push_back(&pack_loops_avx2());
  return all;
}

}  // namespace hotset
