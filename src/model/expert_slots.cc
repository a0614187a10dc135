// SPDX-License-Identifier: Apache-2.0
#include "model/expert_slots.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/checked_math.h"
#include "experts/routing_profile.h"

namespace hotset {
namespace {

constexpr int64_t kMaxChanges = 4096;  // of the table, between two steps
constexpr int64_t kChangesOffset = 256;

std::span<const std::byte> record_of(const ExpertView& expert) {
  const std::byte* begin = std::min({expert.gate.data, expert.up.data, expert.down.data});
  const std::byte* end =
      std::max({expert.gate.data + expert.gate.bytes(), expert.up.data + expert.up.bytes(),
                expert.down.data + expert.down.bytes()});
  return {begin, end};
}

bool same_encoding(const PackedMatrix& a, const PackedMatrix& b) {
  const bool same_codebook =
      a.codebook == b.codebook || (a.codebook != nullptr && b.codebook != nullptr &&
                                   std::equal(a.codebook, a.codebook + 16, b.codebook));
  return a.code == b.code && a.scale == b.scale && a.has_zeros == b.has_zeros && a.zero == b.zero &&
         a.rows == b.rows && a.cols == b.cols && a.group == b.group &&
         (a.input_order == nullptr) == (b.input_order == nullptr) && same_codebook;
}

bool same_encoding(const ExpertView& a, const ExpertView& b) {
  return same_encoding(a.gate, b.gate) && same_encoding(a.up, b.up) &&
         same_encoding(a.down, b.down);
}

bool has_orders(const ExpertView& expert) {
  return expert.gate.input_order != nullptr || expert.up.input_order != nullptr ||
         expert.down.input_order != nullptr;
}

int64_t num_addresses(const ModelWeights& host) {
  int64_t count = 0;
  for (const LayerWeights& layer : host.layers) count += std::ssize(layer.experts);
  return count;
}

// Experts of the largest layer.
int64_t experts_of_a_layer(const ModelWeights& host) {
  int64_t count = 0;
  for (const LayerWeights& layer : host.layers) {
    if (layer.is_moe) count = std::max(count, std::ssize(layer.experts) - 1);
  }
  return count;
}

// Two areas of a layer's experts can be lent only where that many slots are and some are left.
bool needs_own_staging(const ModelWeights& host, int64_t num_slots) {
  const SlotNeeds needs = slot_needs(host);
  return num_slots < needs.num_experts && num_slots < needs.lending_slots;
}

}  // namespace

int64_t expert_slot_bytes(const ModelWeights& host) {
  int64_t bytes = 0;
  for (const LayerWeights& layer : host.layers) {
    for (size_t e = 0; layer.is_moe && e + 1 < layer.experts.size(); ++e) {
      bytes = std::max(bytes, std::ssize(record_of(layer.experts[e])));
    }
  }
  return round_up(bytes, 256);
}

int64_t num_routed_experts(const ModelWeights& host) {
  int64_t count = 0;
  for (const LayerWeights& layer : host.layers) {
    if (layer.is_moe) count += std::ssize(layer.experts) - 1;
  }
  return count;
}

SlotNeeds slot_needs(const ModelWeights& host) {
  const int64_t per_address =
      static_cast<int64_t>(sizeof(cuda::ExpertAddress) + 3 * sizeof(const int32_t*));
  const int64_t area = experts_of_a_layer(host);
  return {.slot_bytes = expert_slot_bytes(host),
          .num_experts = num_routed_experts(host),
          .table_bytes = num_addresses(host) * per_address + 1024,
          .lending_slots = 3 * area,
          .staging_slots = 2 * area};
}

ExpertSlots::ExpertSlots(cuda::Queue& queue, const ModelWeights& host)
    : queue_(queue), host_(host), slot_bytes_(expert_slot_bytes(host)) {}

ExpertSlots::~ExpertSlots() {
  if (copy_stream_.handle != nullptr) {
    (void)queue_.runtime.synchronize(copy_stream_);
    queue_.runtime.destroy(copy_stream_);
  }
  for (const Copy& copy : copies_) queue_.runtime.destroy(copy.done);
  for (const cuda::Event event : spare_events_) queue_.runtime.destroy(event);
}

Result<std::unique_ptr<ExpertSlots>> ExpertSlots::create(cuda::Queue& queue,
                                                         const ModelWeights& host,
                                                         const ModelWeights& views,
                                                         int64_t num_slots,
                                                         const RoutingProfile* profile) {
  std::unique_ptr<ExpertSlots> slots(new ExpertSlots(queue, host));
  HS_RETURN_IF_ERROR(slots->allocate(num_slots));
  HS_RETURN_IF_ERROR(slots->create_groups(views));
  HS_RETURN_IF_ERROR(slots->all_resident_ ? slots->fill_all() : slots->fill_by_cache(profile));
  HS_RETURN_IF_ERROR(queue.runtime.synchronize(queue.stream));
  return slots;
}

Status ExpertSlots::allocate(int64_t num_slots) {
  cuda::Runtime& runtime = queue_.runtime;
  const int64_t routed = num_routed_experts(host_);
  all_resident_ = num_slots >= routed;
  num_slots_ = std::min(num_slots, routed);
  HS_ASSIGN_OR_RETURN(slots_, cuda::DeviceMemory::allocate(runtime, num_slots_ * slot_bytes_));
  const int64_t count = num_addresses(host_);
  host_addresses_.resize(static_cast<size_t>(count));
  HS_ASSIGN_OR_RETURN(addresses_,
                      cuda::DeviceMemory::allocate(
                          runtime, count * static_cast<int64_t>(sizeof(cuda::ExpertAddress))));
  HS_ASSIGN_OR_RETURN(orders_,
                      cuda::DeviceMemory::allocate(
                          runtime, count * 3 * static_cast<int64_t>(sizeof(const int32_t*))));
  HS_ASSIGN_OR_RETURN(
      changes_,
      cuda::DeviceMemory::allocate(
          runtime, kChangesOffset + kMaxChanges * static_cast<int64_t>(sizeof(cuda::AddressChange)),
          cuda::MemoryKind::kPinned));
  HS_ASSIGN_OR_RETURN(copy_stream_, runtime.create_stream());
  if (!needs_own_staging(host_, num_slots_)) return {};
  const int64_t area = experts_of_a_layer(host_);
  HS_ASSIGN_OR_RETURN(own_staging_, cuda::DeviceMemory::allocate(runtime, 2 * area * slot_bytes_));
  for (int64_t i = 0; i < 2 * area; ++i) {
    staging_[static_cast<size_t>(i % 2)].push_back(own_staging_.data() + i * slot_bytes_);
  }
  return {};
}

// Runs of neighbouring experts with one encoding become groups; the shared expert stands at its
// device address from the start.
Status ExpertSlots::create_groups(const ModelWeights& views) {
  std::vector<const int32_t*> orders;
  int32_t next_in_cache = 0;
  int64_t first_address = 0;
  for (size_t i = 0; i < views.layers.size(); ++i) {
    const std::vector<ExpertView>& experts = views.layers[i].experts;
    const std::vector<ExpertView>& host_experts = host_.layers[i].experts;
    Layer layer{.groups = {}, .first_address = first_address};
    if (views.layers[i].is_moe) {
      layer.cache_index = next_in_cache++;
      moe_layers_.push_back(static_cast<int64_t>(i));
    }
    for (size_t e = 0; e < experts.size(); ++e) {
      const bool last = e + 1 == experts.size();
      if (e == 0 || last || !same_encoding(host_experts[e], host_experts[e - 1])) {
        cuda::ExpertGroup group{.encoding = experts[e], .first_expert = static_cast<int32_t>(e)};
        if (has_orders(experts[e])) {
          group.orders = reinterpret_cast<const int32_t* const*>(orders_.data()) +
                         3 * (first_address + static_cast<int64_t>(e));
        }
        layer.groups.push_back(group);
      }
      layer.groups.back().num_experts += 1;
      const ExpertView& view = experts[e];
      orders.insert(orders.end(),
                    {view.gate.input_order, view.up.input_order, view.down.input_order});
    }
    const ExpertView& shared = experts.back();
    host_addresses_[static_cast<size_t>(first_address + std::ssize(experts) - 1)] = {
        shared.gate.data, shared.up.data, shared.down.data};
    first_address += std::ssize(experts);
    layers_.push_back(std::move(layer));
  }
  HS_RETURN_IF_ERROR(
      queue_.runtime.copy(orders_.data(), orders.data(), orders_.size(), queue_.stream));
  return queue_.runtime.synchronize(queue_.stream);  // `orders` ends here
}

Status ExpertSlots::copy_record(int64_t layer, int64_t expert, int64_t slot, cuda::Stream stream) {
  const std::span<const std::byte> from = record(layer, expert);
  copied_bytes_ += std::ssize(from);
  return queue_.runtime.copy(slot_data(slot), from.data(), std::ssize(from), stream);
}

Status ExpertSlots::fill_all() {
  int64_t slot = 0;
  for (const int64_t layer : moe_layers_) {
    const Layer& l = layers_[static_cast<size_t>(layer)];
    const int64_t routed = std::ssize(host_.layers[static_cast<size_t>(layer)].experts) - 1;
    for (int64_t e = 0; e < routed; ++e, ++slot) {
      HS_RETURN_IF_ERROR(copy_record(layer, e, slot, queue_.stream));
      host_addresses_[static_cast<size_t>(l.first_address + e)] =
          address_in(slot_data(slot), layer, e);
    }
  }
  return queue_.runtime.copy(addresses_.data(), host_addresses_.data(), addresses_.size(),
                             queue_.stream);
}

Status ExpertSlots::fill_by_cache(const RoutingProfile* profile) {
  if (num_slots_ == 0) {  // the shared experts' addresses are all there is
    return queue_.runtime.copy(addresses_.data(), host_addresses_.data(), addresses_.size(),
                               queue_.stream);
  }
  const int64_t experts = std::ssize(host_.layers[static_cast<size_t>(moe_layers_[0])].experts) - 1;
  HS_ASSIGN_OR_RETURN(SlotCache cache,
                      SlotCache::create(live_cache_options(
                          static_cast<int32_t>(moe_layers_.size()), static_cast<int32_t>(experts),
                          static_cast<int32_t>(num_slots_), slot_bytes_)));
  cache_.emplace(std::move(cache));
  if (profile != nullptr) HS_RETURN_IF_ERROR(cache_->seed(*profile));
  for (const Insertion& insertion : cache_->plan_fill(step_)) {
    const int64_t layer = moe_layers_[static_cast<size_t>(insertion.layer)];
    HS_RETURN_IF_ERROR(copy_record(layer, insertion.expert, insertion.slot, queue_.stream));
    cache_->commit_insertion(insertion.slot);
  }
  for (const TableChange& change : cache_->take_changes()) {
    const int64_t layer = moe_layers_[static_cast<size_t>(change.layer)];
    const Layer& l = layers_[static_cast<size_t>(layer)];
    host_addresses_[static_cast<size_t>(l.first_address + change.expert)] =
        address_in(slot_data(change.slot), layer, change.expert);
  }
  return queue_.runtime.copy(addresses_.data(), host_addresses_.data(), addresses_.size(),
                             queue_.stream);
}

cuda::ExpertTable ExpertSlots::table(int64_t layer) const {
  const Layer& l = layers_[static_cast<size_t>(layer)];
  const auto* addresses = reinterpret_cast<const cuda::ExpertAddress*>(addresses_.data());
  return table_at(layer, addresses + l.first_address);
}

cuda::ExpertTable ExpertSlots::table_at(int64_t layer, const cuda::ExpertAddress* addresses) const {
  const Layer& l = layers_[static_cast<size_t>(layer)];
  return {.addresses = addresses,
          .groups = l.groups.data(),
          .num_groups = static_cast<int32_t>(l.groups.size())};
}

bool ExpertSlots::is_resident(int64_t layer, int64_t expert) const {
  const Layer& l = layers_[static_cast<size_t>(layer)];
  return host_addresses_[static_cast<size_t>(l.first_address + expert)].gate != nullptr;
}

double ExpertSlots::resident_share(const RoutingProfile& profile) const {
  int64_t resident = 0, all = 0;
  for (const int64_t layer : moe_layers_) {
    for (int32_t e = 0; e < profile.num_experts(); ++e) {
      const int64_t count = profile.count(index_in_cache(layer), e);
      all += count;
      resident += is_resident(layer, e) ? count : 0;
    }
  }
  return all > 0 ? static_cast<double>(resident) / static_cast<double>(all) : 0;
}

std::span<const std::byte> ExpertSlots::record(int64_t layer, int64_t expert) const {
  return record_of(host_.layers[static_cast<size_t>(layer)].experts[static_cast<size_t>(expert)]);
}

cuda::ExpertAddress ExpertSlots::address_in(const std::byte* record, int64_t layer,
                                            int64_t expert) const {
  const ExpertView& view =
      host_.layers[static_cast<size_t>(layer)].experts[static_cast<size_t>(expert)];
  const std::byte* begin = record_of(view).data();
  return {record + (view.gate.data - begin), record + (view.up.data - begin),
          record + (view.down.data - begin)};
}

Status ExpertSlots::begin_step(int64_t num_staged) {
  if (!cache_) return {};
  size_t done = 0;
  Result<bool> is_done = true;
  while (done < copies_.size()) {
    is_done = queue_.runtime.is_done(copies_[done].done);
    if (!is_done || !*is_done) break;
    ++done;
  }
  commit_copies(done);
  if (!is_done) return fail(is_done.error());
  ++step_;
  if (num_staged > 0) {
    HS_RETURN_IF_ERROR(lend_staging(num_staged));
  } else {
    HS_RETURN_IF_ERROR(take_back_staging());
  }
  return send_changes();
}

// The first `count` copies are over.
void ExpertSlots::commit_copies(size_t count) {
  for (size_t i = 0; i < count; ++i) {
    cache_->commit_insertion(copies_[i].slot);
    spare_events_.push_back(copies_[i].done);
  }
  copies_.erase(copies_.begin(), copies_.begin() + static_cast<std::ptrdiff_t>(count));
}

int64_t ExpertSlots::max_missing() const {
  if (!cache_) return all_resident_ ? 0 : experts_of_a_layer(host_);
  int64_t most = 0;
  for (const int64_t layer : moe_layers_) {
    const int64_t routed = std::ssize(host_.layers[static_cast<size_t>(layer)].experts) - 1;
    most = std::max(most, routed - cache_->num_resident(index_in_cache(layer)));
  }
  return most;
}

// Lending takes experts out of the table, which makes more of them missing: until it is enough.
Status ExpertSlots::lend_staging(int64_t num_staged) {
  if (own_staging_.size() > 0) return {};
  for (;;) {
    const int64_t wanted = 2 * std::min(num_staged, max_missing()) - std::ssize(lent_);
    if (wanted <= 0) return {};
    std::vector<int32_t> slots(static_cast<size_t>(wanted));
    if (!cache_->lend(slots)) {
      if (copies_.empty()) {
        return fail(fmt::format("{} expert slots can't be lent to a prefill", wanted),
                    ErrorKind::kInternal);
      }
      // Slots that are being filled can't be lent before they are.
      HS_RETURN_IF_ERROR(queue_.runtime.synchronize(copy_stream_));
      commit_copies(copies_.size());
      continue;
    }
    for (const int32_t slot : slots) {
      staging_[lent_.size() % 2].push_back(slot_data(slot));
      lent_.push_back(slot);
    }
  }
}

Status ExpertSlots::take_back_staging() {
  if (lent_.empty()) return {};
  cache_->give_back(lent_);
  lent_.clear();
  for (std::vector<std::byte*>& area : staging_) area.clear();
  return start_copies(cache_->plan_fill(step_));
}

// The step that read the table last is over, and the next one comes after these changes on the
// stream: an evicted slot may be written at once.
Status ExpertSlots::start_insertions() {
  return start_copies(cache_->plan_insertions(step_));
}

// After one that fails the others are called off.
Status ExpertSlots::start_copies(std::span<const Insertion> planned) {
  Status status;
  for (const Insertion& insertion : planned) {
    if (status) {
      status = start_copy(insertion);
    } else {
      cache_->abort_insertion(insertion.slot);
    }
  }
  return status;
}

Status ExpertSlots::start_copy(const Insertion& insertion) {
  const int64_t layer = moe_layers_[static_cast<size_t>(insertion.layer)];
  Status status = copy_record(layer, insertion.expert, insertion.slot, copy_stream_);
  cuda::Event event;
  if (status && spare_events_.empty()) {
    auto created = queue_.runtime.create_event();
    if (created) event = *created;
    if (!created) status = fail(created.error());
  } else if (status) {
    event = spare_events_.back();
    spare_events_.pop_back();
  }
  if (status) {
    status = queue_.runtime.record(event, copy_stream_);
    if (!status) spare_events_.push_back(event);
  }
  if (!status) {
    cache_->abort_insertion(insertion.slot);
    return status;
  }
  copies_.push_back({insertion.slot, event});
  return {};
}

Status ExpertSlots::send_changes() {
  auto* count = reinterpret_cast<int32_t*>(changes_.data());
  auto* list = reinterpret_cast<cuda::AddressChange*>(changes_.data() + kChangesOffset);
  *count = 0;
  for (const TableChange& change : cache_->take_changes()) {
    HS_CHECK(*count < kMaxChanges, "{} changes of the expert table in a step", *count);
    const int64_t layer = moe_layers_[static_cast<size_t>(change.layer)];
    const int64_t index = layers_[static_cast<size_t>(layer)].first_address + change.expert;
    cuda::ExpertAddress& address = host_addresses_[static_cast<size_t>(index)];
    address = change.slot == kNoSlot ? cuda::ExpertAddress{}
                                     : address_in(slot_data(change.slot), layer, change.expert);
    list[(*count)++] = {index, address};
  }
  if (table_is_stale_) {
    HS_RETURN_IF_ERROR(queue_.runtime.copy(addresses_.data(), host_addresses_.data(),
                                           addresses_.size(), queue_.stream));
    HS_RETURN_IF_ERROR(queue_.runtime.synchronize(queue_.stream));
    table_is_stale_ = false;
    return {};
  }
  if (*count == 0) return {};
  cuda::apply_address_changes(queue_, reinterpret_cast<cuda::ExpertAddress*>(addresses_.data()),
                              list, count, *count);
  table_is_stale_ = !queue_.status.has_value();
  return queue_.status;
}

}  // namespace hotset
