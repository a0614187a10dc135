// SPDX-License-Identifier: Apache-2.0
// A fixed set of threads that all run the same function, once per run(). Decode calls it hundreds
// of times a token, so a fork and a join must cost about a microsecond: waiting threads watch a
// counter in memory for a while (with pauses, then yields) and only then sleep in the kernel,
// unless a WorkerPool::Awake says that more is to come. Work is split statically by worker index;
// there are no queues and no allocation.
//
// Thread safety: run() is called by one thread at a time, which takes part as worker 0. The state
// shared with the workers is atomic, except job_, which is written before the counter that
// announces it and read after.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace hotset::cpu {

// The processors this process may run on, one per core first, then their SMT siblings.
[[nodiscard]] std::vector<int> allowed_cpus();

// How many of them are cores.
[[nodiscard]] int num_allowed_cores();

// For loops that watch memory: lets a sibling thread have the core's units for a moment.
inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Something that idle threads of a pool may as well do.
class IdleWork {
 public:
  virtual ~IdleWork() = default;
  // A fraction of a microsecond of it, by this worker. False: nothing is left for it.
  virtual bool piece(int worker) = 0;
};

class WorkerPool {
 public:
  // num_threads counts the caller; 0 means one per allowed processor. pin binds worker i to the
  // i-th allowed processor (the caller's own thread is left as it is; see pin_caller). spin_us is
  // how long an idle thread watches before it sleeps; with more threads than processors it hardly
  // watches.
  explicit WorkerPool(int num_threads, bool pin = true, int spin_us = 200);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  [[nodiscard]] int num_threads() const { return num_threads_; }

  // Calls fn(worker, num_workers) on every worker and returns when all are done. An exception out
  // of fn ends the process. Not to be nested.
  template <typename Fn>
  void run(Fn&& fn) {
    using Plain = std::remove_reference_t<Fn>;
    run_job({[](void* context, int worker, int num_workers) noexcept {
               (*static_cast<Plain*>(context))(worker, num_workers);
             },
             const_cast<void*>(static_cast<const void*>(&fn))});
  }

  // Inside fn only, and by every worker the same number of times: waits until all have come, and
  // makes what they wrote before visible to all after.
  void barrier() {
    barrier([] { return false; });
  }
  // The same; a worker that has to wait calls meanwhile(), in short pieces, until it returns false.
  template <typename Fn>
  void barrier(Fn&& meanwhile) {
    if (num_threads_ == 1) return;
    const uint32_t generation = barrier_generation_.load();
    if (arrive_last()) return;
    while (barrier_generation_.load(std::memory_order_acquire) == generation && meanwhile()) {
    }
    wait_while_equal(barrier_generation_, generation);
  }

  // Between two run()s, by their caller: until the next one, threads that watch for it do this
  // work. It outlives the next run(), and may change once that has returned.
  void offer(IdleWork& work) { idle_work_.store(&work, std::memory_order_release); }

  // While one lives, waiting threads go on watching instead of sleeping. For stretches in which
  // much is to come at unknown moments.
  class Awake {
   public:
    explicit Awake(WorkerPool& pool) : pool_(pool) {
      pool_.num_awake_.fetch_add(1);
      pool_.wake(pool_.run_generation_);
    }
    ~Awake() { pool_.num_awake_.fetch_sub(1); }
    Awake(const Awake&) = delete;
    Awake& operator=(const Awake&) = delete;

   private:
    WorkerPool& pool_;
  };

  // Binds the calling thread to the first allowed processor, worker 0's place. Returns false when
  // the system refuses.
  bool pin_caller() const;

 private:
  struct Job {
    void (*call)(void* context, int worker, int num_workers) noexcept = nullptr;
    void* context = nullptr;
  };
  using Counter = std::atomic<uint32_t>;

  void run_job(Job job);
  void serve(int worker);
  bool arrive_last();
  static constexpr int kNobody = -1;
  // `idle_worker` does what was offered meanwhile.
  [[nodiscard]] bool watch(const Counter& counter, uint32_t value, int idle_worker) const;
  void wait_while_equal(Counter& counter, uint32_t value, int idle_worker = kNobody);
  [[nodiscard]] bool did_idle_work(int worker) const;
  void wake(Counter& counter);

  int num_threads_ = 1;
  int spin_us_ = 0;
  bool crowded_ = false;  // more threads than processors
  std::vector<int> cpus_;
  std::vector<std::thread> threads_;
  Job job_;
  bool stopping_ = false;
  // Apart, so that announcing, arriving and sleeping do not disturb each other's cache line.
  alignas(64) Counter run_generation_{0};      // counts run() calls
  alignas(64) Counter barrier_generation_{0};  // counts passed barriers; the join is one, too
  alignas(64) Counter num_arrived_{0};
  alignas(64) Counter num_sleeping_{0};
  alignas(64) Counter num_awake_{0};  // Awake objects
  alignas(64) std::atomic<IdleWork*> idle_work_{nullptr};
};

}  // namespace hotset::cpu
