// SPDX-License-Identifier: Apache-2.0
// The delta rule: both methods against the recurrence in double precision, from a state that is not
// zero; continuing after a prefill; decays that underflow.
#include "kernels/delta_rule.h"

#include "kernels/op_testing.h"

namespace hotset {
namespace {

using testing::for_each_isa;
using testing::nmse;
using testing::Numbers;

constexpr double kNmse = 1e-11;  // fp32 sums against double ones

struct Inputs {
  DeltaNetShape shape;
  int64_t num_tokens = 0;
  std::vector<float> mixed, beta, g, state;
};

Inputs make_inputs(const DeltaNetShape& shape, int64_t num_tokens, float g_low = -0.5f) {
  Numbers numbers(static_cast<uint64_t>(num_tokens + 1000 * shape.value_head_dim));
  Inputs in = {
      .shape = shape, .num_tokens = num_tokens, .mixed = {}, .beta = {}, .g = {}, .state = {}};
  in.mixed = numbers.normal(num_tokens * shape.channels());
  cpu::WorkerPool pool(1, false);
  cpu::Queue queue{.pool = pool};
  normalize_qk(queue, shape, num_tokens, in.mixed.data());
  in.beta = numbers.uniform(num_tokens * shape.num_value_heads, 0.0f, 1.0f);
  in.g = numbers.uniform(num_tokens * shape.num_value_heads, g_low, 0.0f);
  in.state = numbers.normal(shape.num_value_heads * shape.key_head_dim * shape.value_head_dim);
  return in;
}

struct Reference {
  std::vector<double> out, state;
};

Reference reference(const Inputs& in) {
  const DeltaNetShape& s = in.shape;
  const int64_t dk = s.key_head_dim, dv = s.value_head_dim, heads = s.num_value_heads;
  Reference r = {.out = std::vector<double>(in.num_tokens * s.value_dim()),
                 .state = testing::widened(in.state)};
  for (int64_t h = 0; h < heads; ++h) {
    double* state = &r.state[h * dk * dv];
    for (int64_t t = 0; t < in.num_tokens; ++t) {
      const float* row = &in.mixed[t * s.channels()];
      const float* q = row + h / (heads / s.num_key_heads) * dk;
      const float* k = q + s.key_dim();
      const float* v = row + 2 * s.key_dim() + h * dv;
      const double decay = std::exp(double{in.g[t * heads + h]});
      for (int64_t j = 0; j < dv; ++j) {
        double p = 0.0, o = 0.0;
        for (int64_t i = 0; i < dk; ++i) p += (state[i * dv + j] *= decay) * k[i];
        const double delta = in.beta[t * heads + h] * (v[j] - p);
        for (int64_t i = 0; i < dk; ++i) o += (state[i * dv + j] += k[i] * delta) * q[i];
        r.out[t * s.value_dim() + h * dv + j] = o;
      }
    }
  }
  return r;
}

struct Outcome {
  std::vector<float> out, state;
};

Outcome run(cpu::Queue& queue, const Inputs& in, DeltaRuleMethod method,
            const std::vector<int64_t>& pieces, int64_t chunk = 64) {
  Outcome o = {.out = std::vector<float>(in.num_tokens * in.shape.value_dim()), .state = in.state};
  int64_t first = 0;
  for (int64_t piece : pieces) {
    const DeltaRuleParams params = {
        .shape = in.shape, .num_tokens = piece, .chunk = chunk, .method = method};
    std::vector<float> workspace(delta_rule_workspace_floats(queue, params));
    delta_rule(queue, params, &in.mixed[first * in.shape.channels()],
               &in.beta[first * in.shape.num_value_heads], &in.g[first * in.shape.num_value_heads],
               o.state.data(), &o.out[first * in.shape.value_dim()], workspace.data());
    first += piece;
  }
  EXPECT_EQ(first, in.num_tokens);
  return o;
}

constexpr DeltaNetShape kOdd = {
    .num_key_heads = 3, .num_value_heads = 6, .key_head_dim = 16, .value_head_dim = 24};
constexpr DeltaNetShape kNarrow = {
    .num_key_heads = 1, .num_value_heads = 2, .key_head_dim = 9, .value_head_dim = 5};
constexpr DeltaNetShape kReal = {
    .num_key_heads = 1, .num_value_heads = 2, .key_head_dim = 128, .value_head_dim = 128};
constexpr DeltaRuleMethod kMethods[] = {DeltaRuleMethod::kRecurrent, DeltaRuleMethod::kChunked,
                                        DeltaRuleMethod::kAuto};

TEST(DeltaRule, BothMethodsMatchTheRecurrence) {
  for (const DeltaNetShape& shape : {kOdd, kNarrow, kReal}) {
    for (const int64_t tokens : {1, 3, 4, 63, 64, 65, 130, 1000}) {
      const Inputs in = make_inputs(shape, tokens);
      const Reference expected = reference(in);
      for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
        for (const DeltaRuleMethod method : kMethods) {
          const Outcome o = run(queue, in, method, {tokens});
          EXPECT_LE(nmse(o.out, expected.out), kNmse) << isa << ", out of " << tokens;
          EXPECT_LE(nmse(o.state, expected.state), kNmse) << isa << ", state after " << tokens;
        }
      });
    }
  }
}

TEST(DeltaRule, AnyChunkSizeWillDo) {
  const Inputs in = make_inputs(kOdd, 150);
  const Reference expected = reference(in);
  for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
    for (const int64_t chunk : {1, 2, 7, 16, 33, 64, 100, 256}) {
      const Outcome o = run(queue, in, DeltaRuleMethod::kChunked, {150}, chunk);
      EXPECT_LE(nmse(o.out, expected.out), kNmse) << isa << ", chunk " << chunk;
      EXPECT_LE(nmse(o.state, expected.state), kNmse) << isa << ", chunk " << chunk;
    }
  });
}

TEST(DeltaRule, DecodeAfterPrefillIsPrefillOfOneMore) {
  const Inputs in = make_inputs(kOdd, 66);
  for_each_isa([&](cpu::Queue& queue, const std::string&) {
    const Outcome whole = run(queue, in, DeltaRuleMethod::kRecurrent, {66});
    const Outcome pieces = run(queue, in, DeltaRuleMethod::kRecurrent, {1, 64, 1});
    testing::expect_same_bits(pieces.out, whole.out, "recurrent");
    testing::expect_same_bits(pieces.state, whole.state, "recurrent state");
    const Outcome chunked = run(queue, in, DeltaRuleMethod::kChunked, {65, 1});
    EXPECT_LE(nmse(chunked.out, testing::widened(whole.out)), kNmse);
    EXPECT_LE(nmse(chunked.state, testing::widened(whole.state)), kNmse);
  });
}

TEST(DeltaRule, UnderflowingDecayStaysFinite) {
  for (const float g_low : {-100.0f, -3000.0f, -10000.0f}) {
    const Inputs in = make_inputs(kOdd, 130, g_low);
    const Reference expected = reference(in);
    for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
      for (const DeltaRuleMethod method : kMethods) {
        const Outcome o = run(queue, in, method, {130});
        // NaN fails the comparison.
        EXPECT_LE(nmse(o.out, expected.out), kNmse) << isa << ", g down to " << g_low;
        EXPECT_LE(nmse(o.state, expected.state), kNmse) << isa << ", g down to " << g_low;
      }
    });
  }
}

TEST(DeltaRule, ThreadsDoNotChangeIt) {
  const Inputs in = make_inputs(kOdd, 130);
  for (const DeltaRuleMethod method : kMethods) {
    testing::expect_thread_invariance(
        [&](cpu::Queue& queue) {
          Outcome o = run(queue, in, method, {100, 1, 29});
          o.out.insert(o.out.end(), o.state.begin(), o.state.end());
          return o.out;
        },
        "delta rule");
  }
}

}  // namespace
}  // namespace hotset
