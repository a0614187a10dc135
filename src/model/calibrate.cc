// SPDX-License-Identifier: Apache-2.0
#include "model/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/stopwatch.h"
#include "cuda/device_memory.h"
#include "kernels/cuda/machine_probe.h"
#include "kernels/cuda/queue.h"
#include "memory/huge_buffer.h"

namespace hotset {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kDeviceBytes = 512 * kMiB;
constexpr int64_t kPinnedBytes = 64 * kMiB;
constexpr int kRounds = 3;
constexpr int kCopiesBesideReads = 12;  // 15 to 60 ms of copies

// What expert products of a few tokens reach of a plain read (docs/performance.md).
constexpr double kExpertShareOfRead = 0.85;
// A kernel of a decode step beyond an empty one: its first loads and its last stores.
constexpr double kKernelLatency = 3e-6;

// Four forward streams: one alone leaves about a third of a core's bandwidth unused.
uint64_t sum_words(const uint64_t* words, int64_t count) {
  constexpr int64_t kStreams = 4, kAhead = 256;
  const int64_t each = count / kStreams / 8 * 8;
  uint64_t sum = 0;
  for (int64_t i = 0; i < each; i += 8) {
    for (int64_t s = 0; s < kStreams; ++s) {
      const uint64_t* line = words + s * each + i;
      __builtin_prefetch(line + kAhead);
      for (int64_t j = 0; j < 8; ++j) sum += line[j];
    }
  }
  return sum;
}

// RAM that every worker has touched a part of and reads again.
class HostReader {
 public:
  static Result<HostReader> create(cpu::WorkerPool& pool, int64_t bytes) {
    HostReader reader(pool);
    HS_ASSIGN_OR_RETURN(reader.memory_, HugeBuffer::allocate(bytes));
    reader.sums_.resize(static_cast<size_t>(pool.num_threads()) * 8);
    pool.run([&](int worker, int num_workers) {
      const int64_t share = bytes / num_workers / 64 * 64;
      std::memset(reader.memory_.data() + worker * share, 1, static_cast<size_t>(share));
    });
    return reader;
  }
  // Bytes that the next piece had.
  int64_t read() {
    constexpr int64_t kPieces = 8;
    const int64_t share = memory_.size() / pool_.num_threads() / 64 * 64;
    const int64_t part = share / kPieces / 64 * 64;
    const int64_t at = piece_++ % kPieces * part;
    pool_.run([&](int worker, int) {
      const std::byte* from = memory_.data() + worker * share + at;
      sums_[static_cast<size_t>(worker) * 8] +=
          sum_words(reinterpret_cast<const uint64_t*>(from), part / 8);
    });
    return part * pool_.num_threads();
  }

 private:
  explicit HostReader(cpu::WorkerPool& pool) : pool_(pool) {}
  cpu::WorkerPool& pool_;
  HugeBuffer memory_;
  std::vector<uint64_t> sums_;
  int64_t piece_ = 0;
};

// A stream, two events and the memory of one calibration.
class Probe {
 public:
  explicit Probe(cuda::Runtime& runtime) : queue_{.runtime = runtime} {}
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;
  ~Probe() {
    cuda::Runtime& runtime = queue_.runtime;
    if (queue_.stream.handle != nullptr) (void)runtime.synchronize(queue_.stream);
    for (const cuda::Event event : {begin_, end_}) {
      if (event.handle != nullptr) runtime.destroy(event);
    }
    if (queue_.stream.handle != nullptr) runtime.destroy(queue_.stream);
  }

  Status open() {
    cuda::Runtime& runtime = queue_.runtime;
    HS_ASSIGN_OR_RETURN(queue_.stream, runtime.create_stream());
    HS_ASSIGN_OR_RETURN(begin_, runtime.create_event());
    HS_ASSIGN_OR_RETURN(end_, runtime.create_event());
    HS_ASSIGN_OR_RETURN(const int64_t free, runtime.free_bytes());
    const int64_t bytes = std::min(kDeviceBytes, free / 4 / kMiB * kMiB);
    HS_ASSIGN_OR_RETURN(device_, cuda::DeviceMemory::allocate(runtime, bytes));
    return {};
  }

  Status measure_device(MachineRates& rates) {
    const int64_t bytes = device_.size() - kMiB;
    if (bytes <= 0) return {};
    auto* sink = reinterpret_cast<float*>(device_.data() + bytes);
    double best = 0;
    for (int i = 0; i < kRounds; ++i) {
      HS_ASSIGN_OR_RETURN(const double seconds,
                          timed([&] { cuda::probe_read(queue_, device_.data(), bytes, sink); }));
      if (seconds > 0) best = std::max(best, static_cast<double>(bytes) / seconds);
    }
    if (best > 0) rates.gpu_bytes_per_s = best;
    HS_ASSIGN_OR_RETURN(const double launch_s, seconds_a_launch(sink));
    if (launch_s > 0) rates.node_s = launch_s + kKernelLatency;
    return {};
  }

  Status measure_copies(HostReader& reader, MachineRates& rates) {
    HS_ASSIGN_OR_RETURN(pinned_, cuda::DeviceMemory::allocate(queue_.runtime, kPinnedBytes,
                                                              cuda::MemoryKind::kPinned));
    const int64_t bytes = std::min(device_.size(), pinned_.size());
    if (bytes == 0) return {};
    double fastest = 0;
    for (int i = 0; i < kRounds; ++i) {
      HS_ASSIGN_OR_RETURN(const double seconds, timed([&] { copy(bytes); }));
      if (seconds > 0) fastest = std::max(fastest, static_cast<double>(bytes) / seconds);
    }
    if (fastest > 0) rates.pcie_bytes_per_s = fastest;
    // The best of some rounds, as everywhere: a neighbour's burst must not decide.
    MachineRates best = rates;
    for (int i = 0; i < kRounds; ++i) {
      MachineRates now = rates;
      HS_RETURN_IF_ERROR(measure_both(reader, bytes, now));
      if (i == 0 || now.host_bytes_per_s > best.host_bytes_per_s) best = now;
    }
    rates = best;
    return {};
  }

 private:
  void copy(int64_t bytes) {
    queue_.note(queue_.runtime.copy(device_.data(), pinned_.data(), bytes, queue_.stream));
  }

  template <typename Work>
  Result<double> timed(const Work& work) {
    queue_.note(queue_.runtime.record(begin_, queue_.stream));
    work();
    queue_.note(queue_.runtime.record(end_, queue_.stream));
    HS_RETURN_IF_ERROR(queue_.runtime.synchronize(queue_.stream));
    HS_RETURN_IF_ERROR(std::exchange(queue_.status, {}));
    return queue_.runtime.elapsed_seconds(begin_, end_);
  }

  Result<double> seconds_a_launch(float* sink) {
    constexpr int kLaunches = 128;
    HS_RETURN_IF_ERROR(queue_.runtime.begin_capture(queue_.stream));
    for (int i = 0; i < kLaunches; ++i) cuda::probe_launch(queue_, sink);
    const auto graph = queue_.runtime.end_capture(queue_.stream);
    if (!graph) return fail(graph.error());
    Result<double> best = 1.0;
    for (int i = 0; i < kRounds && best; ++i) {
      auto seconds = timed([&] { queue_.note(queue_.runtime.launch(*graph, queue_.stream)); });
      best = seconds ? Result<double>(std::min(*best, *seconds)) : std::move(seconds);
    }
    queue_.runtime.destroy(*graph);
    if (!best) return best;
    return *best / kLaunches;
  }

  // The pool reads for as long as copies run.
  Status measure_both(HostReader& reader, int64_t bytes, MachineRates& rates) {
    queue_.note(queue_.runtime.record(begin_, queue_.stream));
    for (int i = 0; i < kCopiesBesideReads; ++i) copy(bytes);
    queue_.note(queue_.runtime.record(end_, queue_.stream));
    HS_RETURN_IF_ERROR(std::exchange(queue_.status, {}));
    const Clock::time_point start = Clock::now();
    int64_t bytes_read = 0;
    for (;;) {
      HS_ASSIGN_OR_RETURN(const bool is_done, queue_.runtime.is_done(end_));
      if (is_done) break;
      bytes_read += reader.read();
    }
    const double read_s = seconds_since(start);
    HS_ASSIGN_OR_RETURN(const double copy_s, queue_.runtime.elapsed_seconds(begin_, end_));
    if (copy_s <= 0 || bytes_read == 0) return {};
    const double copied = static_cast<double>(bytes) * kCopiesBesideReads / copy_s;
    const double read = static_cast<double>(bytes_read) / read_s;
    rates.pcie_overlapped_bytes_per_s = std::min(rates.pcie_bytes_per_s, copied);
    rates.cpu_overlapped_bytes_per_s = std::min(rates.cpu_bytes_per_s, read * kExpertShareOfRead);
    rates.host_bytes_per_s = read + copied;
    return {};
  }

  cuda::Queue queue_;
  cuda::Event begin_, end_;
  cuda::DeviceMemory device_;
  cuda::DeviceMemory pinned_;
};

// The best of a few passes over all of it.
void measure_host(HostReader& reader, MachineRates& rates) {
  double best = 0;
  for (int i = 0; i < kRounds; ++i) {
    const Clock::time_point start = Clock::now();
    int64_t bytes = 0;
    for (int piece = 0; piece < 8; ++piece) bytes += reader.read();
    best = std::max(best, static_cast<double>(bytes) / seconds_since(start));
  }
  rates.cpu_bytes_per_s = best * kExpertShareOfRead;
  rates.host_bytes_per_s = best;
  rates.cpu_overlapped_bytes_per_s = std::max(0.3 * best, best - rates.pcie_bytes_per_s);
  rates.cpu_overlapped_bytes_per_s =
      std::min(rates.cpu_bytes_per_s, rates.cpu_overlapped_bytes_per_s);
}

// A part that fails is skipped, unless nothing will work any more.
Status forgive(const Status& status, const char* what, std::vector<std::string>* notes) {
  if (status) return {};
  if (status.error().kind == ErrorKind::kDeviceLost) return fail(status.error());
  if (notes != nullptr) {
    notes->push_back(fmt::format("{} could not be measured ({}): a typical rate is assumed", what,
                                 status.error().message));
  }
  return {};
}

}  // namespace

MachineRates typical_rates() {
  return {.gpu_bytes_per_s = 600e9,
          .cpu_bytes_per_s = 50e9,
          .cpu_overlapped_bytes_per_s = 40e9,
          .pcie_bytes_per_s = 24e9,
          .pcie_overlapped_bytes_per_s = 22e9,
          .host_bytes_per_s = 65e9,
          .cpu_flops = 1.5e12,
          .gpu_flops = 60e12,
          .handshake_s = 5e-6,
          .fetch_s = 20e-6,  // 5 to start; the fetched experts' products begin when all are there
          .node_s = 4.5e-6};
}

Result<MachineRates> calibrate(cuda::Runtime& runtime, cpu::WorkerPool& pool,
                               std::vector<std::string>* notes, int64_t ram_bytes) {
  MachineRates rates = typical_rates();
  Result<HostReader> reader = HostReader::create(pool, ram_bytes);
  if (reader) measure_host(*reader, rates);
  HS_RETURN_IF_ERROR(forgive(reader ? Status{} : fail(reader.error()), "RAM", notes));
  Probe probe(runtime);
  const Status opened = probe.open();
  HS_RETURN_IF_ERROR(forgive(opened, "the GPU", notes));
  if (!opened) return rates;
  HS_RETURN_IF_ERROR(forgive(probe.measure_device(rates), "device memory", notes));
  if (reader) {
    HS_RETURN_IF_ERROR(forgive(probe.measure_copies(*reader, rates), "PCIe", notes));
  }
  return rates;
}

}  // namespace hotset
