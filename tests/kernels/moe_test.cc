// SPDX-License-Identifier: Apache-2.0
#include "kernels/moe.h"

#include <cstring>

#include "kernels/matmul_cases.h"

namespace hotset {
namespace {

using cpu::Arithmetic;
using cpu::Isa;

struct OwnedExpert {
  OwnedMatrix gate, up, down;
};

struct Experts {
  std::vector<OwnedExpert> owned;
  std::vector<ExpertView> views;
  int64_t hidden = 0;
};

PackedShape with_size(PackedShape shape, int64_t rows, int64_t cols) {
  shape.rows = rows;
  shape.cols = cols;
  if (shape.group == 0) shape.group = round_up(cols, 8);
  return shape;
}

// `num_routed` experts of one encoding and a wider shared one in bf16 at the end.
Experts make_experts(const PackedShape& code, int num_routed, int64_t hidden, int64_t width,
                     bool ordered) {
  Experts experts;
  experts.hidden = hidden;
  uint32_t seed = 100;
  const auto add = [&](const PackedShape& shape, int64_t wide, bool order) {
    OwnedExpert e{random_matrix(with_size(shape, wide, hidden), seed, order),
                  random_matrix(with_size(shape, wide, hidden), seed + 1, order),
                  random_matrix(with_size(shape, hidden, wide), seed + 2, order)};
    seed += 3;
    experts.owned.push_back(std::move(e));
  };
  for (int i = 0; i < num_routed; ++i) add(code, width, ordered);
  add({.code = CodeKind::kBF16}, width + 24, false);
  for (OwnedExpert& e : experts.owned) {
    for (OwnedMatrix* m : {&e.gate, &e.up, &e.down}) m->settle();
    experts.views.push_back({e.gate.view, e.up.view, e.down.view});
  }
  return experts;
}

struct Routing {
  std::vector<int32_t> ids;
  std::vector<float> weights;
  int32_t top_k = 0;
};

// top_k − 1 different routed experts and the shared one; one in ten is left out.
Routing make_routing(int64_t num_tokens, int32_t top_k, int num_routed, uint32_t seed) {
  std::mt19937 rng(seed);
  Routing routing{.ids = {}, .weights = {}, .top_k = top_k};
  std::vector<int32_t> all(static_cast<size_t>(num_routed));
  std::iota(all.begin(), all.end(), 0);
  for (int64_t t = 0; t < num_tokens; ++t) {
    std::shuffle(all.begin(), all.end(), rng);
    for (int32_t k = 0; k < top_k; ++k) {
      const int32_t id = k + 1 == top_k ? num_routed : all[static_cast<size_t>(k)];
      routing.ids.push_back(rng() % 10 == 0 ? -1 : id);
      routing.weights.push_back(static_cast<float>(rng() % 1000) / 1000.0f);
    }
  }
  return routing;
}

std::vector<float> run(const Experts& experts, const Routing& routing, const std::vector<float>& x,
                       Isa isa, Arithmetic arithmetic, cpu::WorkerPool& pool,
                       bool as_rows = false) {
  const auto tokens = static_cast<int64_t>(routing.ids.size()) / routing.top_k;
  const int64_t rows = as_rows ? tokens * routing.top_k : tokens;
  std::vector<float> y(static_cast<size_t>(rows * experts.hidden), -777.0f);
  cpu::Queue queue{pool, isa, arithmetic};
  int64_t width = 0;
  for (const ExpertView& e : experts.views) width = std::max(width, e.gate.rows);
  queue.scratch.reserve(moe_scratch_bytes(tokens, experts.hidden, width, routing.top_k,
                                          static_cast<int64_t>(experts.views.size()),
                                          pool.num_threads()));
  const MoeBatch batch{.x = x.data(),
                       .num_tokens = tokens,
                       .hidden = experts.hidden,
                       .top_k = routing.top_k,
                       .expert_ids = routing.ids.data(),
                       .expert_weights = routing.weights.data()};
  (as_rows ? moe_outputs : moe_experts)(queue, experts.views, batch, y.data());
  EXPECT_EQ(queue.scratch.num_allocations(), 0);
  return y;
}

// In double precision; the scale of a token's errors is the mean square of its experts' outputs.
Reference reference_moe(const Experts& experts, const Routing& routing,
                        const std::vector<float>& x) {
  const auto tokens = static_cast<int64_t>(routing.ids.size()) / routing.top_k;
  Reference ref;
  for (int64_t t = 0; t < tokens; ++t) {
    const std::vector<double> xt(x.begin() + t * experts.hidden,
                                 x.begin() + (t + 1) * experts.hidden);
    std::vector<double> y(static_cast<size_t>(experts.hidden)), scale = y;
    for (int32_t k = 0; k < routing.top_k; ++k) {
      const auto pair = static_cast<size_t>(t * routing.top_k + k);
      if (routing.ids[pair] < 0) continue;
      const ExpertView& e = experts.views[static_cast<size_t>(routing.ids[pair])];
      std::vector<double> act = reference_matmul(e.gate, xt, 1).y;
      const std::vector<double> up = reference_matmul(e.up, xt, 1).y;
      for (size_t i = 0; i < act.size(); ++i) act[i] *= up[i] / (1 + std::exp(-act[i]));
      const Reference down = reference_matmul(e.down, act, 1);
      const double weight = static_cast<double>(routing.weights[pair]);
      for (size_t i = 0; i < y.size(); ++i) {
        y[i] += weight * down.y[i];
        scale[i] += weight * weight * down.scale[i];
      }
    }
    ref.y.insert(ref.y.end(), y.begin(), y.end());
    ref.scale.insert(ref.scale.end(), scale.begin(), scale.end());
  }
  for (double& s : ref.scale) s += 1e-30;
  return ref;
}

std::vector<PackedShape> encodings() {
  return {{.code = CodeKind::kAffine4, .scale = ScaleKind::kF16, .has_zeros = true, .group = 32},
          {.code = CodeKind::kAffine4, .scale = ScaleKind::kBF16, .zero = 8},
          {.code = CodeKind::kCodebook4, .scale = ScaleKind::kF16, .group = 64},
          {.code = CodeKind::kInt8, .scale = ScaleKind::kF16, .zero = 128, .group = 128},
          {.code = CodeKind::kFp8, .scale = ScaleKind::kF32, .group = 128}};
}

TEST(Moe, AgreesWithDoubleSumsAndAcrossIsas) {
  cpu::WorkerPool pool(2);
  for (const PackedShape& code : encodings()) {
    for (const bool ordered : {false, true}) {
      const Experts experts = make_experts(code, 6, 88, 40, ordered);
      const Routing routing = make_routing(13, 4, 6, 1);
      const std::vector<float> x = random_floats(13 * 88, 2);
      const Reference ref = reference_moe(experts, routing, x);
      for (const Arithmetic arithmetic : {Arithmetic::kExact, Arithmetic::kFast}) {
        const std::vector<float> oracle = run(experts, routing, x, Isa::kScalar, arithmetic, pool);
        // Two products in a row, and SwiGLU between that magnifies: five times one product's bound.
        const double limit = 5 * (arithmetic == Arithmetic::kExact ? kExactLimit : kFastLimit);
        expect_close(oracle, ref, 88, limit, code_kind_name(code.code));
        for (const Isa isa : cpu::available_isas()) {
          const std::vector<float> y = run(experts, routing, x, isa, arithmetic, pool);
          EXPECT_EQ(0, std::memcmp(y.data(), oracle.data(), y.size() * sizeof(float)))
              << code_kind_name(code.code) << " on " << cpu::isa_name(isa);
        }
      }
    }
  }
}

// More tokens than one pass takes, against each token alone; other threads, other neighbours.
TEST(Moe, BitsDoNotDependOnTheCompany) {
  const int64_t tokens = 1100, hidden = 48;
  const Experts experts = make_experts(encodings()[0], 9, hidden, 32, false);
  const Routing routing = make_routing(tokens, 3, 9, 7);
  const std::vector<float> x = random_floats(tokens * hidden, 4);
  cpu::WorkerPool one(1);
  for (const Isa isa : cpu::available_isas()) {
    for (const int threads : {1, 2, 5}) {
      cpu::WorkerPool pool(threads);
      const std::vector<float> all = run(experts, routing, x, isa, Arithmetic::kFast, pool);
      for (const int64_t t : {0, 17, 500, 1023, 1024, 1099}) {
        Routing alone{.ids = {}, .weights = {}, .top_k = 3};
        alone.ids.assign(routing.ids.begin() + 3 * t, routing.ids.begin() + 3 * t + 3);
        alone.weights.assign(routing.weights.begin() + 3 * t, routing.weights.begin() + 3 * t + 3);
        const std::vector<float> xt(x.begin() + t * hidden, x.begin() + (t + 1) * hidden);
        const std::vector<float> y = run(experts, alone, xt, isa, Arithmetic::kFast, one);
        EXPECT_EQ(0, std::memcmp(y.data(), all.data() + t * hidden, y.size() * sizeof(float)))
            << "token " << t << ", " << threads << " threads, " << cpu::isa_name(isa);
      }
    }
  }
}

// Few tokens round down's input where it is made and prepare inputs a thread each; many do neither.
TEST(Moe, FewTokensHaveTheBitsOfMany) {
  const int64_t hidden = 128, tokens = 300;
  const std::vector<PackedShape> codes = {
      {.code = CodeKind::kAffine4, .scale = ScaleKind::kF16, .has_zeros = true, .group = 64},
      {.code = CodeKind::kCodebook4, .scale = ScaleKind::kF16, .group = 64}};
  cpu::WorkerPool pool(3);
  for (const PackedShape& code : codes) {
    const Experts experts = make_experts(code, 7, hidden, 192, false);
    const Routing routing = make_routing(tokens, 3, 6, 9);  // of routed ones only
    const std::vector<float> x = random_floats(tokens * hidden, 6);
    const Isa isa = cpu::detect_isa();
    const std::vector<float> many = run(experts, routing, x, isa, Arithmetic::kFast, pool, true);
    for (const int64_t count : {1, 2, 3, 9}) {
      Routing few{.ids = {}, .weights = {}, .top_k = 3};
      few.ids.assign(routing.ids.begin(), routing.ids.begin() + 3 * count);
      few.weights.assign(routing.weights.begin(), routing.weights.begin() + 3 * count);
      const std::vector<float> rows = run(experts, few, x, isa, Arithmetic::kFast, pool, true);
      EXPECT_EQ(0, std::memcmp(rows.data(), many.data(), rows.size() * sizeof(float)))
          << code_kind_name(code.code) << ", " << count << " tokens";
    }
  }
}

// A thread that was dealt no work once took a unit to see where its weights lie, and left it.
TEST(Moe, MoreThreadsThanWorkLeaveNothingOut) {
  const int64_t hidden = 128;
  const Experts experts = make_experts(encodings()[0], 7, hidden, 64, false);
  const std::vector<float> x = random_floats(hidden, 6);
  const Isa isa = cpu::detect_isa();
  cpu::WorkerPool one(1), many(15);
  for (const std::vector<int32_t>& ids : {std::vector<int32_t>{-1, 4, -1}, {2, -1, 5}}) {
    const Routing few{.ids = ids, .weights = {1, 1, 1}, .top_k = 3};
    const std::vector<float> want = run(experts, few, x, isa, Arithmetic::kFast, one, true);
    for (int i = 0; i < 20; ++i) {
      const std::vector<float> got = run(experts, few, x, isa, Arithmetic::kFast, many, true);
      ASSERT_EQ(0, std::memcmp(got.data(), want.data(), got.size() * sizeof(float)));
    }
  }
}

// Rows that are summed afterwards, in the router's order, have the bits of moe_experts' sums.
TEST(Moe, OutputsAreTheSummandsOfTheSums) {
  const int64_t tokens = 1030, hidden = 48;
  cpu::WorkerPool pool(3);
  const Experts experts = make_experts(encodings()[0], 9, hidden, 32, false);
  const Routing routing = make_routing(tokens, 3, 9, 8);
  const std::vector<float> x = random_floats(tokens * hidden, 5);
  const Isa isa = cpu::detect_isa();
  const std::vector<float> want = run(experts, routing, x, isa, Arithmetic::kFast, pool);
  const std::vector<float> rows = run(experts, routing, x, isa, Arithmetic::kFast, pool, true);
  std::vector<float> sums(want.size());
  for (size_t pair = 0; pair < routing.ids.size(); ++pair) {
    for (size_t i = 0; i < static_cast<size_t>(hidden); ++i) {
      const float row = rows[pair * static_cast<size_t>(hidden) + i];
      float& sum = sums[pair / 3 * static_cast<size_t>(hidden) + i];
      if (routing.ids[pair] >= 0) {
        sum = std::fma(routing.weights[pair], row, sum);
      } else {
        EXPECT_EQ(row, -777.0f) << "a row of nobody was written";
      }
    }
  }
  EXPECT_EQ(sums, want);
}

TEST(Moe, NoChoiceLeavesAllRowsAlone) {
  cpu::WorkerPool pool(2);
  const Experts experts = make_experts(encodings()[0], 2, 32, 32, false);
  const Routing routing{.ids = {-1, -1}, .weights = {1, 1}, .top_k = 2};
  const std::vector<float> x = random_floats(32, 1);
  for (const float y : run(experts, routing, x, cpu::detect_isa(), Arithmetic::kFast, pool, true)) {
    EXPECT_EQ(y, -777.0f);
  }
}

TEST(Moe, NoChoiceAtAllSumsToZero) {
  cpu::WorkerPool pool(2);
  const Experts experts = make_experts(encodings()[0], 2, 32, 32, false);
  const Routing routing{.ids = {-1, -1}, .weights = {1, 1}, .top_k = 2};
  const std::vector<float> x = random_floats(32, 1);
  for (const float y : run(experts, routing, x, cpu::detect_isa(), Arithmetic::kFast, pool)) {
    EXPECT_EQ(y, 0.0f);
  }
}

TEST(Moe, AnExpertChosenTwiceByATokenGivesTwoRows) {
  const int64_t hidden = 48;
  cpu::WorkerPool pool(3);
  const Experts experts = make_experts(encodings()[0], 5, hidden, 32, false);
  const std::vector<float> x = random_floats(hidden, 1);
  const Isa isa = cpu::detect_isa();
  const Routing once{.ids = {3}, .weights = {1}, .top_k = 1};
  const Routing twice{.ids = {3, 3, 3}, .weights = {1, 1, 1}, .top_k = 3};
  const std::vector<float> want = run(experts, once, x, isa, Arithmetic::kFast, pool, true);
  const std::vector<float> rows = run(experts, twice, x, isa, Arithmetic::kFast, pool, true);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i], want[i % want.size()]);
}

TEST(Moe, TokensWithoutExpertsAreZero) {
  cpu::WorkerPool pool(2);
  const Experts experts = make_experts(encodings()[1], 2, 24, 16, false);
  const Routing routing{.ids = {-1, -1, 1, -1}, .weights = {1, 1, 1, 1}, .top_k = 2};
  const std::vector<float> x = random_floats(48, 1);
  const std::vector<float> y = run(experts, routing, x, cpu::detect_isa(), Arithmetic::kFast, pool);
  double sum = 0;
  for (size_t i = 0; i < 24; ++i) {
    EXPECT_EQ(y[i], 0.0f);
    sum += std::fabs(y[24 + i]);
  }
  EXPECT_GT(sum, 0);
}

}  // namespace
}  // namespace hotset
