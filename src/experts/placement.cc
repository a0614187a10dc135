// SPDX-License-Identifier: Apache-2.0
#include "experts/placement.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked_math.h"

namespace hotset {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;
constexpr int64_t kContextStep = 64;  // KV pages; a suggested length is a multiple

// What a flag should be set to: rounded up, so that it is enough.
std::string flag_text(int64_t bytes) {
  if (bytes < kGiB) return fmt::format("{}MiB", ceil_div(bytes, kMiB));
  const int64_t hundredths = bytes / kGiB * 100 + ceil_div(bytes % kGiB * 100, kGiB);
  if (hundredths % 100 == 0) return fmt::format("{}GiB", hundredths / 100);
  return fmt::format("{}.{:02}GiB", hundredths / 100, hundredths % 100);
}

std::string lines_text(const std::vector<PlacementLine>& lines) {
  std::string out;
  for (const PlacementLine& line : lines) {
    if (line.bytes == 0) continue;
    out += fmt::format("{}{} {}", out.empty() ? "" : " + ", line.name, bytes_text(line.bytes));
  }
  return out;
}

Result<int64_t> sum(const std::vector<PlacementLine>& lines) {
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

Result<int64_t> product(const char* what, int64_t a, int64_t b) {
  const auto result = checked_mul(a, b);
  if (a < 0 || b < 0 || !result) {
    return fail(fmt::format("memory plan: {}: {} · {} bytes can't be held", what, a, b));
  }
  return *result;
}

Result<std::vector<PlacementLine>> gpu_lines(const PlacementInput& in, const DenseForm& dense) {
  HS_ASSIGN_OR_RETURN(const int64_t tokens, product("KV", in.max_model_len, in.max_num_seqs));
  HS_ASSIGN_OR_RETURN(const int64_t kv, product("KV", tokens, in.kv_token_bytes));
  HS_ASSIGN_OR_RETURN(const int64_t states, product("states", in.state_bytes, in.max_num_seqs));
  return std::vector<PlacementLine>{{fmt::format("dense, {} bits", dense.bits), dense.stored_bytes},
                                    {"KV", kv},
                                    {"states", states},
                                    {"workspace", in.workspace_bytes},
                                    {"graphs", in.graph_bytes},
                                    {"margin", in.gpu_margin_bytes}};
}

// The longest context with which the rest still fits; 0: none.
int64_t fitting_context(const PlacementInput& in, int64_t budget, int64_t needed) {
  const auto per_token = checked_mul(in.kv_token_bytes, in.max_num_seqs);
  if (!per_token || *per_token <= 0) return 0;
  const int64_t kv = *per_token * in.max_model_len;  // the plan has checked it
  const int64_t left = budget - (needed - kv);
  return left <= 0 ? 0 : left / *per_token / kContextStep * kContextStep;
}

tl::unexpected<Error> refuse_gpu(const PlacementInput& in, const std::vector<PlacementLine>& lines,
                                 int64_t needed, int64_t budget) {
  const bool by_flag = in.gpu_memory_bytes && *in.gpu_memory_bytes < in.gpu_free_bytes;
  std::string text = fmt::format("GPU memory: {}", lines_text(lines));
  if (in.min_slots > 0) {
    text += fmt::format(" + {} expert slots {}", in.min_slots,
                        bytes_text(in.min_slots * in.load.expert_bytes));
  }
  text +=
      fmt::format(" = {}, and {} may be used ({})", bytes_text(needed), bytes_text(budget),
                  by_flag ? fmt::format("--gpu-memory; {} are free", bytes_text(in.gpu_free_bytes))
                          : std::string("all that is free"));
  std::vector<std::string> ways;
  if (by_flag && needed <= in.gpu_free_bytes) {
    ways.push_back(fmt::format("raise --gpu-memory to {}", flag_text(needed)));
  }
  const int64_t context = fitting_context(in, budget, needed);
  if (context > 0) ways.push_back(fmt::format("lower --max-model-len to {}", context));
  if (context == 0 && in.max_num_seqs > 1) ways.emplace_back("lower --max-num-seqs to 1");
  if (!in.dense_8bit && in.dense.bits > 8) ways.emplace_back("give --dense-8bit");
  if (ways.empty()) ways.push_back(fmt::format("a GPU with {} free is needed", bytes_text(needed)));
  return fail(fmt::format("{}: {}", text, fmt::join(ways, ", or ")), ErrorKind::kResource);
}

struct GpuPlan {
  std::vector<PlacementLine> lines;
  DenseForm dense;
  int64_t used_bytes = 0;
  int64_t num_slots = 0;
  double cached_share = 0;
  double tok_s = 0;
};

Result<GpuPlan> plan_gpu(const PlacementInput& in, const DenseForm& dense, int64_t budget) {
  GpuPlan plan;
  plan.dense = dense;
  HS_ASSIGN_OR_RETURN(plan.lines, gpu_lines(in, dense));
  HS_ASSIGN_OR_RETURN(plan.used_bytes, sum(plan.lines));
  HS_ASSIGN_OR_RETURN(const int64_t least,
                      product("expert slots", in.min_slots, in.load.expert_bytes));
  const auto needed = checked_add(plan.used_bytes, least);
  if (!needed) return fail("memory plan: the sum of GPU memory overflows");
  if (*needed > budget) return refuse_gpu(in, plan.lines, *needed, budget);

  const int64_t all = in.load.total_experts();
  plan.num_slots = std::min(all, (budget - plan.used_bytes) / in.load.expert_bytes);
  plan.cached_share = static_cast<double>(plan.num_slots) / static_cast<double>(all);
  const int64_t slot_bytes = plan.num_slots * in.load.expert_bytes;
  plan.lines.push_back({fmt::format("{} expert slots", plan.num_slots), slot_bytes});
  plan.used_bytes += slot_bytes;
  DecodeLoad load = in.load;
  load.dense_bytes = static_cast<double>(dense.read_bytes);
  plan.tok_s = expected_decode_tok_s(in.rates, load, expected_hit_rate(plan.cached_share));
  return plan;
}

Status plan_ram(const PlacementInput& in, Placement& out) {
  HS_ASSIGN_OR_RETURN(const int64_t experts,
                      product("experts", in.load.total_experts(), in.load.expert_bytes));
  out.ram = {{"experts", experts},
             {"program", in.host_bytes},
             {"state snapshots", in.snapshot_bytes},
             {"margin", in.ram_margin_bytes}};
  HS_ASSIGN_OR_RETURN(out.ram_used_bytes, sum(out.ram));
  if (out.ram_used_bytes <= out.ram_budget_bytes) return {};
  const bool by_flag = in.ram_bytes && *in.ram_bytes < in.ram_available_bytes;
  const bool enough = out.ram_used_bytes <= in.ram_available_bytes;
  const std::string way = by_flag && enough
                              ? fmt::format("raise --ram to {}", flag_text(out.ram_used_bytes))
                              : fmt::format(
                                    "a machine with {} available is needed, or a checkpoint with "
                                    "fewer bits",
                                    bytes_text(out.ram_used_bytes));
  return fail(fmt::format("RAM: {} = {}, and {} may be used ({}): {}", lines_text(out.ram),
                          bytes_text(out.ram_used_bytes), bytes_text(out.ram_budget_bytes),
                          by_flag ? fmt::format("--ram; {} are available",
                                                bytes_text(in.ram_available_bytes))
                                  : std::string("all that is available"),
                          way),
              ErrorKind::kResource);
}

Status check_input(const PlacementInput& in) {
  const DecodeLoad& load = in.load;
  if (load.num_layers < 1 || load.num_experts < 1 || load.top_k < 1 || load.expert_bytes < 1) {
    return fail(fmt::format("memory plan: {} layers of {} experts of {} bytes", load.num_layers,
                            load.num_experts, load.expert_bytes));
  }
  if (in.gpu_free_bytes < 0 || in.ram_available_bytes < 0 || in.gpu_memory_bytes.value_or(0) < 0 ||
      in.ram_bytes.value_or(0) < 0 || in.min_slots < 0 || in.max_num_seqs < 1) {
    return fail("memory plan: a bound is below zero, or no sequence may run");
  }
  if (in.min_slots > load.total_experts()) {
    return fail(fmt::format("memory plan: {} slots asked for, {} experts in all", in.min_slots,
                            load.total_experts()));
  }
  return {};
}

std::string side_text(const char* title, const std::vector<PlacementLine>& lines, int64_t used,
                      int64_t budget) {
  std::string out = fmt::format("{:<28}{:>12}{:>8}\n", title, "bytes", "share");
  const double whole = std::max<double>(1.0, static_cast<double>(budget));
  const auto row = [&](const std::string& name, int64_t bytes) {
    out += fmt::format("  {:<26}{:>12}{:>6.1f} %\n", name, bytes_text(bytes),
                       100.0 * static_cast<double>(bytes) / whole);
  };
  for (const PlacementLine& line : lines) row(line.name, line.bytes);
  row("unused", budget - used);
  row("may be used", budget);
  return out;
}

}  // namespace

Result<Placement> plan_placement(const PlacementInput& input) {
  HS_RETURN_IF_ERROR(check_input(input));
  Placement out;
  out.gpu_budget_bytes =
      std::min(input.gpu_free_bytes, input.gpu_memory_bytes.value_or(input.gpu_free_bytes));
  out.ram_budget_bytes =
      std::min(input.ram_available_bytes, input.ram_bytes.value_or(input.ram_available_bytes));
  HS_RETURN_IF_ERROR(plan_ram(input, out));

  Result<GpuPlan> best = plan_gpu(input, input.dense, out.gpu_budget_bytes);
  if (input.dense_8bit) {
    Result<GpuPlan> other = plan_gpu(input, *input.dense_8bit, out.gpu_budget_bytes);
    // Equal speed keeps the exact weights; when neither fits, the smaller form says what is
    // missing.
    if (!best || (other && other->tok_s > best->tok_s)) std::swap(best, other);
    if (best && other) out.other_form_tok_s = other->tok_s;
  }
  if (!best) return fail(std::move(best).error());
  out.gpu = std::move(best->lines);
  out.gpu_used_bytes = best->used_bytes;
  out.dense = best->dense;
  out.num_slots = best->num_slots;
  out.cached_share = best->cached_share;
  out.expected_hit_rate = expected_hit_rate(best->cached_share);
  out.expected_tok_s = best->tok_s;
  return out;
}

std::string bytes_text(int64_t bytes) {
  if (bytes < kGiB) return fmt::format("{} MiB", (bytes + kMiB / 2) / kMiB);
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / static_cast<double>(kGiB));
}

std::string to_text(const Placement& placement) {
  std::string out =
      side_text("GPU memory", placement.gpu, placement.gpu_used_bytes, placement.gpu_budget_bytes) +
      side_text("RAM", placement.ram, placement.ram_used_bytes, placement.ram_budget_bytes);
  out += fmt::format(
      "{} experts on the GPU ({:.1f} % of all): hit rate {:.2f}, {:.0f} tokens/s to be "
      "expected\n",
      placement.num_slots, 100 * placement.cached_share, placement.expected_hit_rate,
      placement.expected_tok_s);
  if (placement.other_form_tok_s > 0) {
    out += fmt::format("dense modules at {} bits; in their other form {:.0f} tokens/s\n",
                       placement.dense.bits, placement.other_form_tok_s);
  }
  return out;
}

}  // namespace hotset
