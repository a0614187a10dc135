// SPDX-License-Identifier: Apache-2.0
// The gated delta rule: the recurrence of a DeltaNet layer over its state.
//
// Per value head h, with S [dk, dv], for each token:
//   S ← exp(g)·S;   p = Sᵀ·k;   δ = β·(v − p);   S ← S + k ⊗ δ;   o = Sᵀ·q
// q (normalised and scaled) and k of key head h / r. Two ways to the same numbers:
//   kRecurrent  token after token. A slice of S's columns stays in L1 for the whole call, so the
//   state
//               is read and written once per call. A token's result doesn't depend on the call's
//               cut.
//   kChunked    chunks of `chunk` tokens as matrix products. With G the running sum of g in the
//   chunk,
//               D_ij = exp(G_i − G_j) for i ≥ j (masked before the exp, no division by exp(G)):
//                 A  = −strict_lower( diag(β)·(k·kᵀ) ∘ D )
//                 V' = (I − A)⁻¹ · ( diag(β)·v − diag(β·exp G)·(k·S) )      by forward substitution
//                 O  = diag(exp G)·(q·S) + lower( (q·kᵀ) ∘ D )·V'
//                 S  ← exp(G_last)·S + (diag(exp(G_last − G))·k)ᵀ·V'
// Both are independent of the number of threads, bit for bit.
#pragma once

#include <cstdint>

#include "kernels/delta_net.h"

namespace hotset {

enum class DeltaRuleMethod : uint8_t { kAuto, kRecurrent, kChunked };

struct DeltaRuleParams {
  DeltaNetShape shape;
  int64_t num_tokens = 0;
  int64_t chunk = 64;  // kChunked: 1 … 256
  DeltaRuleMethod method = DeltaRuleMethod::kAuto;
};

// Floats of scratch delta_rule() needs; grows with num_tokens and threads.
[[nodiscard]] int64_t delta_rule_workspace_floats(const cpu::Queue& queue,
                                                  const DeltaRuleParams& params);

//   mixed   [T, channels]   q, k, v after conv1d and normalize_qk
//   beta, g [T, Hv]         from delta_gates
//   state   [Hv, dk, dv]    in place; all 0 at the start of a sequence
//   out     [T, Hv, dv]     not aliased with mixed
void delta_rule(cpu::Queue& queue, const DeltaRuleParams& params, const float* mixed,
                const float* beta, const float* g, float* state, float* out, float* workspace);

}  // namespace hotset
