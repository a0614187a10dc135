// SPDX-License-Identifier: Apache-2.0
#include "model/cpu_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked_math.h"
#include "experts/placement_refusal.h"
#include "kvcache/page_pool.h"
#include "kvcache/state_pool.h"
#include "model/backend.h"
#include "model/model_plan.h"
#include "model/workspace.h"

namespace hotset {
namespace {

constexpr int64_t kPrefillChunk = 512;

class Counter {
 public:
  Counter(const ModelConfig& config, const WeightPlan& weights, const ModelOptions& options,
          int64_t usable_bytes)
      : config_(config),
        weights_(weights),
        options_(options),
        pages_(page_pool_shape(config, weights.weights->mtp != nullptr,
                               kv_type_bytes(options.kv_type))),
        usable_(usable_bytes),
        budget_(options.ram_bytes > 0 ? std::min(options.ram_bytes, usable_bytes) : usable_bytes) {}

  Result<CpuPlan> plan() const;

 private:
  // What is asked for: a context, and sequences.
  struct Load {
    int64_t context = 0;
    int64_t num_seqs = 0;
  };

  [[nodiscard]] int64_t chunk(const Load& load) const {
    const int64_t asked = options_.prefill_chunk > 0 ? options_.prefill_chunk : kPrefillChunk;
    return std::clamp<int64_t>(asked, 1, load.context);
  }
  // One longest context, and a started page for each sequence.
  static int64_t least_pages(const Load& load) {
    return ceil_div(load.context, kPageTokens) + load.num_seqs;
  }
  [[nodiscard]] std::vector<PlacementLine> lines(const Load& load, int64_t num_pages) const;
  [[nodiscard]] int64_t bytes(const Load& load, int64_t num_pages) const {
    int64_t sum = 0;
    for (const PlacementLine& line : lines(load, num_pages)) sum += line.bytes;
    return sum;
  }
  [[nodiscard]] bool fits(const Load& load) const {
    return bytes(load, least_pages(load)) <= budget_;
  }
  [[nodiscard]] int64_t longest_context(int64_t most, int64_t num_seqs) const;
  [[nodiscard]] int64_t open_context() const;
  [[nodiscard]] int64_t num_pages(const Load& load) const;
  // Of what the weights leave, as pages.
  [[nodiscard]] int64_t half_of_the_rest() const {
    const int64_t left = std::max<int64_t>(0, budget_ - packed_bytes(weights_));
    return left / 2 / std::max<int64_t>(1, pages_.page_bytes());
  }
  [[nodiscard]] std::string limit_text() const {
    const auto flag = options_.ram_bytes > 0 ? std::optional(options_.ram_bytes) : std::nullopt;
    return ram_limit_text(flag, usable_);
  }
  [[nodiscard]] tl::unexpected<Error> refuse(const Load& load) const;
  [[nodiscard]] std::vector<std::string> ways_to_fit(const Load& load, int64_t needed) const;

  const ModelConfig& config_;
  const WeightPlan& weights_;
  const ModelOptions& options_;
  const PagePoolShape pages_;
  const int64_t usable_;
  const int64_t budget_;
};

std::vector<PlacementLine> Counter::lines(const Load& load, int64_t num_pages) const {
  const WorkspaceShape rows{.max_chunk = chunk(load),
                            .max_step = chunk(load),
                            .max_context = load.context,
                            .page_tokens = kPageTokens,
                            .kv_type = options_.kv_type};
  const int64_t slot_bytes = state_pool_shape(config_, load.num_seqs).slot_floats() * 4;
  return {{"experts", packed_bytes(weights_) - weights_.dense_bytes},
          {fmt::format("dense, {} bits", options_.dense == DenseBits::k8 ? 8 : 16),
           weights_.dense_bytes},
          {"KV", num_pages * pages_.page_bytes()},
          {"states", slot_bytes * load.num_seqs},
          {"workspace", workspace_bytes(config_, rows, {})}};
}

// In whole pages, so that the same figure can be asked for; 0: not even one fits.
int64_t Counter::longest_context(int64_t most, int64_t num_seqs) const {
  int64_t good = 0, bad = most / kPageTokens + 1;
  while (bad - good > 1) {
    const int64_t middle = good + (bad - good) / 2;
    (fits({middle * kPageTokens, num_seqs}) ? good : bad) = middle;
  }
  return good * kPageTokens;
}

// The config's, cut to half of what the weights leave and to what fits beside all else. Where the
// least does not fit, the load is refused.
int64_t Counter::open_context() const {
  const int64_t most = config_.max_position_embeddings;
  const int64_t least = std::min(kLeastContext, most);
  const int64_t context = std::clamp(half_of_the_rest() * kPageTokens, least, most);
  if (fits({context, options_.max_num_seqs})) return context;
  return std::max(least, longest_context(context, options_.max_num_seqs));
}

// Every sequence may grow to the whole context where half of the memory left allows it; else one
// may, and others share what it leaves or wait.
int64_t Counter::num_pages(const Load& load) const {
  const int64_t least = least_pages(load);
  const int64_t most = std::max(least, ceil_div(load.context, kPageTokens) * load.num_seqs);
  const int64_t fit = (budget_ - bytes(load, 0)) / std::max<int64_t>(1, pages_.page_bytes());
  return std::clamp(std::min(half_of_the_rest(), fit), least, most);
}

std::vector<std::string> Counter::ways_to_fit(const Load& load, int64_t needed) const {
  std::vector<std::string> ways;
  if (options_.ram_bytes > 0 && needed <= usable_) {
    ways.push_back(fmt::format("raise --ram to {}", flag_text(needed)));
  }
  const int64_t fixed = options_.fixed_num_seqs;
  for (int64_t seqs = load.num_seqs - 1; seqs > fixed; --seqs) {
    if (!fits({load.context, seqs})) continue;
    ways.push_back(fmt::format("lower --max-num-seqs to {}", seqs - fixed));
    break;
  }
  if (options_.max_model_len == 0) return ways;
  const int64_t context = longest_context(load.context - 1, load.num_seqs);
  if (context >= kLeastContext) ways.push_back(fmt::format("lower --max-model-len to {}", context));
  if (!ways.empty() || fixed + 1 >= load.num_seqs) return ways;
  const int64_t of_one = longest_context(load.context - 1, fixed + 1);
  if (of_one >= kLeastContext) {
    ways.push_back(fmt::format("lower --max-num-seqs to 1 and --max-model-len to {}", of_one));
  }
  return ways;
}

tl::unexpected<Error> Counter::refuse(const Load& load) const {
  Placement plan;
  plan.ram = lines(load, least_pages(load));
  plan.ram_used_bytes = bytes(load, least_pages(load));
  std::vector<std::string> ways = ways_to_fit(load, plan.ram_used_bytes);
  if (ways.empty()) {
    ways.push_back(
        fmt::format("a machine with {} available is needed", bytes_text(plan.ram_used_bytes)));
  }
  return fail(fmt::format("RAM: {} for a context of {} tokens = {}, and {} may be used ({}): {}",
                          lines_text(plan.ram), load.context, bytes_text(plan.ram_used_bytes),
                          bytes_text(budget_), limit_text(), fmt::join(ways, ", or ")),
              ErrorKind::kResource);
}

Result<CpuPlan> Counter::plan() const {
  const Load load{options_.max_model_len > 0 ? options_.max_model_len : open_context(),
                  options_.max_num_seqs};
  if (!fits(load)) return refuse(load);
  CpuPlan out{
      .max_model_len = load.context, .prefill_chunk = chunk(load), .num_pages = num_pages(load)};
  out.placement.ram_budget_bytes = budget_;
  out.placement.dense.bits = options_.dense == DenseBits::k8 ? 8 : 16;
  out.placement.ram = lines(load, out.num_pages);
  out.placement.ram_used_bytes = bytes(load, out.num_pages);
  return out;
}

}  // namespace

Result<CpuPlan> plan_cpu(const ModelConfig& config, const WeightPlan& weights,
                         const ModelOptions& options, int64_t usable_bytes) {
  return Counter(config, weights, options, usable_bytes).plan();
}

}  // namespace hotset
