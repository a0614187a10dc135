// SPDX-License-Identifier: Apache-2.0
// Linear layers and experts on the GPU at the shapes of the 80B model, each in a recorded graph
// that goes through enough different weights to leave nothing in the cache; and what a layer has
// besides its mixer and experts, one launch after the other as in a step.
//
//   cuda_ops_bench [int4|int4+8|nf4|int8|int8row|bf16|all] [most tokens] [experts]
//
// int4+8: 4-bit routed experts, a shared one of 8; int8row: a group a row. `experts` leaves the
// linear layers out. "4 of 10+1": the experts of six choices are not on the GPU.
//
// Prints µs an operation, GB/s of weights, their share of a plain read measured in the same run,
// and TFLOP/s.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/runtime.h"
#include "kernels/cuda/expert_table.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/queue.h"
#include "kernels/matmul.h"
#include "kernels/moe.h"
#include "kernels/rms_norm.h"
#include "kernels/router.h"

namespace hotset::cuda {
namespace {

constexpr int64_t kHidden = 2048, kWidth = 512, kExperts = 512;
constexpr int64_t kGates = 64;                     // rows of ba, which checkpoints leave at 16 bits
constexpr int64_t kRotation = int64_t{512} << 20;  // of weights before one is read again

template <typename T>
T must(Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "%s\n", result.error().message.c_str());
  std::exit(1);
}
void must(const Status& status) {
  if (status) return;
  std::fprintf(stderr, "%s\n", status.error().message.c_str());
  std::exit(1);
}

// Bits without a pattern; as half or bf16 they are small numbers.
__global__ void fill_kernel(uint32_t* data, int64_t words) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < words;
       i += stride) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u;
    x ^= x >> 15;
    x *= 2246822519u;
    x ^= x >> 13;
    data[i] = x & 0xbbffbbffu;
  }
}

__global__ void read_kernel(const uint4* data, int64_t count, uint32_t* out) {
  uint32_t sum = 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += 4 * stride) {
    uint4 v[4] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (i + j * stride < count) v[j] = __ldcs(data + i + j * stride);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (sum == 0x12345678u) *out = sum;
}

class Bench {
 public:
  Bench() : runtime_(must(open_runtime(0))) {
    queue_.reset(new Queue{.runtime = *runtime_, .stream = must(runtime_->create_stream())});
    begin_ = must(runtime_->create_event());
    end_ = must(runtime_->create_event());
  }

  [[nodiscard]] Queue& queue() { return *queue_; }
  void reserve_scratch(int64_t bytes) {
    queue_->scratch = {};
    queue_->scratch = must(Scratch::create(*runtime_, bytes));
  }
  [[nodiscard]] DeviceMemory allocate(int64_t bytes) {
    DeviceMemory memory = must(DeviceMemory::allocate(*runtime_, (bytes + 255) / 256 * 256));
    HS_LAUNCH(*queue_, Grid{4096}, Grid{256}, 0, fill_kernel,
              reinterpret_cast<uint32_t*>(memory.data()), memory.size() / 4);
    must(queue_->status);
    return memory;
  }
  template <typename T>
  [[nodiscard]] DeviceMemory upload(const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    DeviceMemory memory = allocate(bytes);
    must(runtime_->copy(memory.data(), values.data(), bytes, queue_->stream));
    must(runtime_->synchronize(queue_->stream));
    return memory;
  }

  // Seconds of what `body` puts on the stream, as a graph: the median of some runs.
  template <typename Body>
  double seconds(Body body) {
    must(runtime_->begin_capture(queue_->stream));
    body();
    Graph graph = must(runtime_->end_capture(queue_->stream));
    must(queue_->status);
    std::vector<double> times;
    double total = 0;
    for (int i = 0; i < 12 && (i < 4 || total < 0.5); ++i) {
      must(runtime_->record(begin_, queue_->stream));
      must(runtime_->launch(graph, queue_->stream));
      must(runtime_->record(end_, queue_->stream));
      must(runtime_->synchronize(queue_->stream));
      const double time = must(runtime_->elapsed_seconds(begin_, end_));
      if (i >= 2) times.push_back(time);
      total += time;
    }
    runtime_->destroy(graph);
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

  double measure_read() {
    const int64_t bytes = int64_t{2} << 30;
    const DeviceMemory data = allocate(bytes), out = allocate(256);
    const double time = seconds([&] {
      HS_LAUNCH(*queue_, Grid{static_cast<unsigned>(queue_->num_sms() * 16)}, Grid{512}, 0,
                read_kernel, reinterpret_cast<const uint4*>(data.data()), bytes / 16,
                reinterpret_cast<uint32_t*>(out.data()));
    });
    read_rate_ = static_cast<double>(bytes) / time;
    std::printf("%s, plain read %.0f GB/s\n", runtime_->info().name.c_str(), read_rate_ / 1e9);
    return read_rate_;
  }

  void report(const std::string& name, int64_t tokens, double time, double bytes, double flops) {
    std::printf("%-34s %5lld tokens %10.2f us %8.0f GB/s %5.1f %% %8.1f TFLOP/s\n", name.c_str(),
                static_cast<long long>(tokens), time * 1e6, bytes / time / 1e9,
                100 * bytes / time / read_rate_, flops / time / 1e12);
    std::fflush(stdout);
  }

 private:
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<Queue> queue_;
  Event begin_, end_;
  double read_rate_ = 1;
};

PackedShape shape_of(const std::string& kind, int64_t rows, int64_t cols) {
  if (kind == "bf16") return {.code = CodeKind::kBF16, .rows = rows, .cols = cols, .group = cols};
  if (kind == "nf4") {
    return {.code = CodeKind::kCodebook4,
            .scale = ScaleKind::kF16,
            .rows = rows,
            .cols = cols,
            .group = 64};
  }
  const bool four = kind.starts_with("int4");
  return {.code = four ? CodeKind::kAffine4 : CodeKind::kInt8,
          .scale = ScaleKind::kF16,
          .zero = static_cast<uint8_t>(four ? 8 : 128),
          .rows = rows,
          .cols = cols,
          .group = kind == "int8row" ? cols : 128};
}

struct Layer {
  std::string name;
  std::vector<int64_t> rows;
  int64_t cols;
  int64_t most_tokens = 4096;
};

DeviceMemory any_codebook(Bench& bench) {
  std::vector<float> entries(16);
  for (size_t i = 0; i < 16; ++i) entries[i] = (static_cast<float>(i) - 7.5f) / 7.5f;
  return bench.upload(entries);
}

void bench_layer(Bench& bench, const Layer& layer, const std::string& kind, int64_t most_tokens) {
  const DeviceMemory codebook = any_codebook(bench);
  std::vector<PackedMatrix> weights;
  int64_t bytes = 0, rows = 0;
  for (const int64_t r : layer.rows) {
    PackedMatrix m;
    static_cast<PackedShape&>(m) = shape_of(r == kGates ? "bf16" : kind, r, layer.cols);
    m.codebook = reinterpret_cast<const float*>(codebook.data());
    weights.push_back(m);
    bytes += m.bytes();
    rows += r;
  }
  const int64_t copies = std::clamp<int64_t>(kRotation / bytes, 1, 48);
  const DeviceMemory data = bench.allocate(bytes * copies);
  for (const int64_t tokens : {1, 4, 16, 512, 4096}) {
    if (tokens > std::min(most_tokens, layer.most_tokens)) continue;
    const DeviceMemory x = bench.allocate(4 * tokens * layer.cols);
    const DeviceMemory y = bench.allocate(4 * tokens * rows);
    const int64_t rounds = tokens > 16 ? std::min<int64_t>(copies, 4) : copies;
    bench.reserve_scratch(matmul_scratch_bytes(tokens, layer.cols));
    const double time = bench.seconds([&] {
      for (int64_t i = 0; i < rounds; ++i) {
        std::vector<PackedMatrix> now = weights;
        std::vector<MatmulOutput> outputs;
        const std::byte* at = data.data() + i * bytes;
        auto* to = reinterpret_cast<float*>(y.data());
        for (PackedMatrix& m : now) {
          m.data = at;
          at += m.bytes();
          outputs.push_back({&m, to, m.rows});
          to += tokens * m.rows;
        }
        matmul(bench.queue(), outputs, reinterpret_cast<const float*>(x.data()), layer.cols,
               tokens);
      }
    });
    bench.report(kind + " " + layer.name, tokens, time / static_cast<double>(rounds),
                 static_cast<double>(bytes),
                 2.0 * static_cast<double>(tokens) * static_cast<double>(rows * layer.cols));
  }
}

// Norm, qkvz and ba, out; norm, router with the shared expert's gate, choice of experts.
class LayerBench {
 public:
  LayerBench(Bench& bench, const std::string& kind)
      : bench_(bench),
        weights_{matrix(kind, 12288, kHidden), matrix("bf16", kGates, kHidden),
                 matrix(kind, kHidden, 4096), matrix("bf16", kExperts, kHidden),
                 matrix("bf16", 1, kHidden)} {
    for (const PackedMatrix& m : weights_) bytes_ += m.bytes();
    data_ = bench.allocate(bytes_ * kLayers);
  }

  void run(const std::string& kind, int64_t tokens) {
    const DeviceMemory hidden = floats(tokens * kHidden), residual = floats(tokens * kHidden),
                       update = floats(tokens * kHidden), norm = floats(kHidden),
                       mixed = floats(tokens * 12288), ba = floats(tokens * 64),
                       logits = floats(tokens * kExperts), gate = floats(tokens),
                       ids = floats(tokens * kChoices), chosen = floats(tokens * kChoices);
    const auto at = [](const DeviceMemory& m) { return reinterpret_cast<float*>(m.data()); };
    bench_.reserve_scratch(matmul_scratch_bytes(tokens, 4096));
    Queue& queue = bench_.queue();
    const RmsNormParams rows{.num_rows = tokens, .cols = kHidden, .eps = 1e-6f};
    const double time = bench_.seconds([&] {
      for (int64_t layer = 0; layer < kLayers; ++layer) {
        std::vector<PackedMatrix> w = weights_;
        const std::byte* from = data_.data() + layer * bytes_;
        for (PackedMatrix& m : w) {
          m.data = from;
          from += m.bytes();
        }
        add_rms_norm(queue, rows, at(update), at(residual), at(norm), at(hidden));
        const std::vector<MatmulOutput> in = {{&w[0], at(mixed), 12288}, {&w[1], at(ba), 64}};
        matmul(queue, in, at(hidden), kHidden, tokens);
        const std::vector<MatmulOutput> out = {{&w[2], at(update), kHidden}};
        matmul(queue, out, at(mixed), 12288, tokens);
        add_rms_norm(queue, rows, at(update), at(residual), at(norm), at(hidden));
        const std::vector<MatmulOutput> router = {{&w[3], at(logits), kExperts},
                                                  {&w[4], at(gate), 1}};
        matmul(queue, router, at(hidden), kHidden, tokens);
        route_with_shared(queue, {.num_tokens = tokens, .num_experts = kExperts, .top_k = 10},
                          at(logits), at(gate), reinterpret_cast<int32_t*>(ids.data()), at(chosen));
      }
    });
    bench_.report(kind + " dense part of a layer", tokens, time / kLayers,
                  static_cast<double>(bytes_), 0);
  }

 private:
  static constexpr int64_t kLayers = 48, kChoices = 11;

  static PackedMatrix matrix(const std::string& kind, int64_t rows, int64_t cols) {
    PackedMatrix m;
    static_cast<PackedShape&>(m) = shape_of(kind, rows, cols);
    return m;
  }
  [[nodiscard]] DeviceMemory floats(int64_t count) const { return bench_.allocate(4 * count); }

  Bench& bench_;
  std::vector<PackedMatrix> weights_;
  int64_t bytes_ = 0;
  DeviceMemory data_;
};

// `chosen` of 512 experts and a shared one. The first `here` of the chosen are on the GPU; if that
// is not all, the choices' outputs are joined by a launch of their own.
struct Choosing {
  int32_t chosen = 0;
  int32_t here = 0;
};

void bench_experts(Bench& bench, const std::string& kind, const Choosing& choosing, int64_t tokens,
                   const ExpertTable& table, int64_t expert_bytes, int64_t shared_bytes) {
  const auto [chosen, here] = choosing;
  const int32_t top_k = chosen + 1;
  const int64_t rounds = tokens > 16 ? 2 : 48;
  std::mt19937 rng(1);
  std::vector<int32_t> ids;
  double read = 0;
  for (int64_t round = 0; round < rounds; ++round) {
    std::set<int32_t> distinct;
    for (int64_t t = 0; t < tokens; ++t) {
      std::set<int32_t> mine;
      while (static_cast<int32_t>(mine.size()) < chosen) {
        mine.insert(static_cast<int32_t>(rng() % kExperts));
      }
      int32_t k = 0;
      for (const int32_t id : mine) {
        const bool is_here = (k++ * here) % chosen < here;
        if (is_here) distinct.insert(id);
        ids.push_back(is_here ? id : -1);
      }
      ids.push_back(kExperts);
    }
    read += static_cast<double>(distinct.size()) * static_cast<double>(expert_bytes) +
            static_cast<double>(shared_bytes);
  }
  const DeviceMemory device_ids = bench.upload(ids);
  const DeviceMemory weights = bench.upload(std::vector<float>(ids.size(), 0.1f));
  const DeviceMemory x = bench.allocate(4 * tokens * kHidden),
                     y = bench.allocate(4 * tokens * kHidden),
                     rows = bench.allocate(4 * tokens * top_k * kHidden);
  bench.reserve_scratch(moe_scratch_bytes(table, tokens, kHidden, top_k));
  const double time = bench.seconds([&] {
    for (int64_t i = 0; i < rounds; ++i) {
      const MoeBatch batch{
          .x = reinterpret_cast<const float*>(x.data()),
          .num_tokens = tokens,
          .hidden = kHidden,
          .top_k = top_k,
          .expert_ids = reinterpret_cast<const int32_t*>(device_ids.data()) + i * tokens * top_k,
          .expert_weights = reinterpret_cast<const float*>(weights.data())};
      if (here == chosen) {
        moe_experts(bench.queue(), table, batch, nullptr, reinterpret_cast<float*>(y.data()));
      } else {
        moe_outputs(bench.queue(), table, batch, reinterpret_cast<float*>(rows.data()));
        moe_join(bench.queue(), batch, reinterpret_cast<const float*>(rows.data()),
                 reinterpret_cast<const float*>(rows.data()), reinterpret_cast<float*>(y.data()));
      }
    }
  });
  const std::string of = here == chosen ? "" : std::to_string(here) + " of ";
  bench.report(kind + " experts " + of + std::to_string(chosen) + "+1", tokens,
               time / static_cast<double>(rounds), read / static_cast<double>(rounds),
               6.0 * static_cast<double>(tokens * top_k) * static_cast<double>(kHidden * kWidth));
}

ExpertGroup expert_group(const std::string& kind, const float* codebook, int32_t first,
                         int32_t count) {
  ExpertGroup group;
  static_cast<PackedShape&>(group.encoding.gate) = shape_of(kind, kWidth, kHidden);
  static_cast<PackedShape&>(group.encoding.up) = shape_of(kind, kWidth, kHidden);
  static_cast<PackedShape&>(group.encoding.down) = shape_of(kind, kHidden, kWidth);
  for (PackedMatrix* m : {&group.encoding.gate, &group.encoding.up, &group.encoding.down}) {
    m->codebook = codebook;
  }
  group.first_expert = first;
  group.num_experts = count;
  return group;
}

int64_t expert_bytes(const ExpertGroup& group) {
  return 2 * group.encoding.gate.bytes() + group.encoding.down.bytes();
}

void bench_all_experts(Bench& bench, const std::string& kind, int64_t most_tokens) {
  const DeviceMemory codebook = any_codebook(bench);
  const auto* book = reinterpret_cast<const float*>(codebook.data());
  const std::vector<ExpertGroup> groups = {
      expert_group(kind, book, 0, static_cast<int32_t>(kExperts)),
      expert_group(kind == "int4+8" ? "int8" : kind, book, static_cast<int32_t>(kExperts), 1)};
  const int64_t each = expert_bytes(groups[0]), shared = expert_bytes(groups[1]);
  const DeviceMemory data = bench.allocate(each * kExperts + shared);
  std::vector<ExpertAddress> addresses;
  for (int64_t e = 0; e <= kExperts; ++e) {
    const std::byte* at = data.data() + e * each;
    const int64_t gate = groups[e < kExperts ? 0 : 1].encoding.gate.bytes();
    addresses.push_back({at, at + gate, at + 2 * gate});
  }
  const DeviceMemory device_addresses = bench.upload(addresses);
  const ExpertTable table{
      .addresses = reinterpret_cast<const ExpertAddress*>(device_addresses.data()),
      .groups = groups.data(),
      .num_groups = 2};
  for (const Choosing choosing : {Choosing{1, 1}, {3, 3}, {10, 4}, {10, 10}}) {
    for (const int64_t tokens : {1, 2, 4, 8, 16, 512, 4096}) {
      if (tokens > most_tokens || (tokens > 16 && choosing.here < 10)) continue;
      bench_experts(bench, kind, choosing, tokens, table, each, shared);
    }
  }
}

void run(const std::string& wanted, int64_t most_tokens, bool experts_only) {
  const std::vector<Layer> layers = {{"qkvz 12288 + ba 64 in bf16", {12288, kGates}, 2048},
                                     {"out 2048 of 4096", {2048}, 4096},
                                     {"q 8192 + k, v 512, of 2048", {8192, 512, 512}, 2048},
                                     {"head 151936 of 2048", {151936}, 2048, 16},
                                     {"router 512 of 2048", {512}, 2048}};
  Bench bench;
  bench.measure_read();
  for (const std::string kind : {"int4", "int4+8", "nf4", "int8", "int8row", "bf16"}) {
    if (wanted != "all" && wanted != kind) continue;
    const bool linear = !experts_only && kind != "int4+8" && kind != "int8row";
    for (const Layer& layer : layers) {
      if (linear) bench_layer(bench, layer, kind, most_tokens);
    }
    if (linear && kind != "nf4") {
      LayerBench layer(bench, kind);
      for (const int64_t tokens : {1, 2, 4, 8, 16}) {
        if (tokens <= most_tokens) layer.run(kind, tokens);
      }
    }
    bench_all_experts(bench, kind, most_tokens);
  }
}

}  // namespace
}  // namespace hotset::cuda

int main(int argc, char** argv) {
  hotset::cuda::run(argc > 1 ? argv[1] : "all", argc > 2 ? std::atoll(argv[2]) : 4096, argc > 3);
}
