// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/worker_pool.h"

namespace hotset::cpu {
namespace {

// Plain memory handed around through fork, barrier and join: a data race or a lost wake-up shows as
// a wrong sum, a hang, or a report of the thread sanitizer.
void hand_around(WorkerPool& pool, int rounds) {
  const auto n = static_cast<size_t>(pool.num_threads());
  std::vector<uint64_t> mine(n), seen(n);
  for (int round = 1; round <= rounds; ++round) {
    pool.run([&](int worker, int num_workers) {
      const auto w = static_cast<size_t>(worker);
      for (int step = 0; step < 3; ++step) {
        mine[w] += static_cast<uint64_t>(worker + 1);
        pool.barrier();
        seen[w] = 0;
        for (int i = 0; i < num_workers; ++i) seen[w] += mine[static_cast<size_t>(i)];
        pool.barrier();
      }
    });
    const uint64_t want = 3 * static_cast<uint64_t>(round) * n * (n + 1) / 2;
    for (size_t w = 0; w < n; ++w) ASSERT_EQ(seen[w], want) << "round " << round;
  }
}

TEST(WorkerPool, ForksMeetsAndJoins) {
  for (const int threads : {1, 2, 3}) {
    WorkerPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    hand_around(pool, 300);
  }
}

TEST(WorkerPool, SurvivesMoreThreadsThanProcessors) {
  WorkerPool pool(static_cast<int>(allowed_cpus().size()) + 5, false);
  hand_around(pool, 50);
}

TEST(WorkerPool, WakesThreadsThatFellAsleep) {
  WorkerPool pool(3, true, 0);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(i % 3));
    hand_around(pool, 2);
  }
}

TEST(WorkerPool, WhoWaitsMayDoSomethingMeanwhile) {
  WorkerPool pool(3);
  std::vector<int> calls(3);
  int most = 0;
  for (int round = 0; round < 50; ++round) {
    pool.run([&](int worker, int) {
      const auto w = static_cast<size_t>(worker);
      calls[w] = 0;
      if (worker == round % 3) std::this_thread::sleep_for(std::chrono::microseconds(200));
      pool.barrier([&] { return ++calls[w] < 20; });
    });
    most = std::max(most, *std::max_element(calls.begin(), calls.end()));
  }
  EXPECT_EQ(most, 20);
}

// Plain memory: what was offered may change once the next run() has returned, and not before.
class CountingWork final : public IdleWork {
 public:
  explicit CountingWork(int num_threads) : pieces_(static_cast<size_t>(num_threads)) {}
  bool piece(int worker) override {
    pieces_[static_cast<size_t>(worker)].fetch_add(wanted_);
    return wanted_ > 0;
  }
  void want(int pieces) { wanted_ = pieces; }
  [[nodiscard]] int pieces(int worker) const { return pieces_[static_cast<size_t>(worker)]; }

 private:
  int wanted_ = 0;
  std::vector<std::atomic<int>> pieces_;
};

TEST(WorkerPool, IdleThreadsDoWhatIsOfferedUntilTheNextRun) {
  WorkerPool pool(3);
  CountingWork work(3);
  const WorkerPool::Awake awake(pool);
  for (int round = 1; round <= 50; ++round) {
    pool.run([](int, int) {});
    work.want(round);
    pool.offer(work);
    const int before[] = {work.pieces(1), work.pieces(2)};
    while (work.pieces(1) == before[0] || work.pieces(2) == before[1]) std::this_thread::yield();
  }
  pool.run([](int, int) {});
  const int after[] = {work.pieces(1), work.pieces(2)};
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(work.pieces(1), after[0]) << "work goes on though a run has come between";
  EXPECT_EQ(work.pieces(2), after[1]);
  EXPECT_EQ(work.pieces(0), 0) << "the caller is never idle";
}

TEST(WorkerPool, StaysAwakeAndSleepsAgain) {
  WorkerPool pool(3, true, 0);
  for (int i = 0; i < 10; ++i) {
    {
      const WorkerPool::Awake awake(pool);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      hand_around(pool, 2);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    hand_around(pool, 1);
  }
}

TEST(WorkerPool, StartsAndStopsIdle) {
  for (int i = 0; i < 50; ++i) WorkerPool pool(4, false, i % 2 == 0 ? 0 : 100);
}

TEST(WorkerPool, AnotherThreadMayBecomeTheCaller) {
  WorkerPool pool(2);
  std::thread([&] { hand_around(pool, 10); }).join();
  hand_around(pool, 10);
}

TEST(Isa, NamesAreReadBack) {
  for (int i = 0; i < kNumIsas; ++i) {
    const Isa isa = static_cast<Isa>(i);
    EXPECT_EQ(parse_isa(isa_name(isa)), isa);
  }
  EXPECT_FALSE(parse_isa("sse9").has_value());
  EXPECT_EQ(available_isas().front(), Isa::kScalar);
  EXPECT_EQ(available_isas().back(), detect_isa());
}

}  // namespace
}  // namespace hotset::cpu
