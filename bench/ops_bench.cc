// SPDX-License-Identifier: Apache-2.0
// The mixers' operations at the dimensions of the 80B model: time, bytes they can't avoid moving,
// GB/s.
//   ops_bench [threads] [isa]      threads: 0 (default) is one per processor
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/queue.h"
#include "kernels/delta_rule.h"
#include "kernels/elementwise.h"
#include "kernels/rms_norm.h"
#include "kernels/router.h"

namespace hotset {
namespace {

constexpr DeltaNetShape kShape = {
    .num_key_heads = 16, .num_value_heads = 32, .key_head_dim = 128, .value_head_dim = 128};
constexpr int64_t kHeads = 16, kKvHeads = 2, kHeadDim = 256, kPageTokens = 64;

std::vector<float> random_floats(int64_t n, float low = -1.0f, float high = 1.0f) {
  std::minstd_rand engine(1);
  std::uniform_real_distribution<float> draw(low, high);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = draw(engine);
  return values;
}

// The best of some runs, for about 0.3 s.
template <typename F>
double best_seconds(const F& run) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9, total = 0.0;
  while (total < 0.3) {
    const auto start = Clock::now();
    run();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

void report(const std::string& name, double seconds, double bytes, double flops) {
  fmt::print("{:<38} {:>10.1f} us {:>9.2f} MB {:>8.1f} GB/s {:>8.1f} GFLOP/s\n", name,
             seconds * 1e6, bytes / 1e6, bytes / seconds / 1e9, flops / seconds / 1e9);
}

void bench_attention(cpu::Queue& queue, int64_t depth, int64_t tokens) {
  KvPages kv = {.type = KvType::kBF16,
                .page_tokens = kPageTokens,
                .num_kv_heads = kKvHeads,
                .head_dim = kHeadDim};
  const int64_t num_pages = (depth + kPageTokens - 1) / kPageTokens;
  std::vector<std::byte> storage(num_pages * kv.page_bytes(), std::byte{0x3c});
  std::vector<std::byte*> pages;
  for (int64_t i = 0; i < num_pages; ++i) pages.push_back(storage.data() + i * kv.page_bytes());
  kv.pages = pages.data();
  const AttentionParams params = {.num_heads = kHeads,
                                  .first_position = depth - tokens,
                                  .num_tokens = tokens,
                                  .scale = 1.0f / 16.0f};
  const auto q = random_floats(tokens * kHeads * kHeadDim);
  std::vector<float> out(q.size()), workspace(attention_workspace_floats(queue, params, kv));
  const double seconds =
      best_seconds([&] { attention(queue, params, q.data(), kv, out.data(), workspace.data()); });
  const double visible =
      static_cast<double>(tokens) * static_cast<double>(2 * depth - tokens + 1) / 2.0;
  report(fmt::format("attention, {} tokens at depth {}", tokens, depth), seconds,
         static_cast<double>(depth * kKvHeads * kHeadDim * 4),
         visible * static_cast<double>(kHeads * kHeadDim * 4));
}

void bench_delta_rule(cpu::Queue& queue, int64_t tokens, DeltaRuleMethod method,
                      const std::string& name) {
  const DeltaRuleParams params = {.shape = kShape, .num_tokens = tokens, .method = method};
  auto mixed = random_floats(tokens * kShape.channels());
  normalize_qk(queue, kShape, tokens, mixed.data());
  const auto beta = random_floats(tokens * kShape.num_value_heads, 0.0f, 1.0f);
  const auto g = random_floats(tokens * kShape.num_value_heads, -0.1f, 0.0f);
  std::vector<float> state(kShape.value_dim() * kShape.key_head_dim),
      out(tokens * kShape.value_dim()), workspace(delta_rule_workspace_floats(queue, params));
  const double seconds = best_seconds([&] {
    delta_rule(queue, params, mixed.data(), beta.data(), g.data(), state.data(), out.data(),
               workspace.data());
  });
  const double elements = static_cast<double>(state.size());
  report(fmt::format("delta rule {}, {} tokens", name, tokens), seconds, elements * 8.0,
         static_cast<double>(tokens) * elements * 7.0);
}

void bench_rows(cpu::Queue& queue, int64_t tokens) {
  auto mixed = random_floats(tokens * kShape.channels());
  const auto weight = random_floats(4 * kShape.channels());
  std::vector<float> state(3 * kShape.channels()), out(mixed.size());
  const auto row_bytes = static_cast<double>(tokens) * 4.0;
  report(fmt::format("conv1d, {} tokens", tokens), best_seconds([&] {
           conv1d(queue, {.num_tokens = tokens, .channels = kShape.channels()}, mixed.data(),
                  weight.data(), state.data(), out.data());
         }),
         row_bytes * 2.0 * static_cast<double>(kShape.channels()), 0.0);
  report(fmt::format("normalize_qk, {} tokens", tokens),
         best_seconds([&] { normalize_qk(queue, kShape, tokens, mixed.data()); }),
         row_bytes * 4.0 * static_cast<double>(kShape.key_dim()), 0.0);
  report(fmt::format("rms_norm 2048, {} tokens", tokens), best_seconds([&] {
           rms_norm(queue, {.num_rows = tokens, .cols = 2048}, mixed.data(), weight.data(),
                    out.data());
         }),
         row_bytes * 2.0 * 2048.0, 0.0);
  std::vector<int32_t> experts(tokens * 10);
  report(fmt::format("route 10 of 512, {} tokens", tokens), best_seconds([&] {
           route(queue, {.num_tokens = tokens, .num_experts = 512, .top_k = 10}, mixed.data(),
                 experts.data(), out.data());
         }),
         row_bytes * 512.0, 0.0);
}

int run(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  cpu::WorkerPool pool(threads);
  cpu::Queue queue{.pool = pool, .isa = cpu::detect_isa()};
  if (argc > 2) queue.isa = cpu::parse_isa(argv[2]).value_or(queue.isa);
  fmt::print("{} threads, {}; bytes: KV read once, state read and written once, rows in and out\n",
             pool.num_threads(), cpu::isa_name(queue.isa));
  for (const int64_t depth : {4096, 65536}) bench_attention(queue, depth, 1);
  bench_attention(queue, 4096, 8);
  bench_attention(queue, 512, 512);
  bench_attention(queue, 4096, 512);
  bench_delta_rule(queue, 1, DeltaRuleMethod::kRecurrent, "recurrent");
  bench_delta_rule(queue, 512, DeltaRuleMethod::kRecurrent, "recurrent");
  bench_delta_rule(queue, 512, DeltaRuleMethod::kChunked, "chunked");
  for (const int64_t tokens : {1, 512}) bench_rows(queue, tokens);
  return 0;
}

}  // namespace
}  // namespace hotset

int main(int argc, char** argv) {
  return hotset::run(argc, argv);
}
