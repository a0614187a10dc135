// SPDX-License-Identifier: Apache-2.0
#include "kernels/matmul.h"

#include <array>

#include "base/check.h"
#include "kernels/cpu/matmul_inputs.h"

namespace hotset {
namespace {

using cpu::Activations;
using cpu::InputKey;
using cpu::MatmulKernels;
using cpu::Range;
using cpu::TileFormat;

constexpr size_t kMaxOutputs = 16;
// Below this many values the caller prepares the input alone, which saves the threads a meeting.
constexpr int64_t kPrepareAlone = 4096;

struct Input {
  InputKey key;
  Activations values;
};

struct MatmulPlan {
  std::span<const MatmulOutput> outputs;
  const float* x = nullptr;
  int64_t ldx = 0;
  int64_t num_tokens = 0;
  int64_t cols = 0;
  std::array<Input, kMaxOutputs> inputs = {};
  size_t num_inputs = 0;
  std::array<size_t, kMaxOutputs> input_of = {};
  std::array<TileFormat, kMaxOutputs> formats = {};
  int64_t total_cost = 0;
};

size_t find_or_add_input(MatmulPlan& plan, const InputKey& key, cpu::Scratch& scratch) {
  for (size_t i = 0; i < plan.num_inputs; ++i) {
    if (plan.inputs[i].key == key) return i;
  }
  plan.inputs[plan.num_inputs] = {
      key, take_activations(scratch, key, plan.num_tokens, plan.cols, plan.x, plan.ldx)};
  return plan.num_inputs++;
}

void plan_outputs(MatmulPlan& plan, cpu::Queue& queue) {
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    const PackedMatrix& weight = *plan.outputs[i].weight;
    HS_CHECK(weight.cols == plan.cols, "output {} reads {} columns, the first {}", i, weight.cols,
             plan.cols);
    plan.input_of[i] =
        find_or_add_input(plan, cpu::input_key(weight, queue.arithmetic), queue.scratch);
    plan.formats[i] = tile_format(weight, i > 0 ? &plan.formats[i - 1] : nullptr);
    plan.total_cost += weight.num_tiles() * cpu::tile_cost(weight, plan.num_tokens);
  }
}

void prepare_inputs(const MatmulPlan& plan, const MatmulKernels& kernels, Range tokens) {
  for (size_t i = 0; i < plan.num_inputs; ++i) {
    for (int64_t token = tokens.begin; token < tokens.end; ++token) {
      prepare_row(kernels, plan.inputs[i].key, plan.inputs[i].values, token,
                  plan.x + token * plan.ldx, plan.cols);
    }
  }
}

void multiply_share(const MatmulPlan& plan, const MatmulKernels& kernels, Range cost) {
  int64_t before = 0;
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    const MatmulOutput& output = plan.outputs[i];
    const int64_t each = cpu::tile_cost(*output.weight, plan.num_tokens);
    const int64_t num_tiles = output.weight->num_tiles();
    const Range tiles = cpu::tile_share(cost, before, each, num_tiles);
    before += each * num_tiles;
    if (tiles.begin == tiles.end) continue;
    run_tiles(kernels, *output.weight, plan.formats[i], plan.inputs[plan.input_of[i]].values, tiles,
              plan.num_tokens, output.y + tiles.begin * kTileRows, output.ldy);
  }
}

bool all_plain(const MatmulPlan& plan) {
  for (size_t i = 0; i < plan.num_inputs; ++i) {
    if (!plan.inputs[i].key.is_plain()) return false;
  }
  return true;
}

}  // namespace

void matmul(cpu::Queue& queue, std::span<const MatmulOutput> outputs, const float* x, int64_t ldx,
            int64_t num_tokens) {
  if (outputs.empty() || num_tokens == 0) return;
  HS_CHECK(outputs.size() <= kMaxOutputs, "{} outputs of one input", outputs.size());
  const cpu::ScratchScope scope(queue.scratch);
  const MatmulKernels& kernels = cpu::matmul_kernels(queue.isa);
  MatmulPlan plan{.outputs = outputs, .x = x, .ldx = ldx, .num_tokens = num_tokens};
  plan.cols = outputs[0].weight->cols;
  plan_outputs(plan, queue);
  const bool plain = all_plain(plan);
  const bool alone = !plain && num_tokens * plan.cols <= kPrepareAlone;
  if (alone) prepare_inputs(plan, kernels, {0, num_tokens});
  queue.pool.run([&](int worker, int num_workers) {
    if (!plain && !alone) {
      prepare_inputs(plan, kernels, cpu::even_share(num_tokens, worker, num_workers));
      queue.pool.barrier();
    }
    multiply_share(plan, kernels, cpu::even_share(plan.total_cost, worker, num_workers));
  });
}

}  // namespace hotset
