// SPDX-License-Identifier: Apache-2.0
// Nearly every file has its inputs in order, whether it stores a g_idx or not, and a load asks this
// once a linear: that case is recognised without a division an input.
#include "checkpoint/column_order.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/checked_math.h"
#include "quant/gptq.h"

namespace hotset {
namespace {

// Calls fn(first input, end, group) for the groups of inputs in order.
template <typename Fn>
void for_groups_in_order(const LinearSource& source, Fn fn) {
  int32_t group = 0;
  for (int64_t i = 0; i < source.cols; i += source.group_size, ++group) {
    fn(i, std::min(i + source.group_size, source.cols), group);
  }
}

bool is_in_order(const LinearSource& source, const std::vector<int32_t>& g_idx) {
  bool same = true;
  for_groups_in_order(source, [&](int64_t begin, int64_t end, int32_t group) {
    const auto from = g_idx.begin() + begin;
    same = same && std::all_of(from, from + (end - begin), [=](int32_t g) { return g == group; });
  });
  return same;
}

Status check_range(const LinearSource& source, const std::vector<int32_t>& g_idx) {
  const int64_t groups = ceil_div(source.cols, source.group_size);
  const auto bad =
      std::find_if(g_idx.begin(), g_idx.end(), [&](int32_t g) { return g < 0 || g >= groups; });
  if (bad == g_idx.end()) return {};
  return fail(fmt::format("tensor '{}': entry {} is {}, outside {} groups", source.g_idx->name,
                          bad - g_idx.begin(), *bad, groups));
}

ColumnOrder in_order(const LinearSource& source, int64_t group) {
  ColumnOrder out;
  if (group == 0) {
    out.g_idx.resize(static_cast<size_t>(source.cols));
    for_groups_in_order(source, [&](int64_t begin, int64_t end, int32_t index) {
      std::fill(out.g_idx.begin() + begin, out.g_idx.begin() + end, index);
    });
    return out;
  }
  out.block_group.resize(static_cast<size_t>(ceil_div(source.cols, group)));
  for (size_t b = 0; b < out.block_group.size(); ++b) {
    out.block_group[b] = static_cast<int32_t>(static_cast<int64_t>(b) * group / source.group_size);
  }
  out.expressible = source.group_size % group == 0 || source.group_size >= source.cols;
  return out;
}

}  // namespace

Result<ColumnOrder> column_order(const Checkpoint& checkpoint, const LinearSource& source,
                                 int64_t group) {
  if (source.g_idx == nullptr) return in_order(source, group);
  ColumnOrder out;
  out.g_idx.resize(static_cast<size_t>(source.cols));
  HS_RETURN_IF_ERROR(checkpoint.read(*source.g_idx, std::as_writable_bytes(std::span(out.g_idx))));
  if (is_in_order(source, out.g_idx)) return in_order(source, group);
  // Minus one everywhere means "not reordered" in compressed-tensors.
  if (std::all_of(out.g_idx.begin(), out.g_idx.end(), [](int32_t g) { return g == -1; })) {
    return in_order(source, group);
  }
  HS_RETURN_IF_ERROR(check_range(source, out.g_idx));
  if (group == 0) return out;
  if (!std::is_sorted(out.g_idx.begin(), out.g_idx.end())) {
    out.order.resize(out.g_idx.size());
    sort_by_group(out.g_idx, ceil_div(source.cols, source.group_size), out.order);
  }
  out.block_group.resize(static_cast<size_t>(ceil_div(source.cols, group)));
  out.expressible = uniform_groups(out.g_idx, out.order, group, out.block_group);
  return out;
}

}  // namespace hotset
