// SPDX-License-Identifier: Apache-2.0
// The second half of loading: read, pack, point. Workers take linears in file order, so the disk
// sees a forward scan; each packs into its final place with its own scratch.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "model/weights.h"

namespace hotset {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The state that loading workers share; every member but the mutexed error is atomic or const.
class PackJob {
 public:
  PackJob(const Checkpoint& checkpoint, const WeightPlan& plan, ModelWeights& weights)
      : checkpoint_(checkpoint), plan_(plan), weights_(weights), order_(plan.tasks.size()) {
    for (size_t i = 0; i < order_.size(); ++i) order_[i] = i;
    std::sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
      const LinearSource& x = plan.tasks[a].source;
      const LinearSource& y = plan.tasks[b].source;
      return std::tuple(x.weight->shard, x.weight->offset, x.row_begin) <
             std::tuple(y.weight->shard, y.weight->offset, y.row_begin);
    });
  }

  void work() {
    PackScratch scratch;
    while (!failed_.load()) {
      const size_t next = next_.fetch_add(1);
      if (next >= order_.size()) break;
      const size_t index = order_[next];
      if (Status status = pack(index, scratch); !status) {
        const std::lock_guard lock(error_mutex_);
        if (!failed_.exchange(true)) error_ = status.error();
      }
      bytes_done_.fetch_add(plan_.tasks[index].source.file_bytes());
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

 private:
  Status pack(size_t index, PackScratch& scratch) {
    const LinearTask& task = plan_.tasks[index];
    const HugeBuffer& arena =
        task.bank < 0 ? weights_.dense_memory : weights_.banks[static_cast<size_t>(task.bank)];
    const auto bytes = static_cast<size_t>(task.plan.shape.bytes());
    std::byte* to = arena.data() + task.offset;
    HS_RETURN_IF_ERROR(pack_linear(checkpoint_, task.source, task.plan, {to, bytes}, scratch,
                                   weights_.aux[index]));
    *task.to = packed_view(task.plan, to, weights_.aux[index]);
    return {};
  }

  const Checkpoint& checkpoint_;
  const WeightPlan& plan_;
  ModelWeights& weights_;
  std::vector<size_t> order_;
  std::atomic<size_t> next_{0};
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
  weights->aux.resize(plan.tasks.size());

  PackJob job(checkpoint, plan, *weights);
  HS_RETURN_IF_ERROR(job.run(std::max(1, options.num_threads), progress, start));
  if (weights->lm_head.data == nullptr) weights->lm_head = weights->embed_tokens;
  if (report != nullptr) {
    for (const PackAux& aux : weights->aux) report->loss.add(aux.loss);
    report->seconds = seconds_since(start);
  }
  return weights;
}

}  // namespace hotset
