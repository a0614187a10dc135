// SPDX-License-Identifier: Apache-2.0
// The second half of loading: read, pack, point. Workers take runs of neighbouring parts in file
// order, so that the disk sees a forward scan and two workers seldom meet in one huge page; each
// packs into the final place with its own scratch.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "base/stopwatch.h"
#include "model/weights.h"

namespace hotset {
namespace {

// What a worker takes at once.
constexpr int64_t kRunBytes = int64_t{4} << 20;

// A part of a linear; most linears have one.
struct PackStep {
  size_t task = 0;
  int64_t part = 0;
  int64_t file_bytes = 0;  // this part's share, for the progress
};

// All parts in file order, and where each run of them begins (and the end).
struct PackOrder {
  std::vector<PackStep> steps;
  std::vector<size_t> run_begins;
};

PackOrder order_steps(const std::vector<LinearTask>& tasks) {
  std::vector<size_t> by_place(tasks.size());
  for (size_t i = 0; i < by_place.size(); ++i) by_place[i] = i;
  std::sort(by_place.begin(), by_place.end(), [&](size_t a, size_t b) {
    const LinearSource& x = tasks[a].source;
    const LinearSource& y = tasks[b].source;
    return std::tuple(x.weight->shard, x.weight->offset, x.row_begin) <
           std::tuple(y.weight->shard, y.weight->offset, y.row_begin);
  });
  PackOrder order;
  int64_t run_bytes = kRunBytes;  // full: the first step begins a run
  for (const size_t task : by_place) {
    const int64_t parts = num_pack_parts(tasks[task].source, tasks[task].plan);
    const int64_t bytes = tasks[task].source.file_bytes();
    for (int64_t part = 0; part < parts; ++part) {
      if (run_bytes >= kRunBytes) {
        order.run_begins.push_back(order.steps.size());
        run_bytes = 0;
      }
      const int64_t share = bytes * (part + 1) / parts - bytes * part / parts;
      order.steps.push_back({.task = task, .part = part, .file_bytes = share});
      run_bytes += share;
    }
  }
  order.run_begins.push_back(order.steps.size());
  return order;
}

// The state that loading workers share; every member but the mutexed error is atomic, const or, by
// step, one worker's own.
class PackJob {
 public:
  PackJob(const Checkpoint& checkpoint, const WeightPlan& plan, ModelWeights& weights)
      : checkpoint_(checkpoint),
        plan_(plan),
        weights_(weights),
        order_(order_steps(plan.tasks)),
        aux_(order_.steps.size()) {}

  void work() {
    PackScratch scratch;
    while (!failed_.load()) {
      const size_t run = next_run_.fetch_add(1);
      if (run + 1 >= order_.run_begins.size()) break;
      for (size_t i = order_.run_begins[run]; i < order_.run_begins[run + 1]; ++i) {
        if (Status status = pack(i, scratch); !status) {
          const std::lock_guard lock(error_mutex_);
          if (!failed_.exchange(true)) error_ = status.error();
        }
        if (failed_.load()) break;
        bytes_done_.fetch_add(order_.steps[i].file_bytes);
      }
    }
    running_.fetch_sub(1);
  }

  // Spawns the workers and reports until they are done.
  Status run(int num_threads, const LoadProgressFn& progress, Clock::time_point start) {
    running_.store(num_threads);
    std::vector<std::thread> threads;
    for (int i = 0; i < num_threads; ++i) threads.emplace_back([this] { work(); });
    const auto report = [&] {
      if (progress) progress({bytes_done_.load(), plan_.read_bytes, seconds_since(start)});
    };
    for (int tick = 0; running_.load() > 0; ++tick) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      if (tick % 50 == 0) report();
    }
    for (std::thread& thread : threads) thread.join();
    report();
    if (failed_.load()) return fail(error_);
    return {};
  }

  // After a run that ended well: views, and what belongs to them, parts joined in order.
  void point() {
    for (size_t i = 0; i < order_.steps.size(); ++i) {
      weights_.aux[order_.steps[i].task].join(std::move(aux_[i]));
    }
    for (size_t i = 0; i < plan_.tasks.size(); ++i) {
      const LinearTask& task = plan_.tasks[i];
      *task.to = packed_view(task.plan, place_of(task).data(), weights_.aux[i]);
    }
  }

 private:
  [[nodiscard]] std::span<std::byte> place_of(const LinearTask& task) const {
    const HugeBuffer& arena =
        task.bank < 0 ? weights_.dense_memory : weights_.banks[static_cast<size_t>(task.bank)];
    return {arena.data() + task.offset, static_cast<size_t>(task.plan.shape.bytes())};
  }

  Status pack(size_t step, PackScratch& scratch) {
    const LinearTask& task = plan_.tasks[order_.steps[step].task];
    return pack_linear_part(checkpoint_, task.source, task.plan, order_.steps[step].part,
                            place_of(task), scratch, aux_[step]);
  }

  const Checkpoint& checkpoint_;
  const WeightPlan& plan_;
  ModelWeights& weights_;
  const PackOrder order_;
  std::vector<PackAux> aux_;  // of each step
  std::atomic<size_t> next_run_{0};
  std::atomic<int64_t> bytes_done_{0};
  std::atomic<int> running_{0};
  std::atomic<bool> failed_{false};
  std::mutex error_mutex_;
  Error error_;
};

}  // namespace

Result<std::unique_ptr<ModelWeights>> load_weights(const Checkpoint& checkpoint, WeightPlan plan,
                                                   const LoadOptions& options,
                                                   const LoadProgressFn& progress,
                                                   LoadReport* report) {
  const Clock::time_point start = Clock::now();
  std::unique_ptr<ModelWeights> weights = std::move(plan.weights);
  HS_ASSIGN_OR_RETURN(weights->dense_memory, HugeBuffer::allocate(plan.dense_bytes));
  for (const int64_t bytes : plan.bank_bytes) {
    HS_ASSIGN_OR_RETURN(HugeBuffer bank, HugeBuffer::allocate(bytes));
    weights->banks.push_back(std::move(bank));
  }

  PackJob job(checkpoint, plan, *weights);
  HS_RETURN_IF_ERROR(job.run(std::max(1, options.num_threads), progress, start));
  job.point();
  if (plan.lm_head_is_embedding) weights->lm_head = weights->embed_tokens;
  if (report != nullptr) {
    for (const PackAux& aux : weights->aux) report->loss.add(aux.loss);
    report->seconds = seconds_since(start);
  }
  return weights;
}

}  // namespace hotset
