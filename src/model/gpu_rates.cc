// SPDX-License-Identifier: Apache-2.0
// What the machine gives a loaded model at best, measured with its own memory in well under a
// second: the best of a few rounds counts.
#include <algorithm>
#include <utility>

#include "kernels/cuda/machine_probe.h"
#include "model/gpu_backend.h"

namespace hotset {
namespace {

constexpr int kRounds = 4;
constexpr int64_t kReadBytes = int64_t{2} << 30;
constexpr int64_t kCopyBytes = int64_t{256} << 20;
constexpr int32_t kProductRounds = 4096;
constexpr int kLaunches = 256;

// Seconds of what `work` puts on the queue's stream, the best of some rounds.
class Stopwatch {
 public:
  static Result<Stopwatch> create(cuda::Queue& queue) {
    Stopwatch watch(queue);
    HS_ASSIGN_OR_RETURN(watch.begin_, queue.runtime.create_event());
    HS_ASSIGN_OR_RETURN(watch.end_, queue.runtime.create_event());
    return watch;
  }
  Stopwatch(Stopwatch&& other) noexcept
      : queue_(other.queue_),
        begin_(std::exchange(other.begin_, {})),
        end_(std::exchange(other.end_, {})) {}
  Stopwatch& operator=(Stopwatch&&) = delete;
  ~Stopwatch() {
    for (const cuda::Event event : {begin_, end_}) {
      if (event.handle != nullptr) queue_.runtime.destroy(event);
    }
  }

  template <typename Work>
  Result<double> best(const Work& work) {
    double best = 1e30;
    for (int round = 0; round < kRounds; ++round) {
      queue_.note(queue_.runtime.record(begin_, queue_.stream));
      queue_.note(work(round));
      queue_.note(queue_.runtime.record(end_, queue_.stream));
      HS_RETURN_IF_ERROR(queue_.runtime.synchronize(queue_.stream));
      HS_RETURN_IF_ERROR(std::exchange(queue_.status, {}));
      HS_ASSIGN_OR_RETURN(const double seconds, queue_.runtime.elapsed_seconds(begin_, end_));
      best = std::min(best, seconds);
    }
    return best;
  }

 private:
  explicit Stopwatch(cuda::Queue& queue) : queue_(queue) {}
  cuda::Queue& queue_;
  cuda::Event begin_, end_;
};

Result<double> seconds_a_launch(cuda::Queue& queue, Stopwatch& watch, float* sink) {
  HS_RETURN_IF_ERROR(queue.runtime.begin_capture(queue.stream));
  for (int i = 0; i < kLaunches; ++i) cuda::probe_launch(queue, sink);
  const auto graph = queue.runtime.end_capture(queue.stream);
  if (!graph) return fail(graph.error());
  const auto seconds = watch.best([&](int) { return queue.runtime.launch(*graph, queue.stream); });
  queue.runtime.destroy(*graph);
  if (!seconds) return fail(seconds.error());
  return *seconds / kLaunches;
}

double rate(double amount, double seconds) {
  return seconds > 0 ? amount / seconds : 0;
}

}  // namespace

Result<MachineRates> GpuBackend::measure_rates() {
  MachineRates rates;
  float* sink = workspace_.update;
  HS_ASSIGN_OR_RETURN(Stopwatch watch, Stopwatch::create(queue_));
  const std::span<const std::byte> slots = slots_->memory();
  const int64_t to_read = std::min(std::ssize(slots), kReadBytes) / 16 * 16;
  if (to_read > 0) {
    HS_ASSIGN_OR_RETURN(const double seconds, watch.best([&](int) {
      cuda::probe_read(queue_, slots.data(), to_read, sink);
      return Status{};
    }));
    rates.gpu_bytes_per_s = rate(static_cast<double>(to_read), seconds);
  }
  const HugeBuffer& bank = *std::max_element(
      host_->banks.begin(), host_->banks.end(),
      [](const HugeBuffer& a, const HugeBuffer& b) { return a.size() < b.size(); });
  const int64_t to_copy = std::min({bank.size(), workspace_memory_.size(), kCopyBytes});
  if (to_copy > 0 && plan_.placement.num_slots < plan_.placement.num_experts) {
    HS_ASSIGN_OR_RETURN(const double seconds, watch.best([&](int round) {
      const int64_t offset = round * to_copy % (bank.size() - to_copy + 1);
      return runtime_->copy(workspace_memory_.data(), bank.data() + offset, to_copy, queue_.stream);
    }));
    rates.pcie_bytes_per_s = rate(static_cast<double>(to_copy), seconds);
    HS_RETURN_IF_ERROR(fill_dense_choices());
  }
  double operations = 0;
  HS_ASSIGN_OR_RETURN(const double products_s, watch.best([&](int) {
    operations = cuda::probe_products(queue_, kProductRounds, sink);
    return Status{};
  }));
  rates.gpu_flops = rate(operations, products_s);
  HS_ASSIGN_OR_RETURN(rates.node_s, seconds_a_launch(queue_, watch, sink));
  return rates;
}

}  // namespace hotset
