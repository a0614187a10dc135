// SPDX-License-Identifier: Apache-2.0
// The steps of the DeltaNet mixer before the delta rule: the grouped split against permuted rows,
// the convolution and its state, normalisation, and gates at the ends of fp32.
#include "kernels/delta_net.h"

#include "kernels/op_testing.h"

namespace hotset {
namespace {

using testing::expect_close;
using testing::for_each_isa;
using testing::Numbers;

constexpr DeltaNetShape kShapes[] = {
    {.num_key_heads = 3, .num_value_heads = 6, .key_head_dim = 16, .value_head_dim = 24},
    {.num_key_heads = 2, .num_value_heads = 2, .key_head_dim = 8, .value_head_dim = 5},
    {.num_key_heads = 1, .num_value_heads = 4, .key_head_dim = 128, .value_head_dim = 128},
};

// The row of in_proj_qkvz that yields element `index` of mixed followed by z.
int64_t permuted_row(const DeltaNetShape& s, int64_t index) {
  const int64_t ratio = s.num_value_heads / s.num_key_heads;
  const int64_t group = 2 * s.key_head_dim + 2 * ratio * s.value_head_dim;
  if (index < s.key_dim()) return index / s.key_head_dim * group + index % s.key_head_dim;
  index -= s.key_dim();
  if (index < s.key_dim()) {
    return index / s.key_head_dim * group + s.key_head_dim + index % s.key_head_dim;
  }
  index -= s.key_dim();
  int64_t offset = 2 * s.key_head_dim;
  if (index >= s.value_dim()) {
    index -= s.value_dim();
    offset += ratio * s.value_head_dim;
  }
  const int64_t head = index / s.value_head_dim;
  return head / ratio * group + offset + head % ratio * s.value_head_dim + index % s.value_head_dim;
}

TEST(DeltaNet, SplitEqualsPermutedWeights) {
  for (const DeltaNetShape& s : kShapes) {
    const int64_t tokens = 4, inputs = 7;
    Numbers numbers(3);
    const auto weight = numbers.normal(s.qkvz_dim() * inputs), x = numbers.normal(tokens * inputs);
    const auto product = [&](int64_t t, int64_t row) {
      float y = 0.0f;
      for (int64_t i = 0; i < inputs; ++i) y += x[t * inputs + i] * weight[row * inputs + i];
      return y;
    };
    std::vector<float> grouped, mixed_expected, z_expected;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t row = 0; row < s.qkvz_dim(); ++row) grouped.push_back(product(t, row));
      for (int64_t i = 0; i < s.qkvz_dim(); ++i) {
        (i < s.channels() ? mixed_expected : z_expected).push_back(product(t, permuted_row(s, i)));
      }
    }
    for_each_isa([&](cpu::Queue& queue, const std::string&) {
      std::vector<float> mixed(tokens * s.channels()), z(tokens * s.value_dim());
      split_qkvz(queue, s, tokens, grouped.data(), mixed.data(), z.data());
      testing::expect_same_bits(mixed, mixed_expected, "mixed");
      testing::expect_same_bits(z, z_expected, "z");
    });
  }
}

std::vector<double> reference_conv(const Conv1dParams& p, const std::vector<float>& x,
                                   const std::vector<float>& weight,
                                   const std::vector<float>& state) {
  std::vector<double> out(x.size());
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    for (int64_t c = 0; c < p.channels; ++c) {
      double total = 0.0;
      for (int64_t j = 0; j < p.kernel; ++j) {
        const int64_t from = t - (p.kernel - 1) + j;
        const double u =
            from < 0 ? state[(from + p.kernel - 1) * p.channels + c] : x[from * p.channels + c];
        total += u * weight[j * p.channels + c];
      }
      out[t * p.channels + c] = total / (1.0 + std::exp(-total));
    }
  }
  return out;
}

TEST(Conv1d, MatchesDoublePrecisionAndCarriesItsState) {
  for (const int64_t kernel : {2, 4, 5}) {
    for (const int64_t tokens : {1, 2, 3, 4, 63, 130}) {
      const Conv1dParams p = {.num_tokens = tokens, .channels = 285, .kernel = kernel};
      Numbers numbers(tokens);
      const auto x = numbers.normal(tokens * p.channels),
                 weight = numbers.normal(kernel * p.channels);
      const auto start = numbers.normal((kernel - 1) * p.channels);
      const auto expected = reference_conv(p, x, weight, start);
      auto inputs = start;
      inputs.insert(inputs.end(), x.begin(), x.end());
      const std::vector<float> last(inputs.end() - (kernel - 1) * p.channels, inputs.end());
      for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
        auto state = start, out = x;
        conv1d(queue, p, out.data(), weight.data(), state.data(), out.data());
        expect_close(out, expected, 2e-6, isa + ", tokens " + std::to_string(tokens));
        testing::expect_same_bits(state, last, "state");
      });
    }
  }
}

TEST(Conv1d, DoesNotDependOnTheCutOrTheThreads) {
  const int64_t channels = 600, tokens = 100;
  Numbers numbers(8);
  const auto x = numbers.normal(tokens * channels), weight = numbers.normal(4 * channels);
  const auto start = numbers.normal(3 * channels);
  const auto run = [&](cpu::Queue& queue, const std::vector<int64_t>& pieces) {
    auto state = start;
    std::vector<float> out(x.size());
    int64_t first = 0;
    for (int64_t piece : pieces) {
      conv1d(queue, {.num_tokens = piece, .channels = channels}, &x[first * channels],
             weight.data(), state.data(), &out[first * channels]);
      first += piece;
    }
    out.insert(out.end(), state.begin(), state.end());
    return out;
  };
  for_each_isa([&](cpu::Queue& queue, const std::string&) {
    testing::expect_same_bits(run(queue, {1, 2, 1, 50, 3, 43}), run(queue, {100}), "pieces");
  });
  testing::expect_thread_invariance([&](cpu::Queue& queue) { return run(queue, {100}); }, "conv1d");
}

TEST(DeltaNet, NormalisesQueriesAndKeys) {
  for (const DeltaNetShape& s : kShapes) {
    const int64_t tokens = 5;
    Numbers numbers(4);
    const auto start = numbers.normal(tokens * s.channels(), 2.0f);
    std::vector<double> expected(start.begin(), start.end());
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t head = 0; head < 2 * s.num_key_heads; ++head) {
        double* row = &expected[t * s.channels() + head * s.key_head_dim];
        double squares = 1e-6;
        for (int64_t d = 0; d < s.key_head_dim; ++d) squares += row[d] * row[d];
        const double dims = static_cast<double>(s.key_head_dim);
        const double scale = head < s.num_key_heads ? 1.0 / std::sqrt(dims) : 1.0;
        for (int64_t d = 0; d < s.key_head_dim; ++d) row[d] *= scale / std::sqrt(squares);
      }
    }
    for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
      auto mixed = start;
      normalize_qk(queue, s, tokens, mixed.data());
      expect_close(mixed, expected, 1e-6, isa);
    });
  }
}

TEST(DeltaNet, GatesMatchDoublePrecision) {
  for (const DeltaNetShape& s : kShapes) {
    const int64_t tokens = 40, heads = s.num_value_heads, ratio = heads / s.num_key_heads;
    Numbers numbers(5);
    const auto ba = numbers.normal(tokens * 2 * heads, 15.0f);
    const auto a_log = numbers.normal(heads, 2.0f), dt_bias = numbers.normal(heads);
    std::vector<double> beta_expected, g_expected;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t at = t * 2 * heads + h / ratio * 2 * ratio + h % ratio;
        beta_expected.push_back(1.0 / (1.0 + std::exp(-double{ba[at]})));
        const double x = double{ba[at + ratio]} + dt_bias[h];
        g_expected.push_back(-std::exp(double{a_log[h]}) * std::log1p(std::exp(x)));
      }
    }
    for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
      std::vector<float> beta(tokens * heads), g(tokens * heads);
      delta_gates(queue, s, tokens, ba.data(), a_log.data(), dt_bias.data(), beta.data(), g.data());
      expect_close(beta, beta_expected, 1e-6, isa + " beta");
      expect_close(g, g_expected, 2e-6, isa + " g");
    });
  }
}

TEST(DeltaNet, GatesOfExtremesAreFinite) {
  const DeltaNetShape s = kShapes[0];
  const std::vector<float> ba(12, 1e5f), low(12, -1e5f);
  const std::vector<float> a_log(6, 100.0f), dt_bias(6, 1.0f);
  for_each_isa([&](cpu::Queue& queue, const std::string&) {
    for (const auto& input : {ba, low}) {
      std::vector<float> beta(6), g(6);
      delta_gates(queue, s, 1, input.data(), a_log.data(), dt_bias.data(), beta.data(), g.data());
      for (int64_t h = 0; h < 6; ++h) {
        EXPECT_TRUE(std::isfinite(beta[h]) && std::isfinite(g[h])) << beta[h] << ", " << g[h];
        EXPECT_LE(g[h], 0.0f);
      }
    }
  });
}

}  // namespace
}  // namespace hotset
