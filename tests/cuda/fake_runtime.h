// SPDX-License-Identifier: Apache-2.0
// A GPU for machines without one: memory is host memory, copies happen at once, kernels do nothing
// unless a test plays them, and any call can be made to fail. It counts what is alive, so that a
// test sees leaks.
//
// A graph keeps what was put on its stream while it was captured. Launched, it runs in a thread of
// its own, as on a GPU: the caller can answer it meanwhile. What comes on that stream afterwards
// waits for its end.
#pragma once

#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/runtime.h"

namespace hotset::testing {

class FakeRuntime final : public cuda::Runtime {
 public:
  using Work = std::function<void()>;

  // *num_leaked: allocations, pins, streams, events and graphs that are alive when the runtime
  // ends.
  explicit FakeRuntime(int64_t total_bytes, int64_t* num_leaked = nullptr)
      : free_bytes_(total_bytes), num_leaked_(num_leaked) {
    info_ = {.name = "a fake GPU",
             .compute_major = 8,
             .compute_minor = 9,
             .num_sms = 8,
             .total_bytes = total_bytes,
             .l2_bytes = 1 << 20,
             .max_shared_bytes = 100 << 10};
  }

  ~FakeRuntime() override {
    drain();
    if (num_leaked_ != nullptr) *num_leaked_ = num_alive_;
  }
  FakeRuntime(const FakeRuntime&) = delete;
  FakeRuntime& operator=(const FakeRuntime&) = delete;

  // The n-th call from now that can fail does, counted from 0; −1: none.
  void fail_call(int64_t n, ErrorKind kind = ErrorKind::kInternal) {
    fail_in_ = n;
    failure_ = kind;
    num_calls_ = 0;
    stays_ = false;
  }
  // As the n-th call, and every call after it: an error that stays.
  void fail_from_call(int64_t n, ErrorKind kind) {
    fail_call(n, kind);
    stays_ = true;
  }
  // The device is lost from the first call on at which this is so.
  void lose_when(std::function<bool()> is_lost) { is_lost_ = std::move(is_lost); }
  // The next call of this name fails.
  void fail_next(std::string name) { fail_name_ = std::move(name); }
  // Memory that exists already is never pinned.
  void refuse_to_pin() { pins_ = false; }
  // What a launch does when its stream comes to it; an empty Work: nothing. Asked while the
  // launch's arguments are alive.
  void play_kernels(std::function<Work(const cuda::Launch&)> play) { play_ = std::move(play); }
  [[nodiscard]] int64_t num_allocations() const { return num_allocations_; }
  [[nodiscard]] int64_t num_graphs_made() const { return num_graphs_made_; }
  [[nodiscard]] int64_t num_calls() const { return num_calls_; }
  [[nodiscard]] const std::string& failed_call() const { return failed_call_; }

  [[nodiscard]] const cuda::DeviceInfo& info() const override { return info_; }
  Result<int64_t> free_bytes() override {
    HS_RETURN_IF_ERROR(call("cudaMemGetInfo"));
    return free_bytes_;
  }
  Result<void*> allocate(int64_t bytes) override {
    HS_RETURN_IF_ERROR(call("cudaMalloc"));
    if (bytes > free_bytes_) return fail("cudaMalloc: out of memory", ErrorKind::kResource);
    free_bytes_ -= bytes;
    return take(bytes);
  }
  void free(void* data) override {
    free_bytes_ += taken_[data].bytes;
    give(data);
  }
  Result<void*> allocate_pinned(int64_t bytes) override {
    HS_RETURN_IF_ERROR(call("cudaHostAlloc"));
    return take(bytes);
  }
  void free_pinned(void* data) override { give(data); }
  Status pin(void* /*data*/, int64_t /*bytes*/) override {
    if (!pins_) return fail("cudaHostRegister: not permitted", ErrorKind::kInternal);
    return born("cudaHostRegister");
  }
  void unpin(void* /*data*/) override { --num_alive_; }

  Result<cuda::Stream> create_stream() override {
    HS_RETURN_IF_ERROR(born("cudaStreamCreateWithFlags"));
    return cuda::Stream{new_handle()};
  }
  void destroy(cuda::Stream /*stream*/) override { --num_alive_; }
  Status synchronize(cuda::Stream stream) override {
    HS_RETURN_IF_ERROR(call("cudaStreamSynchronize"));
    reach(stream);
    return {};
  }
  Result<cuda::Event> create_event() override {
    HS_RETURN_IF_ERROR(born("cudaEventCreate"));
    return cuda::Event{new_handle()};
  }
  void destroy(cuda::Event /*event*/) override { --num_alive_; }
  Status record(cuda::Event /*event*/, cuda::Stream /*stream*/) override {
    return call("cudaEventRecord");
  }
  Status record_time(cuda::Event /*event*/, cuda::Stream /*stream*/) override {
    return call("cudaEventRecordWithFlags");
  }
  Status wait(cuda::Stream /*stream*/, cuda::Event /*event*/) override {
    return call("cudaStreamWaitEvent");
  }
  Status synchronize(cuda::Event /*event*/) override { return call("cudaEventSynchronize"); }
  Result<bool> is_done(cuda::Event /*event*/) override {
    HS_RETURN_IF_ERROR(call("cudaEventQuery"));
    return true;
  }
  Result<double> elapsed_seconds(cuda::Event /*begin*/, cuda::Event /*end*/) override {
    HS_RETURN_IF_ERROR(call("cudaEventElapsedTime"));
    return 1e-4;
  }
  Status copy(void* to, const void* from, int64_t bytes, cuda::Stream stream) override {
    HS_RETURN_IF_ERROR(call("cudaMemcpyAsync"));
    put(stream, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
    return {};
  }
  Status fill(void* to, int byte, int64_t bytes, cuda::Stream stream) override {
    HS_RETURN_IF_ERROR(call("cudaMemsetAsync"));
    put(stream, [=] { std::memset(to, byte, static_cast<size_t>(bytes)); });
    return {};
  }
  Status launch(const cuda::Launch& launch, cuda::Stream stream) override {
    HS_RETURN_IF_ERROR(call(launch.name));
    if (Work work = play_ ? play_(launch) : Work{}; work) put(stream, std::move(work));
    return {};
  }
  Status begin_capture(cuda::Stream stream) override {
    HS_RETURN_IF_ERROR(call("cudaStreamBeginCapture"));
    captured_ = stream.handle;
    nodes_ = std::make_unique<Nodes>();
    return {};
  }
  Result<cuda::Graph> end_capture(cuda::Stream /*stream*/) override {
    captured_ = nullptr;
    HS_RETURN_IF_ERROR(born("cudaStreamEndCapture"));
    ++num_graphs_made_;
    return cuda::Graph{nodes_.release()};
  }
  Status launch(cuda::Graph graph, cuda::Stream stream) override {
    HS_RETURN_IF_ERROR(call("cudaGraphLaunch"));
    drain();
    busy_ = stream.handle;
    replay_ = std::thread([nodes = static_cast<const Nodes*>(graph.handle)] {
      for (const Work& work : *nodes) work();
    });
    return {};
  }
  void destroy(cuda::Graph graph) override {
    drain();
    delete static_cast<Nodes*>(graph.handle);
    --num_alive_;
  }

 private:
  using Nodes = std::vector<Work>;
  struct Taken {
    void* block = nullptr;
    int64_t bytes = 0;
  };

  Status call(const char* name) {
    const int64_t n = num_calls_++;
    if (is_lost_ && is_lost_()) {
      return fail(std::string(name) + ": lost for a test", ErrorKind::kDeviceLost);
    }
    const bool again = stays_ && n > fail_in_;
    const bool named = !fail_name_.empty() && fail_name_ == name;
    if (n != fail_in_ && !again && !named) return {};
    if (named) fail_name_.clear();
    if (!again) failed_call_ = name;
    return fail(std::string(name) + ": a failure for a test", failure_);
  }
  Status born(const char* name) {
    HS_RETURN_IF_ERROR(call(name));
    ++num_alive_;
    return {};
  }
  // Recorded, or done at once.
  void put(cuda::Stream stream, Work work) {
    if (captured_ != nullptr && captured_ == stream.handle) {
      nodes_->push_back(std::move(work));
      return;
    }
    reach(stream);
    work();
  }
  void reach(cuda::Stream stream) {
    if (busy_ == stream.handle) drain();
  }
  void drain() {
    if (replay_.joinable()) replay_.join();
    busy_ = nullptr;
  }
  void* new_handle() { return reinterpret_cast<void*>(++last_handle_); }
  Result<void*> take(int64_t bytes) {
    constexpr int64_t kAlignment = 256;
    void* block = std::calloc(static_cast<size_t>(bytes + kAlignment), 1);
    if (block == nullptr) return fail("calloc", ErrorKind::kResource);
    auto* at = static_cast<std::byte*>(block);
    void* data = at + (kAlignment - reinterpret_cast<uintptr_t>(at) % kAlignment);
    taken_[data] = {block, bytes};
    ++num_allocations_;
    ++num_alive_;
    return data;
  }
  void give(void* data) {
    std::free(taken_[data].block);
    taken_.erase(data);
    --num_alive_;
  }

  cuda::DeviceInfo info_;
  int64_t free_bytes_;
  int64_t* num_leaked_;
  int64_t fail_in_ = -1;
  std::string fail_name_;
  bool stays_ = false;
  std::function<bool()> is_lost_;
  ErrorKind failure_ = ErrorKind::kInternal;
  int64_t num_calls_ = 0;
  int64_t num_alive_ = 0;
  int64_t num_allocations_ = 0;
  int64_t num_graphs_made_ = 0;
  bool pins_ = true;
  std::string failed_call_;
  std::map<void*, Taken> taken_;
  uintptr_t last_handle_ = 0;
  std::function<Work(const cuda::Launch&)> play_;
  void* captured_ = nullptr;  // the stream's handle
  std::unique_ptr<Nodes> nodes_;
  void* busy_ = nullptr;  // the stream of the graph that runs
  std::thread replay_;
};

}  // namespace hotset::testing
