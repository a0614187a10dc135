// SPDX-License-Identifier: Apache-2.0
// Frequencies (with YaRN's ramp between kept and stretched ones) and the rotation itself.
#include "kernels/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"

namespace hotset {
namespace {

// The rotary dimension that turns `rotations` times over the original context.
double yarn_dimension(const RopeConfig& config, double rotations) {
  const double turns =
      config.original_max_position_embeddings / (2.0 * std::numbers::pi * rotations);
  return static_cast<double>(config.rotary_dims) * std::log(turns) / (2.0 * std::log(config.theta));
}

double yarn_magnitude(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

void apply_yarn(const RopeConfig& config, RopeTable& table) {
  double low = yarn_dimension(config, config.beta_fast);
  double high = yarn_dimension(config, config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(config.rotary_dims - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < table.inv_freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    table.inv_freq[i] *= ramp / config.factor + (1.0 - ramp);
  }
  if (config.attention_factor > 0.0) {
    table.attention_factor = config.attention_factor;
  } else if (config.mscale > 0.0 && config.mscale_all_dim > 0.0) {
    table.attention_factor = yarn_magnitude(config.factor, config.mscale) /
                             yarn_magnitude(config.factor, config.mscale_all_dim);
  } else {
    table.attention_factor = yarn_magnitude(config.factor, 1.0);
  }
}

constexpr int64_t kAngleCost = 64;  // a double sine and cosine, in elements of for_shares

void angles_of(const RopeView& rope, int64_t position, float* row) {
  const int64_t half = rope.rotary_dims / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * rope.inv_freq[i];
    row[i] = static_cast<float>(std::cos(angle) * rope.attention_factor);
    row[half + i] = static_cast<float>(std::sin(angle) * rope.attention_factor);
  }
}

}  // namespace

RopeTable make_rope_table(const RopeConfig& config) {
  HS_CHECK(config.rotary_dims > 0 && config.rotary_dims % 2 == 0, "rope of {} dimensions",
           config.rotary_dims);
  RopeTable table;
  table.inv_freq.resize(static_cast<size_t>(config.rotary_dims / 2));
  for (size_t i = 0; i < table.inv_freq.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(config.rotary_dims);
    table.inv_freq[i] = std::pow(config.theta, -exponent);
  }
  if (config.yarn) apply_yarn(config, table);
  return table;
}

void rope_angles(cpu::Queue& queue, const RopeTable& table, std::span<const int64_t> positions,
                 float* cos_sin) {
  const RopeView rope = table.view();
  cpu::for_shares(queue, std::ssize(positions), rope.rotary_dims / 2 * kAngleCost, 1,
                  [&](int64_t begin, int64_t end) {
                    for (int64_t t = begin; t < end; ++t) {
                      angles_of(rope, positions[static_cast<size_t>(t)],
                                cos_sin + t * rope.rotary_dims);
                    }
                  });
}

void rope_angles(cpu::Queue& queue, const RopeView& rope, const StepBatch& batch, float* cos_sin) {
  const int64_t half = rope.rotary_dims / 2;
  for (int32_t s = 0; s < batch.num_sequences; ++s) {
    const SequenceRows& rows = batch.sequences[s];
    cpu::for_shares(queue, rows.num_tokens, half * kAngleCost, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        angles_of(rope, rows.first_position + t,
                  cos_sin + (rows.token_begin + t) * rope.rotary_dims);
      }
    });
  }
}

void rope(cpu::Queue& queue, const RopeParams& params, const float* cos_sin, float* x) {
  HS_CHECK(params.rotary_dims % 2 == 0 && params.rotary_dims <= params.head_dim,
           "rope of {} dimensions in a head of {}", params.rotary_dims, params.head_dim);
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  const int64_t row = params.num_heads * params.head_dim;
  const int64_t touched = 2 * params.num_heads * params.rotary_dims;
  cpu::for_shares(queue, params.num_tokens, touched, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      kernels.rope(params.num_heads, params.head_dim, params.rotary_dims,
                   cos_sin + t * params.rotary_dims, x + t * row);
    }
  });
}

}  // namespace hotset
