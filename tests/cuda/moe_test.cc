// SPDX-License-Identifier: Apache-2.0
// Experts on the GPU against the CPU's: the same bits where products are integer, whatever the
// batch, and whoever computed a choice.
#include "kernels/moe.h"

#include <cstring>

#include "cuda/gpu_testing.h"
#include "kernels/cuda/expert_table.h"
#include "kernels/matmul_cases.h"

namespace hotset {
namespace {

struct OwnedExpert {
  OwnedMatrix gate, up, down;
};

struct Routing {
  std::vector<int32_t> ids;
  std::vector<float> weights;
  int32_t top_k = 0;
  int64_t num_tokens = 0;
};

// What a test multiplies: `num_routed` experts of one encoding and a wider shared one of another.
struct Case {
  std::string name;
  std::vector<OwnedExpert> owned;
  std::vector<ExpertView> views;
  int64_t hidden = 0;
  bool integer = false;  // every product

  void add(const PackedShape& code, int64_t width, bool ordered) {
    const auto sized = [&](int64_t rows, int64_t cols) {
      PackedShape shape = code;
      shape.rows = rows;
      shape.cols = cols;
      if (shape.group == 0) shape.group = round_up(cols, 8);
      return shape;
    };
    const auto seed = static_cast<uint32_t>(3 * owned.size() + 100);
    owned.push_back({random_matrix(sized(width, hidden), seed, ordered),
                     random_matrix(sized(width, hidden), seed + 1, ordered),
                     random_matrix(sized(hidden, width), seed + 2, ordered)});
  }
  void settle() {
    for (OwnedExpert& e : owned) {
      for (OwnedMatrix* m : {&e.gate, &e.up, &e.down}) m->settle();
      views.push_back({e.gate.view, e.up.view, e.down.view});
    }
  }
};

Case make_case(const PackedShape& code, const PackedShape& shared, int64_t hidden, int64_t width,
               bool ordered) {
  Case c;
  c.hidden = hidden;
  for (int i = 0; i < 6; ++i) c.add(code, width, ordered);
  c.add(shared, width + 24, false);
  c.settle();
  const auto integer = [](CodeKind kind) {
    return kind == CodeKind::kInt8 || kind == CodeKind::kAffine4 || kind == CodeKind::kCodebook4;
  };
  c.integer = integer(code.code) && integer(shared.code);
  c.name = describe(c.owned[0].gate.view) + (ordered ? " ordered" : "");
  return c;
}

Routing make_routing(const Case& c, int64_t num_tokens, int32_t top_k, uint32_t seed, bool absent) {
  std::mt19937 rng(seed);
  const auto num_routed = static_cast<int32_t>(c.views.size()) - 1;
  Routing routing{.ids = {}, .weights = {}, .top_k = top_k, .num_tokens = num_tokens};
  std::vector<int32_t> all(static_cast<size_t>(num_routed));
  std::iota(all.begin(), all.end(), 0);
  for (int64_t t = 0; t < num_tokens; ++t) {
    std::shuffle(all.begin(), all.end(), rng);
    for (int32_t k = 0; k < top_k; ++k) {
      const int32_t id = k + 1 == top_k ? num_routed : all[static_cast<size_t>(k)];
      routing.ids.push_back(absent && rng() % 4 == 0 ? -1 : id);
      routing.weights.push_back(static_cast<float>(rng() % 1000) / 1000.0f);
    }
  }
  return routing;
}

std::vector<float> on_cpu(const Case& c, const Routing& routing, const std::vector<float>& x,
                          Arithmetic arithmetic) {
  cpu::WorkerPool pool(1, false);
  cpu::Queue queue{pool, cpu::detect_isa(), arithmetic};
  std::vector<float> y(x.size());
  moe_experts(queue, c.views,
              {.x = x.data(),
               .num_tokens = routing.num_tokens,
               .hidden = c.hidden,
               .top_k = routing.top_k,
               .expert_ids = routing.ids.data(),
               .expert_weights = routing.weights.data()},
              y.data());
  return y;
}

// Unweighted rows of every choice, by the CPU: one choice at a time with weight 1.
std::vector<float> rows_on_cpu(const Case& c, const Routing& routing, const std::vector<float>& x) {
  std::vector<float> repeated;
  Routing single{.ids = routing.ids, .weights = {}, .top_k = 1, .num_tokens = 0};
  single.num_tokens = static_cast<int64_t>(routing.ids.size());
  single.weights.assign(routing.ids.size(), 1.0f);
  for (size_t i = 0; i < routing.ids.size(); ++i) {
    const auto from = x.begin() + static_cast<std::ptrdiff_t>(i) / routing.top_k * c.hidden;
    repeated.insert(repeated.end(), from, from + c.hidden);
  }
  return on_cpu(c, single, repeated, Arithmetic::kFast);
}

class GpuMoeTest : public testing::GpuTest {
 protected:
  // The table and everything it points to.
  struct DeviceTable {
    std::vector<cuda::ExpertGroup> groups;
    std::vector<cuda::ExpertAddress> addresses;
    std::vector<const int32_t*> orders;
    cuda::ExpertTable table;
  };

  PackedMatrix encoding_of(const OwnedMatrix& m) {
    PackedMatrix view = m.view;
    view.data = nullptr;
    view.input_order = nullptr;
    if (!m.codebook.empty()) view.codebook = upload(m.codebook);
    return view;
  }

  // Experts for which `absent` is set have no address.
  DeviceTable make_table(const Case& c, const std::vector<bool>& absent = {}) {
    DeviceTable t;
    const auto num_routed = static_cast<int32_t>(c.owned.size()) - 1;
    for (size_t i = 0; i < c.owned.size(); ++i) {
      const OwnedExpert& e = c.owned[i];
      t.addresses.push_back({upload(e.gate.data), upload(e.up.data), upload(e.down.data)});
      if (i < absent.size() && absent[i]) t.addresses.back() = {};
      for (const OwnedMatrix* m : {&e.gate, &e.up, &e.down}) {
        t.orders.push_back(m->order.empty() ? nullptr : upload(m->order));
      }
    }
    const auto encoding = [&](const OwnedExpert& e) {
      return ExpertView{encoding_of(e.gate), encoding_of(e.up), encoding_of(e.down)};
    };
    t.groups.push_back({.encoding = encoding(c.owned[0]), .num_experts = num_routed});
    if (!c.owned[0].gate.order.empty()) t.groups[0].orders = upload(t.orders);
    t.groups.push_back(
        {.encoding = encoding(c.owned.back()), .first_expert = num_routed, .num_experts = 1});
    t.table = {.addresses = upload(t.addresses), .groups = nullptr, .num_groups = 2};
    return t;
  }

  MoeBatch make_batch(const Case& c, const Routing& routing, const std::vector<float>& x) {
    return {.x = upload(x),
            .num_tokens = routing.num_tokens,
            .hidden = c.hidden,
            .top_k = routing.top_k,
            .expert_ids = upload(routing.ids),
            .expert_weights = upload(routing.weights)};
  }

  std::vector<float> on_gpu(const Case& c, const Routing& routing, const std::vector<float>& x,
                            const float* elsewhere) {
    DeviceTable t = make_table(c);
    t.table.groups = t.groups.data();
    const MoeBatch batch = make_batch(c, routing, x);
    float* y = garbage<float>(routing.num_tokens * c.hidden);
    const int64_t before = queue().scratch.most_used();
    moe_experts(queue(), t.table, batch, elsewhere, y);
    const int64_t bound =
        cuda::moe_scratch_bytes(t.table, routing.num_tokens, c.hidden, routing.top_k);
    EXPECT_LE(queue().scratch.most_used(), std::max(bound, before));
    EXPECT_EQ(queue().scratch.used(), 0);
    return download(y, routing.num_tokens * c.hidden);
  }

  static void expect_same_bits(const std::vector<float>& y, const std::vector<float>& want,
                               int64_t hidden, const std::string& what) {
    ASSERT_EQ(y.size(), want.size());
    size_t different = 0, first = 0;
    for (size_t i = y.size(); i-- > 0;) {
      if (std::memcmp(&y[i], &want[i], sizeof(float)) != 0) ++different, first = i;
    }
    EXPECT_EQ(different, 0u) << what << ": of " << y.size() << ", first at token "
                             << first / static_cast<size_t>(hidden) << " column "
                             << first % static_cast<size_t>(hidden) << ": " << y[first] << " for "
                             << want[first];
  }

  // Float products differ in their order of additions only, but a rounding to int8 between two of
  // them may then fall to the other side; experts of one kind each keep that apart.
  static void expect_near(const std::vector<float>& y, const std::vector<float>& want,
                          const std::string& what) {
    double error = 0, power = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      error += std::pow(static_cast<double>(y[i]) - static_cast<double>(want[i]), 2);
      power += std::pow(static_cast<double>(want[i]), 2);
    }
    EXPECT_LE(error, 1e-9 * power) << what;
  }

  void check(const Case& c, const Routing& routing, const std::vector<float>& x,
             Arithmetic arithmetic) {
    queue().arithmetic = arithmetic;
    const std::vector<float> y = on_gpu(c, routing, x, nullptr);
    const std::vector<float> want = on_cpu(c, routing, x, arithmetic);
    const std::string what = c.name + " tokens " + std::to_string(routing.num_tokens);
    if (c.integer && arithmetic == Arithmetic::kFast) {
      expect_same_bits(y, want, c.hidden, what);
    } else {
      expect_near(y, want, what);
    }
  }
};

const PackedShape kInt8Shared{
    .code = CodeKind::kInt8, .scale = ScaleKind::kF16, .zero = 128, .group = 32};
const PackedShape kBf16Shared{.code = CodeKind::kBF16};

std::vector<PackedShape> encodings() {
  return {{.code = CodeKind::kAffine4, .scale = ScaleKind::kF16, .has_zeros = true, .group = 32},
          {.code = CodeKind::kAffine4, .scale = ScaleKind::kF16, .zero = 8, .group = 128},
          {.code = CodeKind::kAffine4, .scale = ScaleKind::kBF16, .zero = 8, .group = 40},
          {.code = CodeKind::kAffine4, .scale = ScaleKind::kBF16, .zero = 8},
          {.code = CodeKind::kCodebook4, .scale = ScaleKind::kF16, .group = 64},
          {.code = CodeKind::kCodebook4, .scale = ScaleKind::kF32, .group = 64},
          {.code = CodeKind::kInt8, .scale = ScaleKind::kF16, .zero = 128, .group = 128},
          {.code = CodeKind::kFp8, .scale = ScaleKind::kF32, .group = 128},
          {.code = CodeKind::kBF16},
          {.code = CodeKind::kF32}};
}

TEST_F(GpuMoeTest, AgreesWithTheCpuOnEveryEncoding) {
  for (const PackedShape& code : encodings()) {
    for (const bool ordered : {false, true}) {
      const Case c = make_case(code, kInt8Shared, 88, 40, ordered);
      const Case plain_shared = make_case(code, kBf16Shared, 88, 40, ordered);
      for (const int64_t tokens : {1, 2, 5, 16, 17, 64}) {
        const std::vector<float> x = random_floats(tokens * 88, 2);
        const Routing routing = make_routing(c, tokens, 4, 1, false);
        check(c, routing, x, Arithmetic::kFast);
        check(plain_shared, routing, x, Arithmetic::kFast);
        check(c, routing, x, Arithmetic::kExact);
      }
    }
  }
}

TEST_F(GpuMoeTest, TheModelsShapes) {
  const PackedShape four{
      .code = CodeKind::kAffine4, .scale = ScaleKind::kF16, .zero = 8, .group = 128};
  const Case c = make_case(four, kInt8Shared, 1024, 256, false);
  for (const int64_t tokens : {1, 3, 30, 200}) {
    check(c, make_routing(c, tokens, 5, 3, false), random_floats(tokens * 1024, 4),
          Arithmetic::kFast);
  }
}

// Rows long enough that a warp's share of a tile does not fit its part of shared memory at once.
TEST_F(GpuMoeTest, LongRows) {
  const std::vector<PackedShape> codes = {
      {.code = CodeKind::kAffine4, .scale = ScaleKind::kF16, .has_zeros = true, .group = 32},
      {.code = CodeKind::kCodebook4, .scale = ScaleKind::kF16, .group = 64},
      {.code = CodeKind::kInt8, .scale = ScaleKind::kF16, .zero = 128, .group = 128},
      {.code = CodeKind::kInt8, .scale = ScaleKind::kF32, .zero = 128}};
  for (const PackedShape& code : codes) {
    const Case c = make_case(code, kInt8Shared, 2560, 320, false);
    for (const int64_t tokens : {1, 2, 9, 16}) {
      check(c, make_routing(c, tokens, 5, 3, tokens == 9), random_floats(tokens * 2560, 4),
            Arithmetic::kFast);
    }
  }
}

// More tokens than one pass takes, and experts with more than a chunk of them.
TEST_F(GpuMoeTest, ManyTokens) {
  const Case c = make_case(encodings()[0], kInt8Shared, 32, 32, false);
  check(c, make_routing(c, 2100, 3, 3, true), random_floats(2100 * 32, 4), Arithmetic::kFast);
}

// A choice computed elsewhere counts as if it had been computed here.
TEST_F(GpuMoeTest, ChoicesFromElsewhere) {
  const Case c = make_case(encodings()[0], kInt8Shared, 96, 64, false);
  queue().arithmetic = Arithmetic::kFast;
  for (const int64_t tokens : {1, 6, 40}) {
    const std::vector<float> x = random_floats(tokens * 96, 2);
    const Routing all = make_routing(c, tokens, 4, 9, false);
    Routing some = all;
    std::vector<float> elsewhere = rows_on_cpu(c, all, x);
    for (size_t i = 0; i < some.ids.size(); ++i) {
      if (i % 3 == 1) {
        some.ids[i] = -1;
      } else {
        std::fill_n(elsewhere.begin() + static_cast<std::ptrdiff_t>(i) * 96, 96, NAN);
      }
    }
    expect_same_bits(on_gpu(c, some, x, upload(elsewhere)), on_cpu(c, all, x, Arithmetic::kFast),
                     96, "tokens " + std::to_string(tokens));
  }
}

// Experts come and go between calls: each call adds the rows of those that are there.
TEST_F(GpuMoeTest, OutputsOfPartsOfTheExperts) {
  const Case c = make_case(encodings()[1], kInt8Shared, 96, 64, false);
  queue().arithmetic = Arithmetic::kFast;
  for (const int64_t tokens : {2, 40}) {
    const std::vector<float> x = random_floats(tokens * 96, 2);
    const Routing routing = make_routing(c, tokens, 4, 9, false);
    const MoeBatch batch = make_batch(c, routing, x);
    float* rows = garbage<float>(tokens * 4 * 96);
    for (const bool even : {true, false}) {
      std::vector<bool> absent;
      for (size_t i = 0; i < c.owned.size(); ++i) absent.push_back((i % 2 == 0) == even);
      DeviceTable t = make_table(c, absent);
      t.table.groups = t.groups.data();
      moe_outputs(queue(), t.table, batch, rows);
    }
    expect_same_bits(download(rows, tokens * 4 * 96), rows_on_cpu(c, routing, x), 96, "rows");
    float* y = garbage<float>(tokens * 96);
    moe_join(queue(), batch, rows, nullptr, y);
    expect_same_bits(download(y, tokens * 96), on_cpu(c, routing, x, Arithmetic::kFast), 96, "y");
  }
}

}  // namespace
}  // namespace hotset
