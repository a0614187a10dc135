// SPDX-License-Identifier: Apache-2.0
#include "model/expert_stream.h"

#include <algorithm>

#include "base/check.h"

namespace hotset {
namespace {

int64_t table_bytes(const ModelConfig& config) {
  return (config.num_experts + 1) * static_cast<int64_t>(sizeof(cuda::ExpertAddress));
}

}  // namespace

int64_t ExpertStream::memory_bytes(const ModelConfig& config) {
  return 2 * table_bytes(config);
}

Result<std::unique_ptr<ExpertStream>> ExpertStream::create(cuda::Queue& queue,
                                                           const ModelConfig& config,
                                                           const ExpertSlots& slots) {
  std::unique_ptr<ExpertStream> stream(new ExpertStream(queue, config, slots));
  HS_RETURN_IF_ERROR(stream->allocate());
  return stream;
}

ExpertStream::~ExpertStream() {
  cuda::Runtime& runtime = queue_.runtime;
  if (stream_.handle != nullptr) {
    (void)runtime.synchronize(stream_);
    runtime.destroy(stream_);
  }
  for (const Area& area : areas_) {
    if (area.filled.handle != nullptr) runtime.destroy(area.filled);
    if (area.emptied.handle != nullptr) runtime.destroy(area.emptied);
  }
}

Status ExpertStream::allocate() {
  cuda::Runtime& runtime = queue_.runtime;
  HS_ASSIGN_OR_RETURN(stream_, runtime.create_stream());
  HS_ASSIGN_OR_RETURN(lists_, cuda::DeviceMemory::allocate(
                                  runtime, config_.num_hidden_layers * table_bytes(config_),
                                  cuda::MemoryKind::kPinned));
  for (Area& area : areas_) {
    HS_ASSIGN_OR_RETURN(area.addresses,
                        cuda::DeviceMemory::allocate(runtime, table_bytes(config_)));
    HS_ASSIGN_OR_RETURN(area.filled, runtime.create_event());
    HS_ASSIGN_OR_RETURN(area.emptied, runtime.create_event());
    HS_RETURN_IF_ERROR(runtime.record(area.emptied, queue_.stream));
  }
  return {};
}

const ExpertStream::Area* ExpertStream::area_of(int64_t layer) const {
  const auto* found = std::find_if(areas_.begin(), areas_.end(),
                                   [&](const Area& area) { return area.layer == layer; });
  return found == areas_.end() ? nullptr : found;
}

// A layer's list is written once a step, so no copy of it can still be under way.
void ExpertStream::stage(int64_t layer) {
  if (area_of(layer) != nullptr) return;
  cuda::Runtime& runtime = queue_.runtime;
  Area& area = areas_[next_area_];
  const std::span<std::byte* const> places = slots_.staging(static_cast<int>(next_area_));
  next_area_ = (next_area_ + 1) % areas_.size();
  area.layer = layer;
  queue_.note(runtime.wait(stream_, area.emptied));
  auto* list =
      reinterpret_cast<cuda::ExpertAddress*>(lists_.data()) + layer * (config_.num_experts + 1);
  const std::span<const cuda::ExpertAddress> now = slots_.addresses_now(layer);
  std::copy(now.begin(), now.end(), list);
  size_t used = 0;
  for (int64_t e = 0; e < config_.num_experts; ++e) {
    if (list[e].gate != nullptr) continue;
    HS_CHECK(used < places.size(), "layer {} misses more than {} experts", layer, places.size());
    std::byte* to = places[used++];
    const std::span<const std::byte> record = slots_.record(layer, e);
    list[e] = slots_.address_in(to, layer, e);
    queue_.note(runtime.copy(to, record.data(), std::ssize(record), stream_));
    streamed_bytes_ += std::ssize(record);
  }
  queue_.note(runtime.copy(area.addresses.data(), list, area.addresses.size(), stream_));
  queue_.note(runtime.record(area.filled, stream_));
}

void ExpertStream::await(int64_t layer) {
  const Area* area = area_of(layer);
  HS_CHECK(area != nullptr, "layer {} is not staged", layer);
  queue_.note(queue_.runtime.wait(queue_.stream, area->filled));
}

cuda::ExpertTable ExpertStream::table(int64_t layer) const {
  const Area* area = area_of(layer);
  HS_CHECK(area != nullptr, "layer {} is not staged", layer);
  return slots_.table_at(layer,
                         reinterpret_cast<const cuda::ExpertAddress*>(area->addresses.data()));
}

void ExpertStream::release(int64_t layer) {
  Area* area = area_of(layer);
  if (area == nullptr) return;
  queue_.note(queue_.runtime.record(area->emptied, queue_.stream));
  area->layer = -1;
}

Status ExpertStream::recover() {
  for (Area& area : areas_) area.layer = -1;
  return queue_.runtime.synchronize(stream_);
}

}  // namespace hotset
