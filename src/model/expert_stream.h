// SPDX-License-Identifier: Apache-2.0
// Missing experts on their way over PCIe: while the GPU computes one layer of a prefill, those of
// the next cross into one of two staging areas, which the slots lend (expert_slots.h): all of them,
// or those that a caller picks one by one.
//
//   copies of this stream   wait(area emptied) → records → the layer's table → area filled
//   the queue's stream      wait(area filled) → kernels that read the table → area emptied
//
// One thread (the engine's) uses this. Failures are noted in the queue.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "cuda/device_memory.h"
#include "kernels/cuda/expert_table.h"
#include "kernels/cuda/queue.h"
#include "model/config.h"
#include "model/expert_slots.h"

namespace hotset {

class ExpertStream {
 public:
  // Device memory that create() takes; staging areas belong to the slots.
  [[nodiscard]] static int64_t memory_bytes(const ModelConfig& config);
  // The arguments outlive the stream.
  static Result<std::unique_ptr<ExpertStream>> create(cuda::Queue& queue, const ModelConfig& config,
                                                      const ExpertSlots& slots);
  ~ExpertStream();
  ExpertStream(const ExpertStream&) = delete;
  ExpertStream& operator=(const ExpertStream&) = delete;

  // Starts to copy all missing experts of a layer, unless that has happened. The table has the
  // resident ones too.
  void stage(int64_t layer);

  // In parts: an empty area for a layer, unless it has one; then copies; then the table, which
  // has only what was added.
  void begin(int64_t layer);
  void add(int64_t layer, int64_t expert);
  void finish(int64_t layer);
  [[nodiscard]] bool holds(int64_t layer, int64_t expert) const;  // added to the layer's area
  [[nodiscard]] int64_t room(int64_t layer) const;                // for so many more
  // From here to finish() is what last_seconds() tells, once that is over and until another layer
  // takes the area.
  void start_clock(int64_t layer);
  [[nodiscard]] Result<double> last_seconds() const;

  // What comes on the queue now finds a staged layer's experts by its table.
  void await(int64_t layer);
  [[nodiscard]] cuda::ExpertTable table(int64_t layer) const;
  // What is on the queue now is the last to read them.
  void release(int64_t layer);

  // After a failure: all copies are over and no layer is staged.
  Status recover();

  [[nodiscard]] int64_t streamed_bytes() const { return streamed_bytes_; }

 private:
  struct Area {
    cuda::DeviceMemory addresses;  // [num_experts + 1]: all experts of the layer that is staged
    cuda::Event started;
    cuda::Event filled;
    cuda::Event emptied;
    int64_t layer = -1;  // −1: free
    int64_t used = 0;    // places
  };

  ExpertStream(cuda::Queue& queue, const ModelConfig& config, const ExpertSlots& slots)
      : queue_(queue), config_(config), slots_(slots) {}
  Status allocate();
  [[nodiscard]] size_t index_of(int64_t layer) const;  // of its area, checked
  [[nodiscard]] const Area& area_of(int64_t layer) const { return areas_[index_of(layer)]; }
  [[nodiscard]] Area& area_of(int64_t layer) { return areas_[index_of(layer)]; }
  [[nodiscard]] bool has_area(int64_t layer) const;
  [[nodiscard]] cuda::ExpertAddress* list_of(int64_t layer) const;

  cuda::Queue& queue_;
  const ModelConfig& config_;
  const ExpertSlots& slots_;
  cuda::Stream stream_;
  std::array<Area, 2> areas_;
  size_t next_area_ = 0;
  size_t timed_area_ = 0;
  cuda::DeviceMemory lists_;  // pinned [layers, num_experts + 1]: what becomes an area's addresses
  int64_t streamed_bytes_ = 0;
};

}  // namespace hotset
