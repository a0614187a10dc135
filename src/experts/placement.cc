// SPDX-License-Identifier: Apache-2.0
#include "experts/placement.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked_math.h"
#include "experts/placement_needs.h"
#include "experts/placement_refusal.h"

namespace hotset {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;
// What rounding the dense modules must promise; rates are not known better.
constexpr double kWorthRounding = 1.05;

struct Slots {
  int64_t experts = 0;
  int64_t staging = 0;
};

// `fit`: at least least_slots().
Slots slots_in(const PlacementInput& in, int64_t fit) {
  const int64_t all = in.load.total_experts();
  const int64_t wanted = std::min(all, in.max_slots.value_or(all));
  if (wanted == all && fit >= all) return {.experts = all};
  if (std::min(fit, wanted) >= in.lending_slots) return {.experts = std::min(fit, wanted)};
  return {.experts = std::min(fit - in.staging_slots, wanted), .staging = in.staging_slots};
}

Status plan_gpu(const PlacementInput& in, Placement& out) {
  HS_ASSIGN_OR_RETURN(out.gpu, gpu_lines(in, out.dense));
  HS_ASSIGN_OR_RETURN(out.gpu_used_bytes, sum_of(out.gpu));
  HS_ASSIGN_OR_RETURN(const int64_t needed, needed_gpu_bytes(in, out.dense));
  if (needed > out.gpu_budget_bytes) return refuse_gpu(in, out, needed);
  const int64_t slot_bytes = std::max<int64_t>(1, in.load.expert_bytes);
  const Slots slots = slots_in(in, (out.gpu_budget_bytes - out.gpu_used_bytes) / slot_bytes);
  out.num_slots = slots.experts;
  out.num_experts = in.load.total_experts();
  out.cached_share = out.num_experts == 0 ? 1
                                          : static_cast<double>(out.num_slots) /
                                                static_cast<double>(out.num_experts);
  if (slots.staging > 0) out.gpu.push_back({"prefill staging", slots.staging * slot_bytes});
  out.gpu.push_back({fmt::format("{} expert slots", out.num_slots), out.num_slots * slot_bytes});
  out.gpu_used_bytes += (slots.staging + slots.experts) * slot_bytes;
  out.expected_hit_rate = expected_hit_rate(out.cached_share);
  DecodeLoad load = in.load;
  load.dense_bytes = static_cast<double>(out.dense.read_bytes);
  out.expected_tok_s = expected_decode_tok_s(in.rates, load, out.expected_hit_rate);
  return {};
}

Status plan_ram(const PlacementInput& in, Placement& out) {
  out.ram = {{"experts", in.bank_bytes},
             {fmt::format("dense, {} bits", out.dense.bits), out.dense.host_bytes},
             {"program", in.host_bytes},
             {"margin", in.ram_margin_bytes}};
  HS_ASSIGN_OR_RETURN(out.ram_used_bytes, sum_of(out.ram));
  if (out.ram_used_bytes <= out.ram_budget_bytes) return {};
  return refuse_ram(in, out);
}

Status check_input(const PlacementInput& in) {
  const DecodeLoad& load = in.load;
  const bool no_experts = load.num_layers == 0;
  if (!no_experts &&
      (load.num_layers < 0 || load.num_experts < 1 || load.top_k < 1 || load.expert_bytes < 1)) {
    return fail(fmt::format("memory plan: {} layers of {} experts of {} bytes", load.num_layers,
                            load.num_experts, load.expert_bytes));
  }
  if (in.gpu_free_bytes < 0 || in.ram_available_bytes < 0 || in.gpu_memory_bytes.value_or(0) < 0 ||
      in.ram_bytes.value_or(0) < 0 || in.min_slots < 0 || in.max_slots.value_or(0) < 0 ||
      in.lending_slots < 0 || in.staging_slots < 0 || in.max_num_seqs < 1) {
    return fail("memory plan: a bound is below zero, or no sequence may run");
  }
  constexpr int64_t kMostTokens = int64_t{1} << 40;
  if (in.max_model_len < 0 || in.max_model_len > kMostTokens || in.max_num_seqs > kMostTokens ||
      in.kv_page_tokens < 1 || in.kv_page_tokens > 65536) {
    return fail(fmt::format("memory plan: {} sequences of {} tokens in pages of {}",
                            in.max_num_seqs, in.max_model_len, in.kv_page_tokens));
  }
  if (in.min_slots > load.total_experts()) {
    return fail(fmt::format("memory plan: {} slots asked for, {} experts in all", in.min_slots,
                            load.total_experts()));
  }
  return {};
}

Result<Placement> plan_form(const PlacementInput& in, const DenseForm& dense) {
  Placement out;
  out.dense = dense;
  out.gpu_budget_bytes =
      std::min(in.gpu_free_bytes, in.gpu_memory_bytes.value_or(in.gpu_free_bytes));
  out.ram_budget_bytes =
      std::min(in.ram_available_bytes, in.ram_bytes.value_or(in.ram_available_bytes));
  HS_RETURN_IF_ERROR(plan_ram(in, out));
  HS_RETURN_IF_ERROR(plan_gpu(in, out));
  return out;
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
  Result<Placement> best = plan_form(input, input.dense);
  if (!input.dense_8bit) return best;
  Result<Placement> other = plan_form(input, *input.dense_8bit);
  // A gain smaller than what rates are known by keeps the exact weights; when neither fits, the
  // smaller form says what is missing.
  if (!best || (other && other->expected_tok_s > best->expected_tok_s * kWorthRounding)) {
    std::swap(best, other);
  }
  if (best && other) best->other_form_tok_s = other->expected_tok_s;
  return best;
}

int64_t Placement::gpu_bytes(std::string_view name) const {
  int64_t bytes = 0;
  for (const PlacementLine& line : gpu) {
    if (line.name.starts_with(name)) bytes += line.bytes;
  }
  return bytes;
}

std::string bytes_text(int64_t bytes) {
  if (bytes < kGiB) return fmt::format("{} MiB", (bytes + kMiB / 2) / kMiB);
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / static_cast<double>(kGiB));
}

std::string flag_text(int64_t bytes) {
  if (bytes < kGiB) return fmt::format("{}MiB", ceil_div(bytes, kMiB));
  const int64_t hundredths = bytes / kGiB * 100 + ceil_div(bytes % kGiB * 100, kGiB);
  if (hundredths % 100 == 0) return fmt::format("{}GiB", hundredths / 100);
  return fmt::format("{}.{:02}GiB", hundredths / 100, hundredths % 100);
}

std::string to_text(const Placement& placement) {
  const std::string ram =
      side_text("RAM", placement.ram, placement.ram_used_bytes, placement.ram_budget_bytes);
  if (placement.gpu.empty()) return ram;
  std::string out =
      side_text("GPU memory", placement.gpu, placement.gpu_used_bytes, placement.gpu_budget_bytes) +
      ram;
  out += fmt::format(
      "{} of {} experts on the GPU ({:.1f} %): hit rate {:.2f}, {:.0f} tokens/s to be expected\n",
      placement.num_slots, placement.num_experts, 100 * placement.cached_share,
      placement.expected_hit_rate, placement.expected_tok_s);
  if (placement.other_form_tok_s > 0) {
    out += fmt::format("dense modules at {} bits; in their other form {:.0f} tokens/s\n",
                       placement.dense.bits, placement.other_form_tok_s);
  }
  return out;
}

}  // namespace hotset
