// SPDX-License-Identifier: Apache-2.0
// The GPU's side of kernels/cuda/expert_exchange.h on a GPU that is not there: steps shared with
// the CPU go from layer to layer as they do on one, with routers that choose what this says. No
// other kernel computes anything. For FakeRuntime::play_kernels.
//
// Routers prefer a few experts for some steps, then others, so that experts change their slots.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <string_view>
#include <thread>
#include <vector>

#include "cuda/fake_runtime.h"
#include "kernels/cuda/expert_exchange.h"

namespace hotset::testing {

class FakeExchange {
 public:
  // Ranks of a token's choices, the shared expert (number num_experts) the last of them.
  FakeExchange(int32_t num_experts, int32_t ranks) : num_experts_(num_experts), ranks_(ranks) {}

  // The next wait for the CPU's answer ends as one that took too long, and the GPU pauses then.
  void expire_next_wait(std::chrono::milliseconds pause = {}) {
    pause_ = pause;
    expires_ = true;
  }
  [[nodiscard]] int64_t num_hand_overs() const { return num_hand_overs_; }
  [[nodiscard]] int64_t num_cpu() const { return num_cpu_; }          // choices
  [[nodiscard]] int64_t num_fetched() const { return num_fetched_; }  // experts copied

  [[nodiscard]] FakeRuntime::Work play(const cuda::Launch& launch) {
    const std::string_view name = launch.name;
    void** a = launch.arguments;
    if (name == "hand_over_kernel") {
      return [this, addresses = get<const cuda::ExpertAddress*>(a[0]),
              ids = const_cast<int32_t*>(get<const int32_t*>(a[1])), count = get<int>(a[3]),
              exchange = get<cuda::ExpertExchange>(a[5]), fetch = get<cuda::FetchRule>(a[6]),
              to = get<cuda::GpuChoices>(a[7])] {
        hand_over(addresses, ids, count, exchange, fetch, to);
      };
    }
    if (name == "fetch_kernel") {
      return [this, jobs = get<const cuda::FetchJob*>(a[0]), count = get<const int32_t*>(a[1])] {
        for (int32_t i = 0; i < *count; ++i) {
          std::memcpy(jobs[i].to, jobs[i].from, static_cast<size_t>(jobs[i].bytes));
          ++num_fetched_;
        }
      };
    }
    // Of all kernels that read what the CPU answered, the one that waits.
    if (name.starts_with("join_kernel")) return [this] { await_reply(); };
    if (name == "apply_address_changes_kernel") {
      return [entries = get<cuda::ExpertAddress*>(a[0]),
              changes = get<const cuda::AddressChange*>(a[1]), count = get<const int32_t*>(a[2])] {
        for (int32_t i = 0; i < *count; ++i) entries[changes[i].index] = changes[i].address;
      };
    }
    return {};
  }

 private:
  static constexpr std::chrono::seconds kPatience{20};
  static constexpr int64_t kHandOversOfAMood = 24;

  template <typename T>
  static T get(const void* argument) {
    return *static_cast<const T*>(argument);
  }

  // The i-th choice of a hand-over.
  [[nodiscard]] int32_t chosen(int64_t hand_over, int64_t i) const {
    const int64_t token = i / ranks_, rank = i % ranks_;
    if (rank == ranks_ - 1) return num_experts_;
    return static_cast<int32_t>((hand_over / kHandOversOfAMood + token + rank) % num_experts_);
  }

  void hand_over(const cuda::ExpertAddress* addresses, int32_t* ids, int count,
                 const cuda::ExpertExchange& exchange, const cuda::FetchRule& fetch,
                 const cuda::GpuChoices& to) {
    std::vector<int32_t> missed;  // in the order of their first choices
    for (int i = 0; i < count; ++i) {
      ids[i] = chosen(num_hand_overs_, i);
      if (exchange.predicted != nullptr) exchange.predicted[i] = chosen(num_hand_overs_ + 1, i);
      if (addresses[ids[i]].gate == nullptr && !std::count(missed.begin(), missed.end(), ids[i])) {
        missed.push_back(ids[i]);
      }
    }
    ++num_hand_overs_;
    const auto num_missed = static_cast<int32_t>(missed.size());
    const int32_t num_jobs =
        fetch.bank == nullptr
            ? 0
            : std::min({fetch.num_fetched[num_missed], fetch.max_fetched, num_missed});
    cuda::HandOverCounts counts;
    for (int i = 0; i < count; ++i) {
      const auto found = std::find(missed.begin(), missed.end(), ids[i]);
      const auto job = static_cast<int32_t>(found - missed.begin()) - (num_missed - num_jobs);
      exchange.ids[i] = ids[i];
      exchange.places[i] = found == missed.end() ? cuda::ChoicePlace::kResident
                           : job < 0             ? cuda::ChoicePlace::kCpu
                                                 : cuda::ChoicePlace::kFetched;
      to.ids[i] = exchange.places[i] == cuda::ChoicePlace::kCpu ? -1 : ids[i];
      to.addresses[i] = addresses[ids[i]];
      if (exchange.places[i] == cuda::ChoicePlace::kFetched) {
        const cuda::BankExpert& expert = fetch.bank[ids[i]];
        fetch.jobs[job] = {expert.record, fetch.slots + job * fetch.slot_bytes, expert.bytes};
        ++counts.fetched;
      }
      counts.cpu += exchange.places[i] == cuda::ChoicePlace::kCpu ? 1 : 0;
    }
    if (fetch.bank != nullptr) *fetch.num_jobs = num_jobs;
    num_cpu_ += counts.cpu;
    exchange.last[0] += 1;
    exchange.last[1] = counts.cpu;
    *exchange.counts = counts;
    last_ = exchange;
    std::atomic_ref(exchange.flags->request).store(exchange.last[0], std::memory_order_release);
  }

  void await_reply() {
    if (last_.last == nullptr || last_.last[1] == 0) return;
    const std::atomic_ref reply(last_.flags->reply);
    const std::atomic_ref abort(last_.flags->abort);
    const auto begin = std::chrono::steady_clock::now();
    const auto number = last_.last[0];
    while (static_cast<int32_t>(reply.load(std::memory_order_acquire) - number) < 0) {
      if (abort.load() != 0) break;
      if (std::chrono::steady_clock::now() - begin > kPatience) expires_ = true;
      if (expires_) break;
      std::this_thread::yield();
    }
    last_.last[1] = 0;  // joined; later sums of rows, in prefill, wait for nobody
    if (!expires_.exchange(false)) return;
    std::atomic_ref(last_.flags->expired).store(1);
    abort.store(1);
    std::this_thread::sleep_for(pause_);
  }

  const int32_t num_experts_;
  const int32_t ranks_;
  std::atomic<bool> expires_{false};
  std::chrono::milliseconds pause_{};
  int64_t num_hand_overs_ = 0;
  int64_t num_cpu_ = 0;
  int64_t num_fetched_ = 0;
  cuda::ExpertExchange last_;
};

}  // namespace hotset::testing
