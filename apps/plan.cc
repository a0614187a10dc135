// SPDX-License-Identifier: Apache-2.0
// hotset plan: where every byte of GPU memory and RAM would go, and what speed follows, without
// loading. On a machine without a GPU, --gpu-memory describes one.
#include <fmt/format.h>

#include "loaded_model.h"
#include "model/model_plan.h"
#include "report_error.h"
#include "server/strict_json.h"
#include "verbs.h"

namespace hotset {
namespace {

Json lines_json(const std::vector<PlacementLine>& lines) {
  Json json = Json::array();
  for (const PlacementLine& line : lines) {
    json.push_back({{"name", line.name}, {"bytes", line.bytes}});
  }
  return json;
}

Json rates_json(const MachineRates& rates) {
  return {{"gpu_bytes_per_s", rates.gpu_bytes_per_s},
          {"cpu_bytes_per_s", rates.cpu_bytes_per_s},
          {"cpu_overlapped_bytes_per_s", rates.cpu_overlapped_bytes_per_s},
          {"pcie_bytes_per_s", rates.pcie_bytes_per_s},
          {"pcie_overlapped_bytes_per_s", rates.pcie_overlapped_bytes_per_s},
          {"host_bytes_per_s", rates.host_bytes_per_s},
          {"handshake_s", rates.handshake_s},
          {"kernel_s", rates.node_s}};
}

void print_json(const std::string& name, const ModelPlan& plan) {
  const Placement& p = plan.placement;
  const bool on_gpu = !plan.gpu_name.empty();
  Json json{{"name", name},
            {"device", on_gpu ? plan.gpu_name : "CPU"},
            {"cpu_threads", plan.options.cpu_threads},
            {"max_model_len", plan.options.max_model_len},
            {"max_num_seqs", plan.options.max_num_seqs},
            {"dense_bits", p.dense.bits},
            {"ram", lines_json(p.ram)},
            {"ram_used_bytes", p.ram_used_bytes},
            {"ram_budget_bytes", p.ram_budget_bytes}};
  if (!plan.why_cpu.empty()) json["no_gpu"] = plan.why_cpu;
  if (on_gpu) {
    json["gpu"] = lines_json(p.gpu);
    json["gpu_used_bytes"] = p.gpu_used_bytes;
    json["gpu_budget_bytes"] = p.gpu_budget_bytes;
    json["num_slots"] = p.num_slots;
    json["num_experts"] = p.num_experts;
    json["cached_share"] = p.cached_share;
    json["expected_hit_rate"] = p.expected_hit_rate;
    json["expected_tok_s"] = p.expected_tok_s;
    json["other_form_tok_s"] = p.other_form_tok_s;
    json["rates"] = rates_json(plan.rates);
    json["rates_are_typical"] = plan.rates_are_typical;
  }
  json["notes"] = plan.notes;
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

void print_text(const std::string& name, const ModelPlan& plan) {
  const bool on_gpu = !plan.gpu_name.empty();
  const ModelOptions& chosen = plan.options;
  fmt::print("{} on {}: context {} tokens, {} sequence{}, {} CPU thread{}\n\n{}", name,
             on_gpu ? plan.gpu_name : "the CPU", chosen.max_model_len, chosen.max_num_seqs,
             chosen.max_num_seqs == 1 ? "" : "s", chosen.cpu_threads,
             chosen.cpu_threads == 1 ? "" : "s", to_text(plan.placement));
  if (!plan.why_cpu.empty()) fmt::print("no GPU: {}\n", plan.why_cpu);
  if (on_gpu) {
    const MachineRates& r = plan.rates;
    fmt::print(
        "rates ({}), GB/s: device memory {:.0f}, PCIe {:.1f}, CPU's experts {:.0f}, both at once "
        "{:.1f} and {:.0f}\n",
        plan.rates_are_typical ? "of a desktop, for there is no GPU here" : "measured now",
        r.gpu_bytes_per_s / 1e9, r.pcie_bytes_per_s / 1e9, r.cpu_bytes_per_s / 1e9,
        r.pcie_overlapped_bytes_per_s / 1e9, r.cpu_overlapped_bytes_per_s / 1e9);
  }
  for (const std::string& note : plan.notes) fmt::print("{}\n", note);
}

Status plan(const PlanOptions& options) {
  HS_ASSIGN_OR_RETURN(ModelOptions model_options, to_model_options(options.model));
  HS_ASSIGN_OR_RETURN(const ResolvedModel resolved, find_model(options.model));
  model_options.max_num_seqs = options.max_num_seqs;
  HS_ASSIGN_OR_RETURN(const ModelPlan made,
                      plan_model(resolved.directory, model_options, /*imagine_gpu=*/true));
  if (options.json) {
    print_json(resolved.name, made);
  } else {
    print_text(resolved.name, made);
  }
  return {};
}

}  // namespace

int run_plan(const PlanOptions& options) {
  const Status status = plan(options);
  return status ? kExitFine : report_error(status.error());
}

}  // namespace hotset
