// SPDX-License-Identifier: Apache-2.0
#include "experts/placement_refusal.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>

#include "base/checked_math.h"
#include "experts/placement_needs.h"

namespace hotset {
namespace {

constexpr int64_t kContextStep = 64;  // a suggested length is a multiple

// Changes that flags can make, as bits of a set.
enum Change : unsigned { kMoreSlots = 1, kDense8 = 2, kFewerSeqs = 4, kContext = 8 };
constexpr unsigned kAllChanges = kMoreSlots | kDense8 | kFewerSeqs | kContext;

// A plan of the same model with some of its flags changed.
class Changed {
 public:
  Changed(const PlacementInput& in, const DenseForm& dense, int64_t budget)
      : in_(in), dense_(dense), budget_(budget) {}

  // What to do; empty where the flags are not there to be changed, or it is not enough.
  [[nodiscard]] std::string by(unsigned changes);

 private:
  bool all_slots_allowed();
  bool dense_8bit();
  bool fewer_sequences(bool fewest);
  bool shorter_context();
  // What is left of the budget; below zero: it does not fit.
  [[nodiscard]] int64_t left() const {
    const auto needed = needed_gpu_bytes(in_, dense_);
    return needed ? budget_ - *needed : -1;
  }

  PlacementInput in_;
  DenseForm dense_;
  const int64_t budget_;
  std::vector<std::string> words_;
};

// Few slots need others beside them for a prefill, which all experts do without.
bool Changed::all_slots_allowed() {
  if (!in_.max_slots) return false;
  in_.max_slots.reset();
  in_.min_slots = std::max(in_.min_slots, std::min<int64_t>(1, in_.load.total_experts()));
  words_.emplace_back("leave out --max-expert-slots");
  return true;
}

bool Changed::dense_8bit() {
  if (!in_.dense_8bit_on_request) return false;
  dense_ = *in_.dense_8bit_on_request;
  words_.emplace_back("give --dense 8");
  return true;
}

bool Changed::fewer_sequences(bool fewest) {
  const int64_t most = in_.max_num_seqs;
  in_.max_num_seqs = in_.fixed_num_seqs + 1;
  if (in_.max_num_seqs >= most) return false;
  const int64_t spare = left();
  if (!fewest && spare > 0) {
    in_.max_num_seqs += 1;
    const int64_t each = std::max<int64_t>(1, spare - left());
    in_.max_num_seqs = std::min(most - 1, in_.fixed_num_seqs + 1 + spare / each);
  }
  words_.push_back(
      fmt::format("lower --max-num-seqs to {}", in_.max_num_seqs - in_.fixed_num_seqs));
  return true;
}

bool Changed::shorter_context() {
  const int64_t asked = std::exchange(in_.max_model_len, 0);
  if (in_.kv_token_bytes <= 0) return false;
  const int64_t step = round_up(kContextStep, in_.kv_page_tokens);
  in_.max_model_len = left() / in_.kv_token_bytes / step * step;
  words_.push_back(fmt::format("lower --max-model-len to {}", in_.max_model_len));
  return in_.max_model_len >= kLeastContext && in_.max_model_len < asked;
}

std::string Changed::by(unsigned changes) {
  if ((changes & kMoreSlots) != 0 && !all_slots_allowed()) return {};
  if ((changes & kDense8) != 0 && !dense_8bit()) return {};
  if ((changes & kFewerSeqs) != 0 && !fewer_sequences((changes & kContext) != 0)) return {};
  if ((changes & kContext) != 0 && !shorter_context()) return {};
  return left() < 0 ? std::string() : fmt::format("{}", fmt::join(words_, " and "));
}

// Each of them alone; where none is enough, the least that is enough together.
std::vector<std::string> ways_to_fit(const PlacementInput& in, const Placement& plan,
                                     int64_t needed) {
  std::vector<std::string> ways;
  if (in.gpu_memory_bytes && (in.is_imagined || needed <= in.gpu_free_bytes)) {
    ways.push_back(fmt::format("raise --gpu-memory to {}", flag_text(needed)));
  }
  for (int count = 1; count <= std::popcount(kAllChanges); ++count) {
    if (count > 1 && !ways.empty()) break;
    for (unsigned changes = 1; changes <= kAllChanges; ++changes) {
      if (std::popcount(changes) != count) continue;
      std::string way = Changed(in, plan.dense, plan.gpu_budget_bytes).by(changes);
      if (!way.empty()) ways.push_back(std::move(way));
    }
  }
  if (ways.empty()) ways.push_back(fmt::format("a GPU with {} free is needed", bytes_text(needed)));
  return ways;
}

// "--ram; 20 GiB are available", or that all there is was not enough.
std::string limit_text(const char* flag, std::optional<int64_t> flag_bytes, int64_t there_bytes,
                       bool is_imagined, const char* word) {
  if (is_imagined && flag_bytes) return flag;
  if (!flag_bytes || *flag_bytes >= there_bytes) return fmt::format("all that is {}", word);
  return fmt::format("{}; {} are {}", flag, bytes_text(there_bytes), word);
}

}  // namespace

std::string lines_text(const std::vector<PlacementLine>& lines) {
  std::string out;
  for (const PlacementLine& line : lines) {
    if (line.bytes == 0) continue;
    out += fmt::format("{}{} {}", out.empty() ? "" : " + ", line.name, bytes_text(line.bytes));
  }
  return out;
}

std::string ram_limit_text(std::optional<int64_t> ram_bytes, int64_t available_bytes,
                           bool is_imagined) {
  return limit_text("--ram", ram_bytes, available_bytes, is_imagined, "available");
}

tl::unexpected<Error> refuse_gpu(const PlacementInput& in, const Placement& plan, int64_t needed) {
  std::string text = fmt::format("GPU memory: {}", lines_text(plan.gpu));
  if (const int64_t slots = least_slots(in); slots > 0) {
    text += fmt::format(" + {} expert slots {}", slots, bytes_text(slots * in.load.expert_bytes));
  }
  text += fmt::format(
      " = {}, and {} may be used ({})", bytes_text(needed), bytes_text(plan.gpu_budget_bytes),
      limit_text("--gpu-memory", in.gpu_memory_bytes, in.gpu_free_bytes, in.is_imagined, "free"));
  return fail(fmt::format("{}: {}", text, fmt::join(ways_to_fit(in, plan, needed), ", or ")),
              ErrorKind::kResource);
}

tl::unexpected<Error> refuse_ram(const PlacementInput& in, const Placement& plan) {
  const int64_t needed = plan.ram_used_bytes;
  const bool can_be_raised = in.ram_bytes && (in.is_imagined || needed <= in.ram_available_bytes);
  const std::string way = can_be_raised
                              ? fmt::format("raise --ram to {}", flag_text(needed))
                              : fmt::format(
                                    "a machine with {} available is needed, or a checkpoint with "
                                    "fewer bits",
                                    bytes_text(needed));
  return fail(
      fmt::format("RAM: {} = {}, and {} may be used ({}): {}", lines_text(plan.ram),
                  bytes_text(needed), bytes_text(plan.ram_budget_bytes),
                  ram_limit_text(in.ram_bytes, in.ram_available_bytes, in.is_imagined), way),
      ErrorKind::kResource);
}

}  // namespace hotset
