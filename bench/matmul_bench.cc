// SPDX-License-Identifier: Apache-2.0
// Matrix products and experts at the true shapes of Qwen3-Next-80B-A3B, against what the same
// threads reach when they only read memory. Weights are spread over far more memory than the caches
// hold, on huge pages. Decode (1 token) is judged by its share of the plain read, prefill by
// GMAC/s.
//
//   matmul_bench [--threads N] [--isa NAME] [--exact] [--filter TEXT] [--seconds S] [--json]
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/float16.h"
#include "kernels/matmul.h"
#include "kernels/moe.h"
#include "read_ceiling.h"

namespace hotset {
namespace {

struct Options {
  int threads = 0;
  cpu::Isa isa = cpu::detect_isa();
  cpu::Arithmetic arithmetic = cpu::Arithmetic::kFast;
  std::string filter;
  double seconds = 1.0;
  bool json = false;
};

// Anonymous huge pages, touched by the pool's threads.
class HugeBuffer {
 public:
  HugeBuffer(size_t bytes, cpu::WorkerPool& pool) : bytes_(bytes + kHugePage) {
    base_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    HS_CHECK(base_ != MAP_FAILED, "no memory for {} bytes", bytes_);
    const auto address = reinterpret_cast<uintptr_t>(base_);
    data_ = reinterpret_cast<std::byte*>((address + kHugePage - 1) / kHugePage * kHugePage);
    madvise(data_, bytes, MADV_HUGEPAGE);
    pool.run([&](int worker, int num_workers) {
      const size_t begin =
          bytes / 8 * static_cast<size_t>(worker) / static_cast<size_t>(num_workers);
      const size_t end =
          bytes / 8 * static_cast<size_t>(worker + 1) / static_cast<size_t>(num_workers);
      uint64_t state = 0x9e3779b97f4a7c15u * static_cast<uint64_t>(worker + 1);
      for (size_t i = begin; i < end; ++i) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        std::memcpy(data_ + 8 * i, &state, 8);
      }
    });
  }
  ~HugeBuffer() { munmap(base_, bytes_); }
  HugeBuffer(const HugeBuffer&) = delete;
  HugeBuffer& operator=(const HugeBuffer&) = delete;
  [[nodiscard]] std::byte* data() const { return data_; }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;
  void* base_ = nullptr;
  size_t bytes_ = 0;
  std::byte* data_ = nullptr;
};

// Random codes are as good as any; scales must be sane numbers.
void write_scales(const PackedShape& shape, std::byte* data) {
  const uint16_t scale = float_to_half(0.01f);
  for (int64_t block = 0; block < shape.num_tiles() * shape.num_groups(); ++block) {
    for (int r = 0; r < kTileRows; ++r) {
      std::memcpy(data + block * shape.group_bytes() + 2 * r, &scale, 2);
    }
  }
}

const float* bench_codebook() {
  static const float kEntries[16] = {-1.0f, -0.7f, -0.53f, -0.4f, -0.28f, -0.18f, -0.09f, 0.0f,
                                     0.08f, 0.16f, 0.25f,  0.34f, 0.44f,  0.56f,  0.72f,  1.0f};
  return kEntries;
}

// Copies of one matrix, enough of them to outgrow any cache.
struct Copies {
  Copies(const PackedShape& shape, int64_t count, cpu::WorkerPool& pool)
      : stride(round_up(shape.bytes(), 64)), buffer(static_cast<size_t>(stride * count), pool) {
    for (int64_t i = 0; i < count; ++i) {
      PackedMatrix m{shape};
      m.data = buffer.data() + i * stride;
      m.codebook = bench_codebook();
      if (shape.scale == ScaleKind::kF16) write_scales(shape, buffer.data() + i * stride);
      matrices.push_back(m);
    }
  }
  int64_t stride;
  HugeBuffer buffer;
  std::vector<PackedMatrix> matrices;
};

struct Timing {
  double best_s = 1e30;
  double median_s = 0;
};

Timing measure(double seconds, const std::function<void()>& call) {
  using Clock = std::chrono::steady_clock;
  call();
  std::vector<double> times;
  const auto start = Clock::now();
  while (times.size() < 5 ||
         std::chrono::duration<double>(Clock::now() - start).count() < seconds) {
    const auto before = Clock::now();
    call();
    times.push_back(std::chrono::duration<double>(Clock::now() - before).count());
  }
  std::sort(times.begin(), times.end());
  return {times.front(), times[times.size() / 2]};
}

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options), pool_(options.threads), queue_{pool_, options.isa, options.arithmetic} {
    pool_.pin_caller();
    const auto ceiling = bench::read_ceiling(pool_);
    HS_CHECK(ceiling.has_value(), "{}", ceiling.error().message);
    ceiling_ = *ceiling;
    if (options_.json) {
      fmt::print("{{\"case\":\"plain read\",\"threads\":{},\"gb_per_s\":{:.2f}}}\n",
                 pool_.num_threads(), ceiling_ / 1e9);
    } else {
      fmt::print("{} threads, {}, {} arithmetic; plain read {:.2f} GB/s\n", pool_.num_threads(),
                 cpu::isa_name(options_.isa),
                 options_.arithmetic == cpu::Arithmetic::kFast ? "fast" : "exact", ceiling_ / 1e9);
      fmt::print("{:<44}{:>10}{:>10}{:>10}{:>8}{:>9}{:>9}\n", "case", "best ms", "median", "MB",
                 "GB/s", "of read", "GMAC/s");
    }
  }

  void fork_join();
  void linear(const std::string& name, const PackedShape& shape, int64_t num_tokens);
  void experts(const std::string& name, PackedShape code, int64_t num_tokens);

 private:
  void report(const std::string& name, const Timing& timing, int64_t bytes, int64_t macs) const;
  [[nodiscard]] bool wanted(const std::string& name) const {
    return name.find(options_.filter) != std::string::npos;
  }

  Options options_;
  cpu::WorkerPool pool_;
  cpu::Queue queue_;
  double ceiling_ = 0;
};

void Bench::report(const std::string& name, const Timing& timing, int64_t bytes,
                   int64_t macs) const {
  const double rate = static_cast<double>(bytes) / timing.best_s;
  const double gmacs = static_cast<double>(macs) / timing.best_s / 1e9;
  const double megabytes = static_cast<double>(bytes) / 1e6;
  const char* layout =
      options_.json ? "{{\"case\":\"{}\",\"best_ms\":{:.4f},\"median_ms\":{:.4f},\"mb\":{:.2f},"
                      "\"gb_per_s\":{:.2f},\"share_of_read\":{:.3f},\"gmac_per_s\":{:.1f}}}\n"
                    : "{:<44}{:>10.4f}{:>10.4f}{:>10.2f}{:>8.2f}{:>9.3f}{:>9.1f}\n";
  fmt::print(fmt::runtime(layout), name, timing.best_s * 1e3, timing.median_s * 1e3, megabytes,
             rate / 1e9, rate / ceiling_, gmacs);
  std::fflush(stdout);
}

void Bench::fork_join() {
  if (!wanted("fork and join")) return;
  constexpr int kRounds = 1000;
  Timing timing = measure(options_.seconds, [&] {
    for (int i = 0; i < kRounds; ++i) pool_.run([](int, int) {});
  });
  timing.best_s /= kRounds;
  timing.median_s /= kRounds;
  report("fork and join", timing, 0, 0);
}

void Bench::linear(const std::string& name, const PackedShape& shape, int64_t num_tokens) {
  if (!wanted(name)) return;
  const int64_t count =
      num_tokens > 8 ? 2 : std::max<int64_t>(1, (int64_t{512} << 20) / shape.bytes());
  const Copies copies(shape, count, pool_);
  std::vector<float> x(static_cast<size_t>(num_tokens * shape.cols));
  std::mt19937 rng(1);
  for (float& v : x) v = static_cast<float>(rng() % 2001) / 1000.0f - 1.0f;
  std::vector<float> y(static_cast<size_t>(num_tokens * shape.rows));
  queue_.reserve(num_tokens, shape.cols);
  size_t turn = 0;
  const Timing timing = measure(options_.seconds, [&] {
    const MatmulOutput output{&copies.matrices[turn++ % copies.matrices.size()], y.data(),
                              shape.rows};
    matmul(queue_, {&output, 1}, x.data(), shape.cols, num_tokens);
  });
  report(name, timing, shape.bytes(), num_tokens * shape.rows * shape.cols);
}

void Bench::experts(const std::string& name, PackedShape code, int64_t num_tokens) {
  if (!wanted(name)) return;
  constexpr int64_t kHidden = 2048, kWidth = 512, kExperts = 512;
  constexpr int32_t kTopK = 10;
  const auto shaped = [&](int64_t rows, int64_t cols) {
    PackedShape shape = code;
    shape.rows = rows;
    shape.cols = cols;
    return shape;
  };
  const Copies inner(shaped(kWidth, kHidden), 2 * kExperts, pool_);
  const Copies outer(shaped(kHidden, kWidth), kExperts, pool_);
  std::vector<ExpertView> views;
  for (size_t e = 0; e < kExperts; ++e) {
    views.push_back({inner.matrices[2 * e], inner.matrices[2 * e + 1], outer.matrices[e]});
  }
  std::mt19937 rng(1);
  std::vector<float> x(static_cast<size_t>(num_tokens * kHidden)), y(x.size());
  for (float& v : x) v = static_cast<float>(rng() % 2001) / 1000.0f - 1.0f;
  std::vector<int32_t> ids(static_cast<size_t>(num_tokens * kTopK)), all(kExperts);
  const std::vector<float> weights(ids.size(), 0.1f);
  for (int32_t e = 0; e < kExperts; ++e) all[static_cast<size_t>(e)] = e;
  const auto choose = [&] {
    for (int64_t t = 0; t < num_tokens; ++t) {
      for (size_t k = 0; k < kTopK; ++k) {
        std::swap(all[k], all[k + rng() % (kExperts - k)]);
        ids[static_cast<size_t>(t) * kTopK + k] = all[k];
      }
    }
  };
  queue_.scratch.reserve(
      moe_scratch_bytes(num_tokens, kHidden, kWidth, kTopK, kExperts, pool_.num_threads()));
  const MoeBatch batch{.x = x.data(),
                       .num_tokens = num_tokens,
                       .hidden = kHidden,
                       .top_k = kTopK,
                       .expert_ids = ids.data(),
                       .expert_weights = weights.data()};
  choose();
  const Timing timing = measure(options_.seconds, [&] {
    if (num_tokens < 8) choose();
    moe_experts(queue_, views, batch, y.data());
  });
  const int64_t expert_bytes = 3 * inner.matrices[0].bytes();
  const int64_t touched = std::min(num_tokens * kTopK, kExperts);
  report(name, timing, touched * expert_bytes, 3 * num_tokens * kTopK * kHidden * kWidth);
}

void run_cases(const Options& options) {
  Bench bench(options);
  const auto affine = [](int64_t rows, int64_t cols) {
    return PackedShape{.code = CodeKind::kAffine4,
                       .scale = ScaleKind::kF16,
                       .zero = 8,
                       .rows = rows,
                       .cols = cols,
                       .group = 128};
  };
  const PackedShape codebook{.code = CodeKind::kCodebook4, .scale = ScaleKind::kF16, .group = 64};
  bench.fork_join();
  bench.linear("decode 2048 to 12288 int8 g128", int8_shape(12288, 2048), 1);
  bench.linear("decode 2048 to 12288 affine4 g128", affine(12288, 2048), 1);
  bench.linear("decode 2048 to 12288 bf16", plain_shape(CodeKind::kBF16, 12288, 2048), 1);
  bench.linear("decode 2048 to 151936 int8 g128", int8_shape(151936, 2048), 1);
  bench.experts("decode 10 experts affine4 g128", affine(0, 0), 1);
  bench.experts("decode 10 experts codebook4 g64", codebook, 1);
  bench.experts("decode 4 tokens, 10 experts affine4 g128", affine(0, 0), 4);
  bench.linear("prefill 512, 2048 to 12288 int8 g128", int8_shape(12288, 2048), 512);
  bench.linear("prefill 512, 2048 to 12288 affine4 g128", affine(12288, 2048), 512);
  bench.linear("prefill 512, 2048 to 12288 bf16", plain_shape(CodeKind::kBF16, 12288, 2048), 512);
  bench.experts("prefill 512, 10 of 512 experts affine4 g128", affine(0, 0), 512);
  bench.experts("prefill 512, 10 of 512 experts codebook4 g64", codebook, 512);
}

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (flag == "--json") {
      options.json = true;
    } else if (flag == "--exact") {
      options.arithmetic = cpu::Arithmetic::kExact;
    } else if (value == nullptr) {
      return false;
    } else if (flag == "--threads") {
      options.threads = std::atoi(argv[++i]);
    } else if (flag == "--seconds") {
      options.seconds = std::atof(argv[++i]);
    } else if (flag == "--filter") {
      options.filter = argv[++i];
    } else if (const auto isa = cpu::parse_isa(value); flag == "--isa" && isa) {
      options.isa = *isa;
      ++i;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace hotset

int main(int argc, char** argv) {
  hotset::Options options;
  if (!hotset::parse(argc, argv, options)) {
    fmt::print(stderr,
               "usage: matmul_bench [--threads N] [--isa NAME] [--exact] [--filter TEXT] "
               "[--seconds S] [--json]\n");
    return 2;
  }
  hotset::run_cases(options);
  return 0;
}
