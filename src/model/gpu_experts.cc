// SPDX-License-Identifier: Apache-2.0
#include "model/gpu_experts.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/stopwatch.h"

namespace hotset {
namespace {

constexpr double kRequestTimeoutSeconds = 20;

int32_t ranks(const ModelConfig& config) {
  return static_cast<int32_t>(config.num_experts_per_tok + 1);
}

// The mapped memory of an exchange, piece by piece.
struct ExchangeLayout {
  int64_t counts, ids, places, predicted, x, rows, bytes;

  ExchangeLayout(const ModelConfig& c, int64_t max_tokens) {
    const int64_t choices = c.num_hidden_layers * max_tokens * ranks(c);
    counts = round_up(static_cast<int64_t>(sizeof(cuda::ExchangeFlags)), 256);
    ids = counts +
          round_up(c.num_hidden_layers * static_cast<int64_t>(sizeof(cuda::HandOverCounts)), 256);
    places = ids + round_up(choices * 4, 256);
    predicted = places + round_up(choices * 4, 256);
    x = predicted + round_up(choices * 4, 256);
    rows = x + round_up(max_tokens * c.hidden_size * 4, 256);
    bytes = rows + max_tokens * ranks(c) * c.hidden_size * 4;
  }
};

}  // namespace

using Runner = ExpertsRunner<cuda::Queue>;

int64_t Runner::memory_bytes(const ModelConfig& config, const ModelWeights& host,
                             int64_t max_tokens) {
  const int64_t rows = max_tokens * ranks(config) * config.hidden_size * 4;
  return rows + ExpertStream::memory_bytes(config) +
         ExpertFetch::memory_bytes(host, kMaxSharedTokens * ranks(config)) + 65536;
}

Runner::ExpertsRunner(cuda::Queue& queue, cpu::Queue& cpu_queue, const ModelConfig& config,
                      const ModelWeights& host, ExpertSlots& slots)
    : queue_(queue),
      cpu_queue_(cpu_queue),
      config_(config),
      host_(host),
      slots_(slots),
      top_k_(ranks(config)) {}

Result<std::unique_ptr<Runner>> Runner::create(cuda::Queue& queue, cpu::Queue& cpu_queue,
                                               const ModelConfig& config, const ModelWeights& host,
                                               ExpertSlots& slots, int64_t max_tokens) {
  std::unique_ptr<Runner> runner(new Runner(queue, cpu_queue, config, host, slots));
  HS_ASSIGN_OR_RETURN(runner->rows_,
                      cuda::DeviceMemory::allocate(
                          queue.runtime, max_tokens * runner->top_k_ * config.hidden_size * 4));
  if (!slots.all_resident()) {
    HS_RETURN_IF_ERROR(runner->create_exchange());
    runner->max_tokens_ = max_tokens;
    runner->ahead_.emplace(cpu_queue.pool.num_threads());
    runner->predicted_.reserve(
        static_cast<size_t>(kMaxPredictedTokens * config.num_experts_per_tok));
    HS_ASSIGN_OR_RETURN(runner->fetch_,
                        ExpertFetch::create(queue, host, slots, kMaxSharedTokens * runner->top_k_));
    HS_ASSIGN_OR_RETURN(runner->stream_, ExpertStream::create(queue, config, slots));
    HS_ASSIGN_OR_RETURN(runner->split_, SplitPrefill::create(queue, cpu_queue, config, host, slots,
                                                             *runner->stream_, max_tokens));
  }
  return runner;
}

Status Runner::create_exchange() {
  cuda::Runtime& runtime = queue_.runtime;
  const ExchangeLayout layout(config_, kMaxSharedTokens);
  HS_ASSIGN_OR_RETURN(
      mapped_, cuda::DeviceMemory::allocate(runtime, layout.bytes, cuda::MemoryKind::kPinned));
  std::fill_n(mapped_.data(), layout.bytes, std::byte{0});
  HS_ASSIGN_OR_RETURN(last_, cuda::DeviceMemory::allocate(runtime, 8));
  HS_RETURN_IF_ERROR(runtime.fill(last_.data(), 0, 8, queue_.stream));
  HS_ASSIGN_OR_RETURN(gpu_ids_,
                      cuda::DeviceMemory::allocate(runtime, kMaxSharedTokens * top_k_ * 4));
  HS_ASSIGN_OR_RETURN(
      choice_addresses_,
      cuda::DeviceMemory::allocate(
          runtime, kMaxSharedTokens * top_k_ * static_cast<int64_t>(sizeof(cuda::ExpertAddress))));
  std::byte* base = mapped_.data();
  exchange_ = {.flags = reinterpret_cast<cuda::ExchangeFlags*>(base),
               .counts = reinterpret_cast<cuda::HandOverCounts*>(base + layout.counts),
               .ids = reinterpret_cast<int32_t*>(base + layout.ids),
               .places = reinterpret_cast<cuda::ChoicePlace*>(base + layout.places),
               .predicted = reinterpret_cast<int32_t*>(base + layout.predicted),
               .x = reinterpret_cast<float*>(base + layout.x),
               .rows = reinterpret_cast<float*>(base + layout.rows),
               .last = reinterpret_cast<uint32_t*>(last_.data())};
  const auto choices = static_cast<size_t>(kMaxSharedTokens * top_k_);
  miss_weights_.assign(choices, 1.0f);
  miss_ids_.reserve(choices);
  ids_.reserve(choices);
  return {};
}

Status Runner::set_fetch_share(int64_t num_tokens, double share) {
  return fetch_ ? fetch_->set(fetch_class(num_tokens), share) : Status{};
}

cuda::ExpertExchange Runner::exchange_of(int64_t layer) const {
  cuda::ExpertExchange exchange = exchange_;
  exchange.counts += layer;
  exchange.ids += layer * kMaxSharedTokens * top_k_;
  exchange.places += layer * kMaxSharedTokens * top_k_;
  exchange.predicted += layer * kMaxSharedTokens * top_k_;
  return exchange;
}

void Runner::run(cuda::Queue& queue, int64_t layer, const LayerWeights& weights,
                 const MoeBatch& batch, float* y) {
  if (log_) log_->add(queue, batch);
  if (!weights.is_moe || slots_.all_resident()) {
    cuda::moe_experts(queue, slots_.table(layer), batch, nullptr, y);
  } else if (step_is_streamed_) {
    run_streamed(layer, batch, y);
  } else if (is_split(batch.num_tokens)) {
    split_->run(layer, batch, reinterpret_cast<float*>(rows_.data()), y);
  } else {
    run_shared(layer, batch, y);
  }
}

int64_t Runner::num_staged(int64_t num_tokens) const {
  if (is_split(num_tokens)) return split_->num_staged(num_tokens);
  return is_streamed(num_tokens) ? config_.num_experts : 0;  // lending makes more of them missing
}

void Runner::run_shared(int64_t layer, const MoeBatch& batch, float* y) {
  cuda::ExpertTable table = slots_.table(layer);
  cuda::ExpertExchange exchange = exchange_of(layer);
  if (!predicts_next(layer, batch.num_tokens)) exchange.predicted = nullptr;
  const cuda::FetchRule fetch = fetch_->rule(fetch_class(batch.num_tokens), layer);
  const cuda::GpuChoices choices{
      .ids = reinterpret_cast<int32_t*>(gpu_ids_.data()),
      .addresses = reinterpret_cast<cuda::ExpertAddress*>(choice_addresses_.data())};
  auto* rows = reinterpret_cast<float*>(rows_.data());
  cuda::hand_over(queue_, table, batch, exchange, fetch, choices);
  MoeBatch on_gpu = batch;
  on_gpu.expert_ids = choices.ids;
  table.choice_addresses = choices.addresses;
  if (fetches(batch.num_tokens)) cuda::fetch(queue_, fetch);
  cuda::moe_outputs(queue_, table, on_gpu, rows);
  mark(Stage::kExpertsWait);
  cuda::join_replies(queue_, on_gpu, rows, exchange, y);
}

void Runner::run_streamed(int64_t layer, const MoeBatch& batch, float* y) {
  cuda::moe_experts(queue_, stream_->table(layer), batch, nullptr, y);
}

// The next layer with experts is staged as soon as this one is under way.
void Runner::begin_layer(int64_t layer, int64_t num_tokens) {
  // The choices of a step that the CPU serves come to the host in any case.
  if (log_) log_->begin_layer(is_moe(layer) && !needs_service(num_tokens) ? layer : -1);
  step_is_streamed_ = is_streamed(num_tokens);
  if (!step_is_streamed_ || !is_moe(layer)) return;
  stream_->stage(layer);
  mark(Stage::kExpertsWait);
  stream_->await(layer);
  for (int64_t next = layer + 1; next < config_.num_hidden_layers; ++next) {
    if (!is_moe(next)) continue;
    stream_->stage(next);
    return;
  }
}

void Runner::end_layer(int64_t layer, int64_t num_tokens) {
  if (is_streamed(num_tokens)) stream_->release(layer);
}

Status Runner::await_request(uint32_t number) {
  const std::atomic_ref<uint32_t> request(exchange_.flags->request);
  const std::atomic_ref<uint32_t> abort(exchange_.flags->abort);
  const Clock::time_point start = Clock::now();
  for (int64_t spins = 1;; ++spins) {
    if (static_cast<int32_t>(request.load(std::memory_order_acquire) - number) >= 0) break;
    if (!is_reading_ahead_ || !ahead_->piece(0)) cpu::relax();
    if (spins % 4096 != 0) continue;
    if (abort.load() != 0 || seconds_since(start) > kRequestTimeoutSeconds) {
      abort.store(1);
      return fail("the GPU did not ask for its next layer: a kernel failed or hangs",
                  ErrorKind::kDeviceLost);
    }
  }
  counts_.wait_seconds += seconds_since(start);
  return {};
}

// Straight from the mapped input to the mapped rows.
void Runner::compute_misses(int64_t layer, int64_t num_tokens) {
  const cuda::ExpertExchange exchange = exchange_of(layer);
  miss_ids_.resize(static_cast<size_t>(num_tokens * top_k_));
  for (size_t i = 0; i < miss_ids_.size(); ++i) {
    miss_ids_[i] = exchange.places[i] == cuda::ChoicePlace::kCpu ? exchange.ids[i] : -1;
  }
  const MoeBatch batch{.x = exchange.x,
                       .num_tokens = num_tokens,
                       .hidden = config_.hidden_size,
                       .top_k = top_k_,
                       .expert_ids = miss_ids_.data(),
                       .expert_weights = miss_weights_.data()};
  moe_outputs(cpu_queue_, host_.layers[static_cast<size_t>(layer)].experts, batch, exchange.rows);
}

// Once a layer's misses are computed: what the next layer will probably miss.
void Runner::offer_reading(int64_t layer, int64_t num_tokens) {
  predicted_.clear();
  if (!predicts_next(layer, num_tokens)) return;
  const int32_t* predicted = exchange_of(layer).predicted;
  for (int32_t rank = 0; rank + 1 < top_k_; ++rank) {
    for (int64_t t = 0; t < num_tokens; ++t) {
      const int32_t id = predicted[t * top_k_ + rank];
      if (slots_.is_resident(layer + 1, id)) continue;
      if (std::find(predicted_.begin(), predicted_.end(), id) == predicted_.end()) {
        predicted_.push_back(id);
      }
    }
  }
  is_reading_ahead_ = !predicted_.empty();
  if (!is_reading_ahead_) return;
  ahead_->plan(host_.layers[static_cast<size_t>(layer + 1)].experts, predicted_);
  cpu_queue_.pool.offer(*ahead_);
}

int64_t Runner::num_foreseen() const {
  return std::count_if(miss_ids_.begin(), miss_ids_.end(), [&](int32_t id) {
    return id >= 0 && std::find(predicted_.begin(), predicted_.end(), id) != predicted_.end();
  });
}

// Once this has returned, nobody reads what was planned.
void Runner::end_reading() {
  if (is_reading_ahead_) cpu_queue_.pool.run([](int, int) {});
  is_reading_ahead_ = false;
}

// For the slot cache, while the GPU is busy with what comes next.
void Runner::note_choices(int64_t layer, int64_t num_tokens) {
  const int32_t* from = exchange_of(layer).ids;
  ids_.clear();
  for (int64_t i = 0; i < num_tokens * top_k_; ++i) {
    if (from[i] < config_.num_experts) ids_.push_back(static_cast<uint16_t>(from[i]));
  }
  counts_.choices += std::ssize(ids_);
  slots_.note_choices(layer, ids_);
}

Status Runner::serve_step(int64_t num_tokens) {
  step_is_streamed_ = false;  // a recorded step goes through no begin_layer()
  predicted_.clear();
  const cpu::WorkerPool::Awake awake(cpu_queue_.pool);
  const Status status = serve_layers(num_tokens);
  end_reading();
  return status;
}

Status Runner::serve_layers(int64_t num_tokens) {
  std::atomic_ref<uint32_t> reply(exchange_.flags->reply);
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    if (!is_moe(layer)) continue;
    HS_RETURN_IF_ERROR(await_request(++num_hand_overs_));
    const cuda::HandOverCounts count = exchange_.counts[layer];
    counts_.misses += count.cpu;
    counts_.fetched += count.fetched;
    if (count.cpu > 0) {
      const Clock::time_point start = Clock::now();
      compute_misses(layer, num_tokens);
      is_reading_ahead_ = false;  // a run has come between
      reply.store(num_hand_overs_, std::memory_order_release);
      counts_.cpu_seconds += seconds_since(start);
      counts_.foreseen += num_foreseen();
    } else {
      end_reading();
    }
    offer_reading(layer, num_tokens);
    note_choices(layer, num_tokens);
  }
  return {};
}

bool Runner::was_given_up() const {
  const std::atomic_ref<uint32_t> abort(exchange_.flags->abort);
  const std::atomic_ref<uint32_t> expired(exchange_.flags->expired);
  return abort.load() != 0 || expired.load() != 0;
}

Status Runner::recover() {
  if (slots_.all_resident()) return {};
  cuda::Runtime& runtime = queue_.runtime;
  HS_RETURN_IF_ERROR(split_->recover());
  HS_RETURN_IF_ERROR(stream_->recover());
  HS_RETURN_IF_ERROR(runtime.copy(&num_hand_overs_, last_.data(), 4, queue_.stream));
  HS_RETURN_IF_ERROR(runtime.synchronize(queue_.stream));
  exchange_.flags->abort = 0;
  exchange_.flags->expired = 0;
  return {};
}

Status Runner::listen(RoutingListener listener, int64_t max_tokens) {
  log_.reset();
  listener_ = std::move(listener);
  if (!listener_) return {};
  HS_ASSIGN_OR_RETURN(
      log_, RoutingLog::create(queue_.runtime, config_.num_hidden_layers, max_tokens, top_k_));
  return {};
}

void Runner::tell_listener(int64_t num_tokens) {
  if (!log_) return;
  const auto count = static_cast<size_t>(num_tokens * top_k_);
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    if (!is_moe(layer)) continue;
    listener_(layer,
              needs_service(num_tokens) ? std::span<const int32_t>(exchange_of(layer).ids, count)
                                        : log_->ids(layer, num_tokens),
              top_k_);
  }
}

Status Runner::end_step() {
  counts_.steps += 1;
  return slots_.end_step();
}

}  // namespace hotset
