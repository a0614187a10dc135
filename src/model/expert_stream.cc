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
    if (area.started.handle != nullptr) runtime.destroy(area.started);
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
    HS_ASSIGN_OR_RETURN(area.started, runtime.create_event());
    HS_ASSIGN_OR_RETURN(area.filled, runtime.create_event());
    HS_ASSIGN_OR_RETURN(area.emptied, runtime.create_event());
    HS_RETURN_IF_ERROR(runtime.record(area.emptied, queue_.stream));
  }
  return {};
}

bool ExpertStream::has_area(int64_t layer) const {
  return std::any_of(areas_.begin(), areas_.end(),
                     [&](const Area& area) { return area.layer == layer; });
}

size_t ExpertStream::index_of(int64_t layer) const {
  HS_CHECK(has_area(layer), "layer {} has no staging area", layer);
  return areas_[0].layer == layer ? 0 : 1;
}

cuda::ExpertAddress* ExpertStream::list_of(int64_t layer) const {
  return reinterpret_cast<cuda::ExpertAddress*>(lists_.data()) + layer * (config_.num_experts + 1);
}

// A layer's list is written once a step, so no copy of it can still be under way.
void ExpertStream::begin(int64_t layer) {
  if (has_area(layer)) return;
  Area& area = areas_[next_area_];
  next_area_ = 1 - next_area_;
  area.layer = layer;
  area.used = 0;
  std::fill_n(list_of(layer), config_.num_experts + 1, cuda::ExpertAddress{});
  queue_.note(queue_.runtime.wait(stream_, area.emptied));
}

void ExpertStream::add(int64_t layer, int64_t expert) {
  HS_CHECK(room(layer) > 0, "layer {} stages more experts than an area holds", layer);
  const size_t index = index_of(layer);
  std::byte* to =
      slots_.staging(static_cast<int>(index))[static_cast<size_t>(areas_[index].used++)];
  const std::span<const std::byte> record = slots_.record(layer, expert);
  list_of(layer)[expert] = slots_.address_in(to, layer, expert);
  queue_.note(queue_.runtime.copy(to, record.data(), std::ssize(record), stream_));
  streamed_bytes_ += std::ssize(record);
}

void ExpertStream::finish(int64_t layer) {
  const Area& area = area_of(layer);
  queue_.note(
      queue_.runtime.copy(area.addresses.data(), list_of(layer), area.addresses.size(), stream_));
  queue_.note(queue_.runtime.record(area.filled, stream_));
}

void ExpertStream::stage(int64_t layer) {
  if (has_area(layer)) return;
  begin(layer);
  const std::span<const cuda::ExpertAddress> now = slots_.addresses_now(layer);
  for (int64_t e = 0; e < config_.num_experts; ++e) {
    if (now[static_cast<size_t>(e)].gate == nullptr) add(layer, e);
  }
  for (size_t e = 0; e < now.size(); ++e) {
    if (now[e].gate != nullptr) list_of(layer)[e] = now[e];
  }
  finish(layer);
}

bool ExpertStream::holds(int64_t layer, int64_t expert) const {
  return has_area(layer) && list_of(layer)[expert].gate != nullptr;
}

int64_t ExpertStream::room(int64_t layer) const {
  const size_t index = index_of(layer);
  return std::ssize(slots_.staging(static_cast<int>(index))) - areas_[index].used;
}

void ExpertStream::start_clock(int64_t layer) {
  timed_area_ = index_of(layer);
  queue_.note(queue_.runtime.record(areas_[timed_area_].started, stream_));
}

Result<double> ExpertStream::last_seconds() const {
  const Area& area = areas_[timed_area_];
  return queue_.runtime.elapsed_seconds(area.started, area.filled);
}

void ExpertStream::await(int64_t layer) {
  queue_.note(queue_.runtime.wait(queue_.stream, area_of(layer).filled));
}

cuda::ExpertTable ExpertStream::table(int64_t layer) const {
  return slots_.table_at(
      layer, reinterpret_cast<const cuda::ExpertAddress*>(area_of(layer).addresses.data()));
}

void ExpertStream::release(int64_t layer) {
  if (!has_area(layer)) return;
  Area& area = area_of(layer);
  queue_.note(queue_.runtime.record(area.emptied, queue_.stream));
  area.layer = -1;
}

Status ExpertStream::recover() {
  for (Area& area : areas_) area.layer = -1;
  return queue_.runtime.synchronize(stream_);
}

}  // namespace hotset
