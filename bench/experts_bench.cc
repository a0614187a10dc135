// SPDX-License-Identifier: Apache-2.0
// The CPU's part of a decode step beside a GPU: experts of the 80B's size, chosen at random out of
// a bank that no cache holds, against a plain read of the same bytes by the same threads.
//
//   experts_bench [--threads N] [--isa NAME] [--gib N] [--rounds N]
//
// GB/s count each expert that was chosen once. "of read" divides by the median plain read.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/float16.h"
#include "kernels/cpu/read_ahead.h"
#include "kernels/moe.h"
#include "memory/huge_buffer.h"

namespace hotset {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kHidden = 2048, kWidth = 512;
constexpr int64_t kExperts = 512;  // of a layer
constexpr int32_t kTopK = 10;

struct Options {
  int threads = 0;
  cpu::Isa isa = cpu::detect_isa();
  int64_t gib = 4;
  int rounds = 300;
};

const float* bench_codebook() {
  static const float kEntries[16] = {-1.0f, -0.7f, -0.53f, -0.4f, -0.28f, -0.18f, -0.09f, 0.0f,
                                     0.08f, 0.16f, 0.25f,  0.34f, 0.44f,  0.56f,  0.72f,  1.0f};
  return kEntries;
}

// Records of gate, up and down, as the loader lays them out.
class Bank {
 public:
  Bank(PackedShape code, HugeBuffer& memory, cpu::WorkerPool& pool) {
    code.rows = kWidth;
    code.cols = kHidden;
    const PackedShape inner = code;
    code.rows = kHidden;
    code.cols = kWidth;
    const PackedShape outer = code;
    record_ = 2 * inner.bytes() + outer.bytes();
    const int64_t count = memory.size() / record_;
    views_.resize(static_cast<size_t>(count));
    const auto view = [](const PackedShape& shape, std::byte* data) {
      PackedMatrix m{shape};
      m.data = data;
      m.codebook = bench_codebook();
      return m;
    };
    pool.run([&](int worker, int num_workers) {
      for (int64_t e = worker; e < count; e += num_workers) {
        std::byte* at = memory.data() + e * record_;
        fill(inner, at, e);
        fill(inner, at + inner.bytes(), e + count);
        fill(outer, at + 2 * inner.bytes(), e + 2 * count);
        views_[static_cast<size_t>(e)] = {view(inner, at), view(inner, at + inner.bytes()),
                                          view(outer, at + 2 * inner.bytes())};
      }
    });
  }
  [[nodiscard]] const std::vector<ExpertView>& views() const { return views_; }
  [[nodiscard]] int64_t record() const { return record_; }

 private:
  static void fill(const PackedShape& shape, std::byte* data, int64_t seed) {
    uint64_t state = 0x9e3779b97f4a7c15u * static_cast<uint64_t>(seed + 1);
    for (int64_t at = 0; at < shape.bytes(); at += 8) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      std::memcpy(data + at, &state, 8);
    }
    const uint16_t scale = float_to_half(0.01f);
    for (int64_t block = 0; block < shape.num_tiles() * shape.num_groups(); ++block) {
      for (int r = 0; r < kTileRows; ++r) {
        std::memcpy(data + block * shape.group_bytes() + 2 * r, &scale, 2);
      }
    }
  }

  int64_t record_ = 0;
  std::vector<ExpertView> views_;
};

// Four forward streams, as read_ceiling.h has them.
uint64_t sum_words(const std::byte* data, int64_t bytes) {
  constexpr int64_t kStreams = 4, kAhead = 256;
  const auto* words = reinterpret_cast<const uint64_t*>(data);
  const int64_t each = bytes / 8 / kStreams / 8 * 8;
  uint64_t sums[8] = {};
  for (int64_t i = 0; i < each; i += 8) {
    for (int64_t s = 0; s < kStreams; ++s) {
      const uint64_t* line = words + s * each + i;
      __builtin_prefetch(line + kAhead);
      for (int64_t j = 0; j < 8; ++j) sums[j] += line[j];
    }
  }
  return std::accumulate(sums, sums + 8, uint64_t{0});
}

struct Routing {
  std::span<const ExpertView> layer;
  int64_t num_tokens = 0;
  int32_t top_k = 0;
  std::vector<int32_t> ids;     // -1: not asked for
  std::vector<int32_t> unique;  // experts among them
};

class Bench {
 public:
  Bench(const Options& options, HugeBuffer& memory)
      : options_(options),
        memory_(memory),
        pool_(options.threads),
        queue_{pool_, options.isa, cpu::Arithmetic::kFast},
        ahead_(pool_.num_threads()) {
    pool_.pin_caller();
    queue_.scratch.reserve(
        moe_scratch_bytes(1024, kHidden, kWidth, 16, kExperts, pool_.num_threads()));
    fork_join();
  }
  void format(const std::string& name, const PackedShape& code);

 private:
  void fork_join();
  void decode(const std::string& name, const Bank& bank, const Routing& shape_of, int ahead = 0);
  void read_ahead(const Routing& routing, int experts);
  void prefill(const std::string& name, const Bank& bank, int64_t tokens_each);
  void draw(const Bank& bank, Routing& routing);
  double plain_read(const Bank& bank, const Routing& routing);
  double products(const Routing& routing);

  Options options_;
  HugeBuffer& memory_;
  cpu::WorkerPool pool_;
  cpu::Queue queue_;
  cpu::ReadAhead ahead_;
  std::mt19937 rng_{1};
  std::vector<float> x_, rows_;
  uint64_t sink_[64 * 8] = {};
};

double median(std::vector<double>& values) {
  std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
  return values[values.size() / 2];
}

template <typename Fn>
double seconds_of(const Fn& fn) {
  const Clock::time_point start = Clock::now();
  fn();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void Bench::fork_join() {
  std::vector<double> plain, meeting;
  for (int i = 0; i < 2000; ++i) {
    plain.push_back(seconds_of([&] { pool_.run([](int, int) {}); }));
    meeting.push_back(seconds_of([&] {
      pool_.run([&](int, int) {
        for (int k = 0; k < 10; ++k) pool_.barrier();
      });
    }));
  }
  const double join = median(plain);
  fmt::print("{} threads, {}; fork and join {:.2f} us, a meeting {:.2f} us\n", pool_.num_threads(),
             cpu::isa_name(options_.isa), join * 1e6, (median(meeting) - join) * 1e5);
}

// As many tokens, ranks and choices as before, another layer, other experts.
void Bench::draw(const Bank& bank, Routing& routing) {
  const auto num_layers = bank.views().size() / kExperts;
  routing.layer = std::span(bank.views())
                      .subspan(rng_() % num_layers * kExperts, static_cast<size_t>(kExperts));
  std::vector<int32_t> names(static_cast<size_t>(kExperts));
  std::iota(names.begin(), names.end(), 0);
  routing.unique.clear();
  for (int64_t t = 0; t < routing.num_tokens; ++t) {
    for (int32_t k = 0; k < routing.top_k; ++k) {
      int32_t& id = routing.ids[static_cast<size_t>(t * routing.top_k + k)];
      if (id < 0) continue;
      std::swap(names[static_cast<size_t>(k)],
                names[static_cast<size_t>(k) + rng_() % (names.size() - static_cast<size_t>(k))]);
      id = names[static_cast<size_t>(k)];
      routing.unique.push_back(id);
    }
  }
  std::sort(routing.unique.begin(), routing.unique.end());
  routing.unique.erase(std::unique(routing.unique.begin(), routing.unique.end()),
                       routing.unique.end());
}

double Bench::plain_read(const Bank& bank, const Routing& routing) {
  const std::vector<int32_t>& ids = routing.unique;
  const int64_t record = bank.record(), total = std::ssize(ids) * record;
  return seconds_of([&] {
    pool_.run([&](int worker, int num_workers) {
      int64_t at = total * worker / num_workers / 64 * 64;
      const int64_t end = total * (worker + 1) / num_workers / 64 * 64;
      while (at < end) {
        const int64_t bytes = std::min(end, (at / record + 1) * record) - at;
        const ExpertView& view =
            routing.layer[static_cast<size_t>(ids[static_cast<size_t>(at / record)])];
        sink_[worker * 8] += sum_words(view.gate.data + at % record, bytes);
        at += bytes;
      }
    });
  });
}

double Bench::products(const Routing& routing) {
  const MoeBatch batch{.x = x_.data(),
                       .num_tokens = routing.num_tokens,
                       .hidden = kHidden,
                       .top_k = routing.top_k,
                       .expert_ids = routing.ids.data(),
                       .expert_weights = x_.data()};
  return seconds_of([&] { moe_outputs(queue_, routing.layer, batch, rows_.data()); });
}

// As while a GPU computes what lies between two layers' experts.
void Bench::read_ahead(const Routing& routing, int experts) {
  constexpr double kWindowSeconds = 60e-6;
  const auto count = std::min(routing.unique.size(), static_cast<size_t>(experts));
  ahead_.plan(routing.layer, std::span(routing.unique).first(count));
  pool_.offer(ahead_);
  const Clock::time_point start = Clock::now();
  do {
    (void)ahead_.piece(0);
  } while (std::chrono::duration<double>(Clock::now() - start).count() < kWindowSeconds);
}

void Bench::decode(const std::string& name, const Bank& bank, const Routing& shape_of, int ahead) {
  Routing routing = shape_of;
  const cpu::WorkerPool::Awake awake(pool_);
  std::vector<double> reads, times, unique;
  for (int i = 0; i < options_.rounds; ++i) {
    draw(bank, routing);
    unique.push_back(static_cast<double>(routing.unique.size()));
    reads.push_back(plain_read(bank, routing) / unique.back());
    draw(bank, routing);
    if (ahead > 0) read_ahead(routing, ahead);
    times.push_back(products(routing) / static_cast<double>(routing.unique.size()));
  }
  const double bytes = static_cast<double>(bank.record()), experts = median(unique);
  const double read = median(reads), time = median(times);
  fmt::print("{:<34}{:>6.0f}{:>9.1f}{:>9.1f}{:>9.1f}{:>8.0f}%\n", name, experts,
             time * experts * 1e6, bytes / time / 1e9, bytes / read / 1e9, 100 * read / time);
}

// All experts of a layer, so many tokens each.
void Bench::prefill(const std::string& name, const Bank& bank, int64_t tokens_each) {
  constexpr int32_t kRanks = 16;
  Routing routing{.layer = {},
                  .num_tokens = kExperts * tokens_each / kRanks,
                  .top_k = kRanks,
                  .ids = {},
                  .unique = {}};
  for (int64_t i = 0; i < kExperts * tokens_each; ++i) {
    routing.ids.push_back(static_cast<int32_t>(i % kExperts));
  }
  std::vector<double> times;
  for (size_t i = 0; i < 7; ++i) {
    const size_t first = i * static_cast<size_t>(kExperts) % (bank.views().size() - kExperts);
    routing.layer = std::span(bank.views()).subspan(first, static_cast<size_t>(kExperts));
    times.push_back(products(routing));
  }
  const double time = median(times);
  fmt::print("{:<34}{:>6}{:>9.1f}{:>9.1f}   {:>9.0f} experts/s {:>7.0f} GMAC/s\n", name, kExperts,
             time * 1e6, static_cast<double>(kExperts * bank.record()) / time / 1e9,
             static_cast<double>(kExperts) / time,
             3.0 * static_cast<double>(kExperts * tokens_each * kHidden * kWidth) / time / 1e9);
}

void Bench::format(const std::string& name, const PackedShape& code) {
  const Bank bank(code, memory_, pool_);
  x_.resize(static_cast<size_t>(1024 * kHidden));
  rows_.resize(static_cast<size_t>(1024 * 16 * kHidden));
  for (float& v : x_) v = static_cast<float>(rng_() % 2001) / 1000.0f - 1.0f;
  fmt::print("{}: {} experts of {:.3f} MB\n{:<34}{:>6}{:>9}{:>9}{:>9}{:>9}\n", name,
             bank.views().size(), static_cast<double>(bank.record()) / 1e6, "case", "read", "us",
             "GB/s", "plain", "of read");
  for (const int experts : {1, 2, 3, 4, 5, 6, 7, 8}) {
    Routing routing{.layer = {}, .num_tokens = 1, .top_k = kTopK, .ids = {}, .unique = {}};
    for (int k = 0; k < kTopK; ++k) routing.ids.push_back(k < experts ? 0 : -1);
    decode(fmt::format("1 token, {} missed", experts), bank, routing);
    for (int ahead = 2; ahead <= experts; ahead += 2) {
      decode(fmt::format("  {} of them read ahead", ahead), bank, routing, ahead);
    }
  }
  for (const int64_t tokens : {2, 4, 8, 16}) {
    Routing routing{.layer = {}, .num_tokens = tokens, .top_k = kTopK, .ids = {}, .unique = {}};
    for (int64_t i = 0; i < tokens * kTopK; ++i) routing.ids.push_back(rng_() % 20 < 7 ? -1 : 0);
    decode(fmt::format("{} tokens, 65 % missed", tokens), bank, routing);
  }
  for (const int64_t each : {1, 2, 4, 8, 10, 12, 16, 24, 32}) {
    prefill(fmt::format("{} tokens an expert", each), bank, each);
  }
}

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view flag = argv[i];
    const char* value = argv[i + 1];
    if (flag == "--threads") {
      options.threads = std::max(0, std::atoi(value));
    } else if (flag == "--gib") {
      options.gib = std::max(1, std::atoi(value));
    } else if (flag == "--rounds") {
      options.rounds = std::max(1, std::atoi(value));
    } else if (const auto isa = cpu::parse_isa(value); flag == "--isa" && isa) {
      options.isa = *isa;
    } else {
      return false;
    }
  }
  return argc % 2 == 1;
}

int run(const Options& options) {
  auto memory = HugeBuffer::allocate(options.gib << 30);
  HS_CHECK(memory.has_value(), "{}", memory.error().message);
  const PackedShape affine{
      .code = CodeKind::kAffine4, .scale = ScaleKind::kF16, .zero = 8, .group = 128};
  const PackedShape codebook{.code = CodeKind::kCodebook4, .scale = ScaleKind::kF16, .group = 64};
  Bench bench(options, *memory);
  bench.format("affine4 g128", affine);
  bench.format("codebook4 g64", codebook);
  return 0;
}

}  // namespace
}  // namespace hotset

int main(int argc, char** argv) {
  hotset::Options options;
  if (!hotset::parse(argc, argv, options)) {
    fmt::print(stderr, "usage: experts_bench [--threads N] [--isa NAME] [--gib N] [--rounds N]\n");
    return 2;
  }
  return hotset::run(options);
}
