// SPDX-License-Identifier: Apache-2.0
#include "model/expert_fetch.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/checked_math.h"

namespace hotset {
namespace {

int64_t num_experts(const ModelWeights& host) {
  int64_t count = 0;
  for (const LayerWeights& layer : host.layers) count += std::ssize(layer.experts);
  return count;
}

}  // namespace

int64_t ExpertFetch::memory_bytes(const ModelWeights& host, int64_t max_choices) {
  return num_experts(host) * static_cast<int64_t>(sizeof(cuda::BankExpert)) +
         kMaxFetched * (expert_slot_bytes(host) + static_cast<int64_t>(sizeof(cuda::FetchJob))) +
         (kNumFetchClasses * (max_choices + 1) + 1) * 4;
}

Result<std::unique_ptr<ExpertFetch>> ExpertFetch::create(cuda::Queue& queue,
                                                         const ModelWeights& host,
                                                         const ExpertSlots& slots,
                                                         int64_t max_choices) {
  std::unique_ptr<ExpertFetch> fetch(new ExpertFetch(queue, max_choices));
  fetch->slot_bytes_ = slots.slot_bytes();
  const auto allocate = [&](cuda::DeviceMemory& memory, int64_t bytes) -> Status {
    HS_ASSIGN_OR_RETURN(memory, cuda::DeviceMemory::allocate(queue.runtime, bytes));
    return queue.runtime.fill(memory.data(), 0, bytes, queue.stream);
  };
  HS_RETURN_IF_ERROR(allocate(fetch->slots_, kMaxFetched * fetch->slot_bytes_));
  HS_RETURN_IF_ERROR(
      allocate(fetch->jobs_, kMaxFetched * static_cast<int64_t>(sizeof(cuda::FetchJob))));
  HS_RETURN_IF_ERROR(allocate(fetch->counts_, (kNumFetchClasses * (max_choices + 1) + 1) * 4));
  for (Table& table : fetch->tables_) table.counts.resize(static_cast<size_t>(max_choices + 1));
  HS_RETURN_IF_ERROR(fetch->send_bank(host, slots));
  return fetch;
}

// Shared experts have no entry that is read: they are never missed.
Status ExpertFetch::send_bank(const ModelWeights& host, const ExpertSlots& slots) {
  std::vector<cuda::BankExpert> bank;
  for (size_t layer = 0; layer < host.layers.size(); ++layer) {
    first_expert_.push_back(std::ssize(bank));
    const LayerWeights& weights = host.layers[layer];
    const int64_t routed = weights.is_moe ? std::ssize(weights.experts) - 1 : 0;
    for (int64_t e = 0; e < routed; ++e) {
      const auto record = slots.record(static_cast<int64_t>(layer), e);
      HS_CHECK(reinterpret_cast<uintptr_t>(record.data()) % 16 == 0,
               "layer {}'s expert {} lies at {}", layer, e,
               static_cast<const void*>(record.data()));
      bank.push_back({record.data(), round_up(std::ssize(record), 16),
                      slots.address_in(record.data(), static_cast<int64_t>(layer), e)});
    }
  }
  const int64_t bytes = std::ssize(bank) * static_cast<int64_t>(sizeof(cuda::BankExpert));
  HS_ASSIGN_OR_RETURN(bank_, cuda::DeviceMemory::allocate(queue_.runtime, bytes));
  HS_RETURN_IF_ERROR(queue_.runtime.copy(bank_.data(), bank.data(), bytes, queue_.stream));
  return queue_.runtime.synchronize(queue_.stream);  // `bank` ends here
}

int32_t* ExpertFetch::device_counts(int fetch_class) const {
  return reinterpret_cast<int32_t*>(counts_.data()) + fetch_class * (max_choices_ + 1);
}

// The image stays as it is until the next call, so the copy needs no waiting.
Status ExpertFetch::set(int fetch_class, double share) {
  Table& table = tables_[static_cast<size_t>(fetch_class)];
  if (table.share == share) return {};
  table.share = -1;
  for (size_t missed = 0; missed < table.counts.size(); ++missed) {
    const int64_t wanted = std::lround(share * static_cast<double>(missed));
    table.counts[missed] = static_cast<int32_t>(std::min<int64_t>(wanted, kMaxFetched));
  }
  HS_RETURN_IF_ERROR(queue_.runtime.copy(device_counts(fetch_class), table.counts.data(),
                                         std::ssize(table.counts) * 4, queue_.stream));
  table.share = share;
  return {};
}

bool ExpertFetch::is_used(int fetch_class) const {
  return tables_[static_cast<size_t>(fetch_class)].share > 0;
}

cuda::FetchRule ExpertFetch::rule(int fetch_class, int64_t layer) const {
  if (!is_used(fetch_class)) return {};
  return {.bank = reinterpret_cast<const cuda::BankExpert*>(bank_.data()) +
                  first_expert_[static_cast<size_t>(layer)],
          .num_fetched = device_counts(fetch_class),
          .slots = slots_.data(),
          .slot_bytes = slot_bytes_,
          .max_fetched = kMaxFetched,
          .jobs = reinterpret_cast<cuda::FetchJob*>(jobs_.data()),
          .num_jobs = device_counts(kNumFetchClasses)};
}

}  // namespace hotset
