// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/worker_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <fstream>
#include <set>
#include <string>

namespace hotset::cpu {
namespace {

bool pin_this_thread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  return pthread_setaffinity_np(pthread_self(), sizeof(set), &set) == 0;
}

// The lowest-numbered hardware thread of its core; `cpu` itself when nobody can say.
int core_of(int cpu) {
  std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                     "/topology/thread_siblings_list");
  int first = cpu;
  file >> first;
  return file.fail() ? cpu : first;
}

bool leads_its_core(int cpu) {
  return core_of(cpu) == cpu;
}

}  // namespace

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(static_cast<size_t>(cpu), &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  std::stable_partition(cpus.begin(), cpus.end(), leads_its_core);
  return cpus;
}

int num_allowed_cores() {
  std::set<int> cores;
  for (const int cpu : allowed_cpus()) cores.insert(core_of(cpu));
  return static_cast<int>(cores.size());
}

WorkerPool::WorkerPool(int num_threads, bool pin, int spin_us) : cpus_(allowed_cpus()) {
  const int num_cpus = static_cast<int>(cpus_.size());
  num_threads_ = num_threads > 0 ? num_threads : num_cpus;
  crowded_ = num_threads_ > num_cpus;
  spin_us_ = crowded_ ? 2 : spin_us;
  threads_.reserve(static_cast<size_t>(num_threads_ - 1));
  for (int worker = 1; worker < num_threads_; ++worker) {
    threads_.emplace_back([this, worker, pin] {
      if (pin) pin_this_thread(cpus_[static_cast<size_t>(worker) % cpus_.size()]);
      serve(worker);
    });
  }
}

WorkerPool::~WorkerPool() {
  stopping_ = true;
  run_generation_.fetch_add(1);
  wake(run_generation_);
  for (std::thread& thread : threads_) thread.join();
}

bool WorkerPool::pin_caller() const {
  return pin_this_thread(cpus_.front());
}

void WorkerPool::run_job(Job job) {
  if (num_threads_ == 1) {
    job.call(job.context, 0, 1);
    return;
  }
  job_ = job;
  idle_work_.store(nullptr, std::memory_order_relaxed);  // before the counter that all look at
  run_generation_.fetch_add(1);
  wake(run_generation_);
  job.call(job.context, 0, num_threads_);
  barrier();
}

void WorkerPool::serve(int worker) {
  for (uint32_t generation = 0;; ++generation) {
    wait_while_equal(run_generation_, generation, worker);
    if (stopping_) return;
    job_.call(job_.context, worker, num_threads_);
    barrier();
  }
}

// True for the last one, who has let the others go.
bool WorkerPool::arrive_last() {
  if (num_arrived_.fetch_add(1) + 1 != static_cast<uint32_t>(num_threads_)) return false;
  num_arrived_.store(0);
  barrier_generation_.fetch_add(1);
  wake(barrier_generation_);
  return true;
}

bool WorkerPool::did_idle_work(int worker) const {
  if (worker == kNobody) return false;
  IdleWork* work = idle_work_.load(std::memory_order_acquire);
  return work != nullptr && work->piece(worker);
}

// Watches for spin_us_ at most, or as long as the pool is kept awake. False: nothing has changed.
bool WorkerPool::watch(const Counter& counter, uint32_t value, int idle_worker) const {
  using Clock = std::chrono::steady_clock;
  Clock::time_point deadline{};
  for (;;) {
    for (int i = 0; i < 64; ++i) {
      if (counter.load(std::memory_order_acquire) != value) return true;
      if (!did_idle_work(idle_worker)) relax();
    }
    if (num_awake_.load(std::memory_order_relaxed) > 0) {
      if (crowded_) sched_yield();
      continue;
    }
    const Clock::time_point now = Clock::now();
    if (deadline == Clock::time_point{}) deadline = now + std::chrono::microseconds(spin_us_);
    if (now >= deadline) break;
  }
  for (int i = 0; i < 4; ++i) {
    sched_yield();
    if (counter.load(std::memory_order_acquire) != value) return true;
  }
  return false;
}

// Watches, then yields, then sleeps, and watches again when something woke it. Both sides are
// sequentially consistent: either the sleeper is counted before the waker looks, or the kernel
// finds the counter already changed.
void WorkerPool::wait_while_equal(Counter& counter, uint32_t value, int idle_worker) {
  while (!watch(counter, value, idle_worker)) {
    num_sleeping_.fetch_add(1);
    if (counter.load() == value && num_awake_.load() == 0) {
      syscall(SYS_futex, &counter, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
    }
    num_sleeping_.fetch_sub(1);
    if (counter.load() != value) return;
  }
}

void WorkerPool::wake(Counter& counter) {
  if (num_sleeping_.load() == 0) return;
  syscall(SYS_futex, &counter, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace hotset::cpu
