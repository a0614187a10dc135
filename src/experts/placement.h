// SPDX-License-Identifier: Apache-2.0
// The memory plan: what every byte of GPU memory and RAM is promised to before anything is
// allocated. Arithmetic only: measured figures and bounds go in, a plan or a refusal comes out; a
// refusal says what is needed, what there is, and which flag would make it fit.
//
//   GPU   dense + KV + states + workspace + graphs + margin, and experts' slots with all that is
//   left RAM   all experts + dense + what the program needs beside them + margin
//
// Dense modules may come with a second, smaller form (8 bits). Where that is allowed the plan takes
// the form that promises more tokens a second (speed_model.h): fewer dense bytes to read, and more
// slots in the memory saved.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "experts/speed_model.h"

namespace hotset {

struct DenseForm {
  int32_t bits = 16;         // for people
  int64_t stored_bytes = 0;  // in GPU memory
  int64_t read_bytes = 0;    // a decode step
  int64_t host_bytes = 0;    // in RAM
};

struct PlacementInput {
  int64_t gpu_free_bytes = 0;               // measured
  std::optional<int64_t> gpu_memory_bytes;  // --gpu-memory
  int64_t ram_available_bytes = 0;          // measured
  std::optional<int64_t> ram_bytes;         // --ram
  // Nothing was measured: flags describe the machine, and can describe a larger one.
  bool is_imagined = false;

  DenseForm dense;
  std::optional<DenseForm> dense_8bit;             // present: allowed (--dense auto)
  std::optional<DenseForm> dense_8bit_on_request;  // present: only advised (--dense 8)

  // One longest context in all, which sequences share, and a started page for each of them.
  int64_t kv_token_bytes = 0;  // all attention layers
  int64_t kv_page_tokens = 1;
  int64_t max_model_len = 0;   // --max-model-len
  int64_t max_num_seqs = 1;    // --max-num-seqs, and
  int64_t fixed_num_seqs = 0;  // those among them that no flag takes away
  int64_t state_bytes = 0;     // recurrent state of one sequence
  int64_t workspace_bytes = 0;
  int64_t graph_bytes = 0;       // CUDA's own: context growth, graphs
  int64_t gpu_margin_bytes = 0;  // never promised to anyone

  int64_t min_slots = 0;             // fewer make no sense: refuse
  std::optional<int64_t> max_slots;  // more are not wanted
  // With fewer slots than these, and not all experts in them, none can be lent to a prefill, which
  // gets slots of its own.
  int64_t lending_slots = 0;
  int64_t staging_slots = 0;

  int64_t bank_bytes = 0;  // all experts in RAM
  int64_t host_bytes = 0;  // buffers, tokenizer, the program
  int64_t ram_margin_bytes = 0;

  DecodeLoad load;  // dense_bytes is taken from the form that is chosen
  MachineRates rates;
};

struct PlacementLine {
  std::string name;
  int64_t bytes = 0;
};

struct Placement {
  std::vector<PlacementLine> gpu;  // in the order of the head of this file, slots last
  std::vector<PlacementLine> ram;
  int64_t gpu_budget_bytes = 0;  // what may be used: the flag or what is free, whichever is less
  int64_t ram_budget_bytes = 0;
  int64_t gpu_used_bytes = 0;  // the sum of the lines
  int64_t ram_used_bytes = 0;
  DenseForm dense;  // the form chosen
  int64_t num_slots = 0;
  int64_t num_experts = 0;
  double cached_share = 0;  // of all experts, 0…1
  double expected_hit_rate = 0;
  double expected_tok_s = 0;    // one sequence, decode
  double other_form_tok_s = 0;  // with the form not chosen; 0: not allowed or does not fit

  // Of all lines whose names begin so.
  [[nodiscard]] int64_t gpu_bytes(std::string_view name) const;
};

[[nodiscard]] Result<Placement> plan_placement(const PlacementInput& input);

// A table for people: a line a use with bytes and share, then slots and expected speed.
[[nodiscard]] std::string to_text(const Placement& placement);

// "14.2 GiB", "512 MiB".
[[nodiscard]] std::string bytes_text(int64_t bytes);
// What a flag should be set to: "14.21GiB", rounded up, so that it is enough.
[[nodiscard]] std::string flag_text(int64_t bytes);

}  // namespace hotset
