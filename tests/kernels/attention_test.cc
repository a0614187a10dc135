// SPDX-License-Identifier: Apache-2.0
// Attention over pages against double precision; its independence of how a prompt is cut and of the
// threads; stores and splits.
#include "kernels/attention.h"

#include <algorithm>

#include "base/float16.h"
#include "kernels/op_testing.h"

namespace hotset {
namespace {

using testing::expect_close;
using testing::for_each_isa;
using testing::Numbers;

struct Case {
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t page_tokens;
  int64_t length;  // positions in all
  KvType type = KvType::kF32;
};

// A sequence: projections of all tokens, and the pages they are appended to.
class Sequence {
 public:
  explicit Sequence(const Case& c) : shape_(c) {
    Numbers numbers(static_cast<uint64_t>(c.length * 31 + c.head_dim));
    q_ = numbers.normal(c.length * c.num_heads * c.head_dim, 2.0f);
    k_ = numbers.normal(c.length * c.num_kv_heads * c.head_dim);
    v_ = numbers.normal(c.length * c.num_kv_heads * c.head_dim);
    kv_ = {.type = c.type,
           .pages = nullptr,
           .page_tokens = c.page_tokens,
           .num_kv_heads = c.num_kv_heads,
           .head_dim = c.head_dim};
    const int64_t num_pages = (c.length + c.page_tokens - 1) / c.page_tokens;
    // What was never appended must never be read: 0xff bytes are NaNs in every type.
    storage_.assign(num_pages * kv_.page_bytes() / 4, 0xffffffffu);
    // Pages lie in no particular order.
    for (int64_t i = 0; i < num_pages; ++i) {
      const int64_t place = (i * 7 + 3) % num_pages;
      pages_.push_back(reinterpret_cast<std::byte*>(storage_.data()) + place * kv_.page_bytes());
    }
    if (num_pages % 7 == 0) {
      for (int64_t i = 0; i < num_pages; ++i) {
        pages_[i] = reinterpret_cast<std::byte*>(storage_.data()) + i * kv_.page_bytes();
      }
    }
    kv_.pages = pages_.data();
  }

  // Appends and attends tokens first … first+count−1.
  std::vector<float> attend(cpu::Queue& queue, int64_t first, int64_t count) {
    const int64_t kv_row = shape_.num_kv_heads * shape_.head_dim;
    const int64_t q_row = shape_.num_heads * shape_.head_dim;
    kv_append(queue, kv_, first, count, &k_[first * kv_row], &v_[first * kv_row]);
    const AttentionParams params = {.num_heads = shape_.num_heads,
                                    .first_position = first,
                                    .num_tokens = count,
                                    .scale = scale()};
    std::vector<float> workspace(attention_workspace_floats(queue, params, kv_));
    std::vector<float> out(count * q_row);
    attention(queue, params, &q_[first * q_row], kv_, out.data(), workspace.data());
    return out;
  }

  std::vector<float> attend_in_pieces(cpu::Queue& queue, const std::vector<int64_t>& pieces) {
    std::vector<float> all;
    int64_t first = 0;
    for (int64_t piece : pieces) {
      const auto out = attend(queue, first, piece);
      all.insert(all.end(), out.begin(), out.end());
      first += piece;
    }
    EXPECT_EQ(first, shape_.length);
    return all;
  }

  std::vector<double> reference() const {
    const Case& c = shape_;
    const int64_t group = c.num_heads / c.num_kv_heads;
    std::vector<double> out(c.length * c.num_heads * c.head_dim, 0.0);
    std::vector<double> weights(c.length);
    for (int64_t t = 0; t < c.length; ++t) {
      for (int64_t h = 0; h < c.num_heads; ++h) {
        const float* q = &q_[(t * c.num_heads + h) * c.head_dim];
        double top = -INFINITY, total = 0.0;
        for (int64_t p = 0; p <= t; ++p) {
          double dot = 0.0;
          for (int64_t d = 0; d < c.head_dim; ++d) dot += q[d] * stored(k_, p, h / group, d);
          weights[p] = dot * scale();
          top = std::max(top, weights[p]);
        }
        for (int64_t p = 0; p <= t; ++p) total += weights[p] = std::exp(weights[p] - top);
        double* row = &out[(t * c.num_heads + h) * c.head_dim];
        for (int64_t p = 0; p <= t; ++p) {
          for (int64_t d = 0; d < c.head_dim; ++d) {
            row[d] += weights[p] / total * stored(v_, p, h / group, d);
          }
        }
      }
    }
    return out;
  }

 private:
  [[nodiscard]] float scale() const {
    return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
  }
  [[nodiscard]] double stored(const std::vector<float>& x, int64_t p, int64_t head,
                              int64_t d) const {
    const float value = x[(p * shape_.num_kv_heads + head) * shape_.head_dim + d];
    if (shape_.type == KvType::kBF16) return bf16_to_float(float_to_bf16(value));
    if (shape_.type == KvType::kF16) return half_to_float(float_to_half(value));
    return value;
  }

  Case shape_;
  std::vector<float> q_, k_, v_;
  std::vector<uint32_t> storage_;
  std::vector<std::byte*> pages_;
  KvPages kv_;
};

constexpr Case kCases[] = {
    {.num_heads = 6, .num_kv_heads = 2, .head_dim = 24, .page_tokens = 5, .length = 65},
    {.num_heads = 6, .num_kv_heads = 2, .head_dim = 80, .page_tokens = 16, .length = 130},
    {.num_heads = 3, .num_kv_heads = 3, .head_dim = 7, .page_tokens = 64, .length = 4},
    {.num_heads = 16, .num_kv_heads = 2, .head_dim = 256, .page_tokens = 32, .length = 64},
    {.num_heads = 4, .num_kv_heads = 1, .head_dim = 32, .page_tokens = 64, .length = 1000},
    {.num_heads = 2, .num_kv_heads = 1, .head_dim = 16, .page_tokens = 16, .length = 1},
    {.num_heads = 100, .num_kv_heads = 1, .head_dim = 16, .page_tokens = 16, .length = 63},
};

TEST(Attention, MatchesDoublePrecision) {
  for (Case c : kCases) {
    for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kF16}) {
      c.type = type;
      const auto expected = Sequence(c).reference();
      for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
        Sequence sequence(c);
        expect_close(sequence.attend(queue, 0, c.length), expected, 4e-6,
                     isa + ", length " + std::to_string(c.length));
      });
    }
  }
}

TEST(Attention, DoesNotDependOnTheCut) {
  const Case c = {.num_heads = 6,
                  .num_kv_heads = 2,
                  .head_dim = 40,
                  .page_tokens = 24,
                  .length = 1100,
                  .type = KvType::kBF16};
  for (const int threads : {1, 3}) {
    for (const cpu::Isa isa : cpu::available_isas()) {
      cpu::WorkerPool pool(threads, false, 0);
      cpu::Queue queue{.pool = pool, .isa = isa};
      const auto whole = Sequence(c).attend_in_pieces(queue, {1100});
      const auto cut = Sequence(c).attend_in_pieces(queue, {1, 2, 60, 1, 448, 1, 1, 300, 33, 253});
      testing::expect_same_bits(cut, whole, "pieces");
      std::vector<int64_t> ends(50, 1);
      ends.insert(ends.begin(), 1050);
      testing::expect_same_bits(Sequence(c).attend_in_pieces(queue, ends), whole, "decode");
    }
  }
}

TEST(Attention, ThreadsDoNotChangeIt) {
  for (const int64_t last : {1, 4, 700}) {
    const Case c = {.num_heads = 4,
                    .num_kv_heads = 2,
                    .head_dim = 16,
                    .page_tokens = 16,
                    .length = 2100,
                    .type = KvType::kF16};
    testing::expect_thread_invariance(
        [&](cpu::Queue& queue) {
          if (queue.isa == cpu::Isa::kScalar && last > 4) return std::vector<float>();
          Sequence sequence(c);
          (void)sequence.attend(queue, 0, 1);
          // Only the stores matter before the last call.
          return sequence.attend_in_pieces(queue, {c.length - last, last});
        },
        "attention of " + std::to_string(last));
  }
}

TEST(Attention, WorkspaceOfTheLargestCallServesAll) {
  cpu::WorkerPool pool(5, false, 0);
  cpu::Queue queue{.pool = pool};
  const KvPages kv = {.page_tokens = 16, .num_kv_heads = 2, .head_dim = 24};
  int64_t largest = 0;
  for (int64_t tokens = 1; tokens <= 300; ++tokens) {
    const AttentionParams params = {
        .num_heads = 6, .first_position = 5000, .num_tokens = tokens, .scale = 1.0f};
    const int64_t floats = attention_workspace_floats(queue, params, kv);
    EXPECT_GE(floats, largest) << tokens;
    largest = floats;
  }
}

TEST(Attention, SplitsQueryAndGatePerHead) {
  const int64_t tokens = 3, heads = 2, dim = 5;
  Numbers numbers(9);
  const auto both = numbers.normal(tokens * heads * 2 * dim);
  for_each_isa([&](cpu::Queue& queue, const std::string&) {
    std::vector<float> q(tokens * heads * dim), gate(q.size());
    split_query_gate(queue, {.num_tokens = tokens, .num_heads = heads, .head_dim = dim},
                     both.data(), q.data(), gate.data());
    for (int64_t row = 0; row < tokens * heads; ++row) {
      for (int64_t d = 0; d < dim; ++d) {
        EXPECT_EQ(q[row * dim + d], both[row * 2 * dim + d]);
        EXPECT_EQ(gate[row * dim + d], both[row * 2 * dim + dim + d]);
      }
    }
  });
}

}  // namespace
}  // namespace hotset
