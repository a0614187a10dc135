// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_launch.h"
#include "kernels/cuda/shape_check.cuh"
#include "kernels/matmul.h"

namespace hotset {
namespace cuda {
namespace {

struct RoundedForm {
  int32_t group = 0;
  const int32_t* order = nullptr;
  RoundedInput input;
};

// The distinct rounded forms that the weights want, and which of them each one reads.
struct RoundedForms {
  RoundedForm forms[kMaxOutputs];
  int num_forms = 0;
  RoundArgs args;

  RoundedInput add(Queue& queue, const TileLayout& f, int64_t rows) {
    for (int i = 0; i < num_forms; ++i) {
      if (forms[i].group == f.group && forms[i].order == f.order) return forms[i].input;
    }
    const RoundedInput input = take_rounded(queue, rows, f.num_subs());
    forms[num_forms++] = {f.group, f.order, input};
    args.jobs[args.num_jobs++] = round_job(f, input);
    return input;
  }
};

struct Input {
  const float* x;
  int64_t ldx;
  int64_t num_tokens;
};

RoundArgs round_args(const Input& input) {
  RoundArgs args;
  args.x = input.x;
  args.ldx = input.ldx;
  args.num_rows = input.num_tokens;
  return args;
}

// All outputs in one launch.
void multiply_few(Queue& queue, std::span<const MatmulOutput> outputs, const Input& input) {
  const ScratchScope scope(queue);
  RoundedForms rounded;
  rounded.args = round_args(input);
  DecodeArgs decode;
  decode.num_tokens = static_cast<int32_t>(input.num_tokens);
  decode.x = input.x;
  decode.ldx = input.ldx;
  for (const MatmulOutput& output : outputs) {
    DecodeJob& job = decode.jobs[decode.num_jobs++];
    job.weight = tile_layout(*output.weight, queue.arithmetic);
    job.y = output.y;
    job.ldy = output.ldy;
    if (job.weight.integer) job.input = rounded.add(queue, job.weight, input.num_tokens);
  }
  if (!queue.status) return;
  if (input.num_tokens <= kSelfRounded && rounded.num_forms == 1) {
    decode.cut = cut_of(rounded.args.jobs[0]);
    decode.rounds = input.num_tokens * rounded_row_bytes(decode.cut) <= kMaxRoundedRow;
  }
  if (!decode.rounds) round_rows(queue, rounded.args);
  decode_products(queue, decode);
}

// Outputs one by one, those that share a rounded form in a row: it takes scratch for one form only.
void multiply_many(Queue& queue, std::span<const MatmulOutput> outputs, const Input& input) {
  bool done[kMaxOutputs] = {};
  for (size_t first = 0; first < outputs.size(); ++first) {
    if (done[first]) continue;
    const ScratchScope scope(queue);
    const TileLayout key = tile_layout(*outputs[first].weight, queue.arithmetic);
    RoundedInput rounded;
    if (key.integer) {
      RoundArgs args = round_args(input);
      rounded = take_rounded(queue, input.num_tokens, key.num_subs());
      args.jobs[args.num_jobs++] = round_job(key, rounded);
      round_rows(queue, args);
    }
    for (size_t i = first; i < outputs.size(); ++i) {
      const TileLayout f = tile_layout(*outputs[i].weight, queue.arithmetic);
      const bool same = f.integer == key.integer &&
                        (!f.integer || (f.group == key.group && f.order == key.order));
      if (done[i] || !same) continue;
      done[i] = true;
      gemm(queue, {.weight = f,
                   .input = rounded,
                   .x = input.x,
                   .ldx = input.ldx,
                   .y = outputs[i].y,
                   .ldy = outputs[i].ldy,
                   .num_tokens = input.num_tokens});
    }
  }
}

}  // namespace

int64_t matmul_scratch_bytes(int64_t num_tokens, int64_t max_cols) {
  const int64_t subs = most_subs(max_cols);
  return std::max(kMaxOutputs * rounded_bytes(std::min(num_tokens, kDecodeTokens), subs),
                  rounded_bytes(num_tokens, subs));
}

}  // namespace cuda

void matmul(cuda::Queue& queue, std::span<const MatmulOutput> outputs, const float* x, int64_t ldx,
            int64_t num_tokens) {
  if (outputs.empty() || num_tokens == 0 || !queue.status) return;
  bool same_cols = true;
  for (const MatmulOutput& output : outputs) {
    same_cols &= output.weight->cols == outputs[0].weight->cols;
  }
  if (!cuda::is_known_shape(queue, same_cols, "matmul")) return;
  constexpr size_t kMost = cuda::kMaxOutputs;
  for (size_t i = 0; i < outputs.size(); i += kMost) {
    const auto some = outputs.subspan(i, std::min(kMost, outputs.size() - i));
    if (num_tokens <= cuda::kDecodeTokens) {
      cuda::multiply_few(queue, some, {x, ldx, num_tokens});
    } else {
      cuda::multiply_many(queue, some, {x, ldx, num_tokens});
    }
  }
}

}  // namespace hotset
