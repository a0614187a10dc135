// SPDX-License-Identifier: Apache-2.0
// The CUDA operations around the linear layers, at the dimensions of the 80B model: each one many
// times in a recorded graph, over buffers that together exceed the L2 cache, so that a time is what
// an operation costs inside a step.
//   cuda_mixer_bench [name filter] [device]
// Prints µs an operation, the bytes it can't avoid moving per second, and their share of what a
// kernel that only reads reaches in the same run.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "cuda/device_memory.h"
#include "kernels/cuda/machine_probe.h"
#include "kernels/delta_mixer.h"
#include "kernels/embedding.h"
#include "kernels/gated_attention.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/router.h"

namespace hotset {
namespace {

constexpr int64_t kHidden = 2048, kExperts = 512, kTopK = 10, kPageTokens = 64;
constexpr DeltaNetShape kShape = {
    .num_key_heads = 16, .num_value_heads = 32, .key_head_dim = 128, .value_head_dim = 128};
constexpr int64_t kDistinctBytes = int64_t{256} << 20;  // more than any L2
constexpr int kMostCopies = 36;

template <typename T>
T must(Result<T> result) {
  if (!result) {
    fmt::print(stderr, "{}\n", result.error().message);
    std::exit(1);
  }
  return std::move(*result);
}
void must(const Status& status) {
  if (!status) {
    fmt::print(stderr, "{}\n", status.error().message);
    std::exit(1);
  }
}

// A queue, memory that lives as long as a case, and the clock.
class Bench {
 public:
  Bench(cuda::Runtime& runtime, std::string filter)
      : runtime_(runtime), filter_(std::move(filter)) {
    queue_.reset(new cuda::Queue{.runtime = runtime,
                                 .stream = must(runtime.create_stream()),
                                 .scratch = must(cuda::Scratch::create(runtime, 128 << 20))});
    begin_ = must(runtime.create_event());
    end_ = must(runtime.create_event());
    measure_ceiling();
  }
  ~Bench() {
    runtime_.destroy(begin_);
    runtime_.destroy(end_);
    runtime_.destroy(queue_->stream);
  }

  [[nodiscard]] cuda::Queue& queue() { return *queue_; }
  [[nodiscard]] bool wants(const std::string& name) const {
    return name.find(filter_) != std::string::npos;
  }
  void forget_memory() { memory_.clear(); }

  // Device memory of small positive floats (and bf16s).
  template <typename T>
  [[nodiscard]] T* take(int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    memory_.push_back(must(cuda::DeviceMemory::allocate(runtime_, bytes)));
    must(runtime_.fill(memory_.back().data(), 0x3c, bytes, queue_->stream));
    return reinterpret_cast<T*>(memory_.back().data());
  }
  template <typename T>
  [[nodiscard]] T* upload(const std::vector<T>& values) {
    T* to = take<T>(static_cast<int64_t>(values.size()));
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    must(runtime_.copy(to, values.data(), bytes, queue_->stream));
    must(runtime_.synchronize(queue_->stream));
    return to;
  }

  // run(i) puts copy i of the operation on the queue.
  double seconds(int copies, const std::function<void(int)>& run) {
    must(runtime_.begin_capture(queue_->stream));
    for (int i = 0; i < copies; ++i) run(i);
    const cuda::Graph graph = must(runtime_.end_capture(queue_->stream));
    must(queue_->status);
    double best = 1e9;
    for (int round = 0; round < 8; ++round) {
      must(runtime_.record(begin_, queue_->stream));
      must(runtime_.launch(graph, queue_->stream));
      must(runtime_.record(end_, queue_->stream));
      must(runtime_.synchronize(queue_->stream));
      if (round > 0) best = std::min(best, must(runtime_.elapsed_seconds(begin_, end_)));
    }
    runtime_.destroy(graph);
    return best / copies;
  }

  void report(const std::string& name, int copies, double bytes,
              const std::function<void(int)>& run) {
    const double time = seconds(copies, run);
    fmt::print("{:44} {:9.2f} µs {:8.0f} GB/s {:5.0f} %\n", name, time * 1e6, bytes / time * 1e-9,
               100.0 * bytes / time / ceiling_);
  }

 private:
  void measure_ceiling() {
    const int64_t bytes = int64_t{2} << 30;
    const auto* data = take<std::byte>(bytes);
    auto* sink = take<float>(1);
    ceiling_ = static_cast<double>(bytes) /
               seconds(4, [&](int) { cuda::probe_read(*queue_, data, bytes, sink); });
    fmt::print("{}, {} SMs: a plain read reaches {:.0f} GB/s\n", runtime_.info().name,
               runtime_.info().num_sms, ceiling_ * 1e-9);
    forget_memory();
  }

  cuda::Runtime& runtime_;
  std::string filter_;
  std::unique_ptr<cuda::Queue> queue_;
  cuda::Event begin_, end_;
  double ceiling_ = 1.0;
  std::vector<cuda::DeviceMemory> memory_;
};

int copies_for(int64_t bytes) {
  return static_cast<int>(
      std::clamp<int64_t>(kDistinctBytes / std::max<int64_t>(bytes, 1), 1, kMostCopies));
}

void bench_rows(Bench& bench, int64_t tokens) {
  const int64_t floats = tokens * kHidden;
  const std::string name = fmt::format("add_rms_norm        {:5} tokens", tokens);
  if (bench.wants(name)) {
    const int copies = kMostCopies;
    auto *x = bench.take<float>(floats), *residual = bench.take<float>(floats),
         *out = bench.take<float>(floats), *weight = bench.take<float>(kHidden);
    bench.report(name, copies, static_cast<double>(16 * floats), [&](int) {
      add_rms_norm(bench.queue(), {.num_rows = tokens, .cols = kHidden}, x, residual, weight, out);
    });
  }
  const std::string route_name = fmt::format("route_with_shared   {:5} tokens", tokens);
  if (bench.wants(route_name)) {
    auto *logits = bench.take<float>(tokens * kExperts), *shared = bench.take<float>(tokens),
         *weights = bench.take<float>(tokens * (kTopK + 1));
    auto* experts = bench.take<int32_t>(tokens * (kTopK + 1));
    const RouterParams params{.num_tokens = tokens, .num_experts = kExperts, .top_k = kTopK};
    bench.report(route_name, kMostCopies, static_cast<double>(4 * tokens * kExperts), [&](int) {
      route_with_shared(bench.queue(), params, logits, shared, experts, weights);
    });
  }
  const std::string embed_name = fmt::format("embed               {:5} tokens", tokens);
  if (bench.wants(embed_name)) {
    PackedMatrix table;
    static_cast<PackedShape&>(table) = plain_shape(CodeKind::kBF16, 151936, kHidden);
    table.data = bench.take<std::byte>(table.bytes());
    std::vector<int32_t> ids(static_cast<size_t>(tokens));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7919 % 151936);
    const auto* device_ids = bench.upload(ids);
    auto* out = bench.take<float>(floats);
    bench.report(embed_name, 4, static_cast<double>(6 * floats), [&](int) {
      embed(bench.queue(), table, {device_ids, ids.size()}, out);
    });
  }
  bench.forget_memory();
}

// A step of sequences of equal length.
struct Step {
  int32_t sequences = 1;
  int32_t tokens = 1;  // of each
  int64_t depth = 0;   // positions before
};

StepBatch make_batch(Bench& bench, const Step& step,
                     const std::function<void(SequenceRows&)>& fill) {
  std::vector<SequenceRows> rows(static_cast<size_t>(step.sequences));
  int32_t begin = 0;
  for (SequenceRows& r : rows) {
    r = {.first_position = step.depth, .token_begin = begin, .num_tokens = step.tokens};
    begin += step.tokens;
    fill(r);
  }
  return {.sequences = bench.upload(rows),
          .num_sequences = step.sequences,
          .num_tokens = begin,
          .max_tokens = step.tokens,
          .max_positions = step.depth + step.tokens};
}

void bench_delta(Bench& bench, const Step& step) {
  const std::string name =
      fmt::format("delta_mixer         {:3} × {:4} tokens", step.sequences, step.tokens);
  if (!bench.wants(name)) return;
  const int64_t t = static_cast<int64_t>(step.sequences) * step.tokens;
  const int64_t delta_floats = kShape.value_dim() * kShape.key_head_dim;
  const int64_t state_floats = delta_floats + 3 * kShape.channels();
  const int copies = copies_for(4 * state_floats * step.sequences);
  DeltaMixer mixer{.shape = kShape,
                   .conv1d = bench.take<float>(4 * kShape.channels()),
                   .a_log = bench.take<float>(kShape.num_value_heads),
                   .dt_bias = bench.take<float>(kShape.num_value_heads),
                   .norm = bench.take<float>(kShape.value_head_dim),
                   .conv_offset = delta_floats};
  std::vector<StepBatch> batches;
  for (int i = 0; i < copies; ++i) {
    batches.push_back(make_batch(
        bench, step, [&](SequenceRows& r) { r.state = bench.take<float>(state_floats); }));
  }
  const auto *qkvz = bench.take<float>(t * kShape.qkvz_dim()),
             *ba = bench.take<float>(t * 2 * kShape.num_value_heads);
  const DeltaMixerBuffers buffers{.mixed = bench.take<float>(t * kShape.channels()),
                                  .beta = bench.take<float>(t * kShape.num_value_heads),
                                  .decay = bench.take<float>(t * kShape.num_value_heads)};
  auto* out = bench.take<float>(t * kShape.value_dim());
  const int64_t bytes =
      4 * (2 * state_floats * step.sequences + t * (kShape.qkvz_dim() + kShape.value_dim()));
  bench.report(name, copies, static_cast<double>(bytes), [&](int i) {
    delta_mixer(bench.queue(), mixer, batches[static_cast<size_t>(i)], qkvz, ba, buffers, out);
  });
  bench.forget_memory();
}

// max_positions is what a recorded step would be planned for, here 128k at least.
void bench_attention(Bench& bench, const Step& step) {
  const std::string name = fmt::format("gated_attention     {:3} × {:4} tokens at {:6}",
                                       step.sequences, step.tokens, step.depth);
  if (!bench.wants(name)) return;
  GatedAttention layer{.num_heads = 16,
                       .num_kv_heads = 2,
                       .head_dim = 256,
                       .rotary_dims = 64,
                       .q_norm = bench.take<float>(256),
                       .k_norm = bench.take<float>(256),
                       .page_tokens = kPageTokens};
  const int64_t t = static_cast<int64_t>(step.sequences) * step.tokens;
  const int64_t page_bytes = 2 * layer.num_kv_heads * kPageTokens * layer.head_dim * 2;
  const int64_t num_pages = (step.depth + step.tokens + kPageTokens - 1) / kPageTokens;
  const int64_t kv_bytes = num_pages * page_bytes * step.sequences;
  const int copies = std::min(copies_for(kv_bytes), 12);
  std::vector<StepBatch> batches;
  for (int i = 0; i < copies; ++i) {
    batches.push_back(make_batch(bench, step, [&](SequenceRows& r) {
      auto* base = bench.take<std::byte>(num_pages * page_bytes);
      std::vector<std::byte*> pages;
      for (int64_t p = 0; p < num_pages; ++p) pages.push_back(base + p * page_bytes);
      r.pages = bench.upload(pages);
    }));
    batches.back().max_positions = std::max<int64_t>(131072, step.depth + step.tokens);
  }
  const int64_t q_dim = layer.num_heads * layer.head_dim, kv_dim = layer.num_kv_heads * 256;
  const auto *query_gate = bench.take<float>(t * 2 * q_dim), *value = bench.take<float>(t * kv_dim);
  auto *key = bench.take<float>(t * kv_dim), *out = bench.take<float>(t * q_dim);
  const GatedAttentionBuffers buffers{.cos_sin = bench.take<float>(t * layer.rotary_dims),
                                      .scratch = bench.take<float>(gated_attention_scratch_floats(
                                          bench.queue(), layer, t, batches[0].max_positions))};
  const int64_t bytes = kv_bytes + 4 * t * (3 * q_dim + 2 * kv_dim);
  bench.report(name, copies, static_cast<double>(bytes), [&](int i) {
    gated_attention(bench.queue(), layer, batches[static_cast<size_t>(i)], query_gate, key, value,
                    buffers, out);
  });
  bench.forget_memory();
}

void bench_angles(Bench& bench, int32_t tokens) {
  const std::string name = fmt::format("rope_angles         {:5} tokens", tokens);
  if (!bench.wants(name)) return;
  const RopeTable table = make_rope_table({});
  RopeView view = table.view();
  view.inv_freq = bench.upload(table.inv_freq);
  const StepBatch batch =
      make_batch(bench, {.tokens = tokens, .depth = 1000}, [](SequenceRows&) {});
  auto* cos_sin = bench.take<float>(tokens * view.rotary_dims);
  bench.report(name, kMostCopies, static_cast<double>(4 * tokens * view.rotary_dims),
               [&](int) { rope_angles(bench.queue(), view, batch, cos_sin); });
  bench.forget_memory();
}

void run_all(Bench& bench) {
  for (const int32_t tokens : {1, 4, 16, 512, 4096}) {
    bench_rows(bench, tokens);
    bench_angles(bench, tokens);
  }
  for (const Step& step : std::vector<Step>{{1, 1},
                                            {1, 4},
                                            {4, 1},
                                            {16, 1},
                                            {64, 1},
                                            {1, 64},
                                            {1, 512},
                                            {1, 2048},
                                            {1, 8192},
                                            {4, 1024}}) {
    bench_delta(bench, step);
  }
  for (const int64_t depth : {0, 1024, 16384, 65536}) {
    for (const Step& step : std::vector<Step>{
             {1, 1}, {1, 4}, {4, 1}, {16, 1}, {1, 16}, {1, 512}, {1, 4096}, {1, 8192}}) {
      bench_attention(bench, {step.sequences, step.tokens, depth});
    }
  }
}

}  // namespace
}  // namespace hotset

int main(int argc, char** argv) {
  using namespace hotset;
  const int device = argc > 2 ? std::atoi(argv[2]) : 0;
  const auto runtime = must(cuda::open_runtime(device));
  Bench bench(*runtime, argc > 1 ? argv[1] : "");
  run_all(bench);
  return 0;
}
