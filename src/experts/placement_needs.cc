// SPDX-License-Identifier: Apache-2.0
#include "experts/placement_needs.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked_math.h"

namespace hotset {
namespace {

Result<int64_t> product(const char* what, int64_t a, int64_t b) {
  const auto result = checked_mul(a, b);
  if (a < 0 || b < 0 || !result) {
    return fail(fmt::format("memory plan: {}: {} · {} bytes can't be held", what, a, b));
  }
  return *result;
}

int64_t kv_tokens(const PlacementInput& in) {
  const int64_t pages = ceil_div(in.max_model_len, in.kv_page_tokens);
  const int64_t started = in.kv_page_tokens > 1 ? in.max_num_seqs : 0;
  return (pages + started) * in.kv_page_tokens;
}

}  // namespace

Result<int64_t> sum_of(const std::vector<PlacementLine>& lines) {
  int64_t total = 0;
  for (const PlacementLine& line : lines) {
    const auto next = checked_add(total, line.bytes);
    if (line.bytes < 0 || !next) {
      return fail(fmt::format("memory plan: {} is {} bytes", line.name, line.bytes));
    }
    total = *next;
  }
  return total;
}

Result<std::vector<PlacementLine>> gpu_lines(const PlacementInput& in, const DenseForm& dense) {
  HS_ASSIGN_OR_RETURN(const int64_t kv, product("KV", kv_tokens(in), in.kv_token_bytes));
  HS_ASSIGN_OR_RETURN(const int64_t states, product("states", in.state_bytes, in.max_num_seqs));
  return std::vector<PlacementLine>{{fmt::format("dense, {} bits", dense.bits), dense.stored_bytes},
                                    {"KV", kv},
                                    {"states", states},
                                    {"workspace", in.workspace_bytes},
                                    {"CUDA and graphs", in.graph_bytes},
                                    {"margin", in.gpu_margin_bytes}};
}

int64_t least_slots(const PlacementInput& in) {
  const int64_t all = in.load.total_experts();
  const int64_t wanted = std::min(all, in.max_slots.value_or(all));
  if (in.min_slots >= std::min(in.lending_slots, all)) return in.min_slots;
  int64_t least = in.min_slots + in.staging_slots;
  if (wanted >= in.lending_slots) least = std::min(least, in.lending_slots);
  if (wanted == all) least = std::min(least, all);
  return least;
}

Result<int64_t> needed_gpu_bytes(const PlacementInput& in, const DenseForm& dense) {
  HS_ASSIGN_OR_RETURN(const std::vector<PlacementLine> lines, gpu_lines(in, dense));
  HS_ASSIGN_OR_RETURN(const int64_t used, sum_of(lines));
  HS_ASSIGN_OR_RETURN(const int64_t slots,
                      product("expert slots", least_slots(in), in.load.expert_bytes));
  const auto needed = checked_add(used, slots);
  if (!needed) return fail("memory plan: the sum of GPU memory overflows");
  return *needed;
}

}  // namespace hotset
