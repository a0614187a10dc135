// SPDX-License-Identifier: Apache-2.0
// The GPU slots of routed experts and the tables by which kernels find experts: the mechanism under
// the slot cache's policy (experts/slot_cache.h).
//
// A slot takes one expert record (gate, up, down as they lie in its bank), by one copy. Copies run
// on a stream of their own, from pinned banks, beside the steps; tables change between steps only,
// on the queue's stream, so a step sees one table from its first layer to its last.
//
//   before step n:  begin_step()     copies that are done enter the table
//   in it:          note_choices()   what each layer uses → cache
//   after it:       end_step()       plan, evictions leave the table, copies start
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cuda/device_memory.h"
#include "experts/slot_cache.h"
#include "kernels/cuda/expert_exchange.h"
#include "kernels/cuda/expert_table.h"
#include "kernels/cuda/queue.h"
#include "model/config.h"
#include "model/weights.h"

namespace hotset {

// Expert records of a model, from its host views.
[[nodiscard]] int64_t expert_slot_bytes(const ModelWeights& host);  // the largest, 256-byte aligned
[[nodiscard]] int64_t num_routed_experts(const ModelWeights& host);

// What the memory plan has to know of the slots.
struct SlotNeeds {
  int64_t slot_bytes = 0;
  int64_t num_experts = 0;  // routed, of all layers
  int64_t table_bytes = 0;  // addresses and orders
  // With fewer slots than these, and not all experts in them, none can be lent to a prefill, for
  // which so many more are set apart.
  int64_t lending_slots = 0;
  int64_t staging_slots = 0;
};
[[nodiscard]] SlotNeeds slot_needs(const ModelWeights& host);

class ExpertSlots {
 public:
  // The queue, `host` (its banks pinned) and `views` (gpu_weights.h) outlive the slots. Fills them
  // before it returns, by `profile` where there is one.
  static Result<std::unique_ptr<ExpertSlots>> create(cuda::Queue& queue, const ModelWeights& host,
                                                     const ModelWeights& views, int64_t num_slots,
                                                     const RoutingProfile* profile = nullptr);
  ~ExpertSlots();
  ExpertSlots(const ExpertSlots&) = delete;
  ExpertSlots& operator=(const ExpertSlots&) = delete;

  [[nodiscard]] bool all_resident() const { return all_resident_; }
  [[nodiscard]] int64_t num_slots() const { return num_slots_; }
  [[nodiscard]] int64_t slot_bytes() const { return slot_bytes_; }
  [[nodiscard]] std::span<const std::byte> memory() const {
    return {slots_.data(), static_cast<size_t>(slots_.size())};
  }
  [[nodiscard]] int64_t copied_bytes() const { return copied_bytes_; }

  // Where a layer's experts lie now; the same addresses for all steps.
  [[nodiscard]] cuda::ExpertTable table(int64_t layer) const;
  // The same experts found through another table, [number of experts of the layer].
  [[nodiscard]] cuda::ExpertTable table_at(int64_t layer,
                                           const cuda::ExpertAddress* addresses) const;
  [[nodiscard]] bool is_resident(int64_t layer, int64_t expert) const;
  // What of a profile's choices the experts take that have a slot now.
  [[nodiscard]] double resident_share(const RoutingProfile& profile) const;
  // Addresses of an expert's three matrices in a copy of its record.
  [[nodiscard]] cuda::ExpertAddress address_in(const std::byte* record, int64_t layer,
                                               int64_t expert) const;
  // An expert's record in host memory.
  [[nodiscard]] std::span<const std::byte> record(int64_t layer, int64_t expert) const;

  // Before a step. One that streams has two areas of slots, staging(0) and staging(1), which can
  // each take `num_staged` experts, or all that any layer misses: the least valuable experts leave
  // their slots for that. They come back with the first step that streams none.
  Status begin_step(int64_t num_staged);
  [[nodiscard]] std::span<std::byte* const> staging(int area) const {
    return staging_[static_cast<size_t>(area)];
  }
  [[nodiscard]] int64_t max_missing() const;  // experts of a layer that have no slot
  // How much an expert was in use of late; for comparing missing experts of a layer.
  [[nodiscard]] double recent_use(int64_t layer, int64_t expert) const {
    if (!cache_) return 0;
    return cache_->log_score(index_in_cache(layer), static_cast<int32_t>(expert), step_);
  }
  // An expert's address in a table for a step that streams: resident, or staged in `record`.
  [[nodiscard]] std::span<const cuda::ExpertAddress> addresses_now(int64_t layer) const {
    const Layer& l = layers_[static_cast<size_t>(layer)];
    const auto count = host_.layers[static_cast<size_t>(layer)].experts.size();
    return std::span(host_addresses_).subspan(static_cast<size_t>(l.first_address), count);
  }
  // What a layer's router chose in the step under way, even if that fails later: each id once a
  // choice, routed experts only.
  void note_choices(int64_t layer, std::span<const uint16_t> ids) {
    if (cache_) cache_->use(index_in_cache(layer), step_, ids);
  }
  // After a step that went well.
  Status end_step() { return cache_ ? start_insertions() : Status{}; }
  [[nodiscard]] const SlotCacheCounts* cache_counts() const {
    return cache_ ? &cache_->counts() : nullptr;
  }

 private:
  struct Copy {
    int32_t slot = 0;
    cuda::Event done;
  };
  struct Layer {
    std::vector<cuda::ExpertGroup> groups;
    int64_t first_address = 0;
    int32_t cache_index = -1;
  };

  ExpertSlots(cuda::Queue& queue, const ModelWeights& host);
  [[nodiscard]] int32_t index_in_cache(int64_t layer) const {
    return layers_[static_cast<size_t>(layer)].cache_index;
  }
  Status allocate(int64_t num_slots);
  Status create_groups(const ModelWeights& views);
  Status fill_all();
  Status fill_by_cache(const RoutingProfile* profile);
  Status copy_record(int64_t layer, int64_t expert, int64_t slot, cuda::Stream stream);
  void commit_copies(size_t count);
  Status start_insertions();
  Status start_copies(std::span<const Insertion> planned);
  Status start_copy(const Insertion& insertion);
  Status send_changes();
  Status lend_staging(int64_t num_staged);
  Status take_back_staging();
  [[nodiscard]] std::byte* slot_data(int64_t slot) const {
    return slots_.data() + slot * slot_bytes_;
  }

  cuda::Queue& queue_;
  const ModelWeights& host_;
  std::vector<Layer> layers_;
  std::vector<int64_t> moe_layers_;
  int64_t num_slots_ = 0;
  int64_t slot_bytes_ = 0;
  bool all_resident_ = false;
  cuda::DeviceMemory slots_;
  cuda::DeviceMemory addresses_;
  cuda::DeviceMemory orders_;
  cuda::DeviceMemory changes_;  // pinned: a count, then AddressChange entries
  std::vector<cuda::ExpertAddress> host_addresses_;
  std::optional<SlotCache> cache_;
  cuda::Stream copy_stream_;
  std::vector<Copy> copies_;  // in flight, in the order of the stream
  std::vector<cuda::Event> spare_events_;
  std::vector<int32_t> lent_;       // slots that serve as staging areas
  cuda::DeviceMemory own_staging_;  // where there are too few slots to lend
  std::array<std::vector<std::byte*>, 2> staging_;
  bool table_is_stale_ = false;  // changes did not reach the device: all of it is sent anew
  int64_t step_ = 0;
  int64_t copied_bytes_ = 0;
};

}  // namespace hotset
