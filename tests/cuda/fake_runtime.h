// SPDX-License-Identifier: Apache-2.0
// A GPU for machines without one: memory is host memory, copies happen at once, kernels do nothing,
// and any call can be made to fail. It counts what is alive, so that a test sees leaks.
#pragma once

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "cuda/runtime.h"

namespace hotset::testing {

class FakeRuntime final : public cuda::Runtime {
 public:
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
    if (num_leaked_ != nullptr) *num_leaked_ = num_alive_;
  }
  FakeRuntime(const FakeRuntime&) = delete;
  FakeRuntime& operator=(const FakeRuntime&) = delete;

  // The n-th call from now that can fail does, counted from 0; −1: none.
  void fail_call(int64_t n, ErrorKind kind = ErrorKind::kInternal) {
    fail_in_ = n;
    failure_ = kind;
    num_calls_ = 0;
  }
  // Memory that exists already is never pinned.
  void refuse_to_pin() { pins_ = false; }
  [[nodiscard]] int64_t num_allocations() const { return num_allocations_; }
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
    free_bytes_ += sizes_[data];
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
    return cuda::Stream{this};
  }
  void destroy(cuda::Stream /*stream*/) override { --num_alive_; }
  Status synchronize(cuda::Stream /*stream*/) override { return call("cudaStreamSynchronize"); }
  Result<cuda::Event> create_event() override {
    HS_RETURN_IF_ERROR(born("cudaEventCreate"));
    return cuda::Event{this};
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
  Result<double> elapsed_seconds(cuda::Event /*begin*/, cuda::Event /*end*/) override { return 0; }
  Status copy(void* to, const void* from, int64_t bytes, cuda::Stream /*stream*/) override {
    HS_RETURN_IF_ERROR(call("cudaMemcpyAsync"));
    std::memcpy(to, from, static_cast<size_t>(bytes));
    return {};
  }
  Status fill(void* to, int byte, int64_t bytes, cuda::Stream /*stream*/) override {
    HS_RETURN_IF_ERROR(call("cudaMemsetAsync"));
    std::memset(to, byte, static_cast<size_t>(bytes));
    return {};
  }
  Status launch(const cuda::Launch& launch, cuda::Stream /*stream*/) override {
    return call(launch.name);
  }
  Status begin_capture(cuda::Stream /*stream*/) override { return call("cudaStreamBeginCapture"); }
  Result<cuda::Graph> end_capture(cuda::Stream /*stream*/) override {
    HS_RETURN_IF_ERROR(born("cudaStreamEndCapture"));
    return cuda::Graph{this};
  }
  Status launch(cuda::Graph /*graph*/, cuda::Stream /*stream*/) override {
    return call("cudaGraphLaunch");
  }
  void destroy(cuda::Graph /*graph*/) override { --num_alive_; }

 private:
  Status call(const char* name) {
    if (num_calls_++ != fail_in_) return {};
    failed_call_ = name;
    return fail(std::string(name) + ": a failure for a test", failure_);
  }
  Status born(const char* name) {
    HS_RETURN_IF_ERROR(call(name));
    ++num_alive_;
    return {};
  }
  Result<void*> take(int64_t bytes) {
    void* data = std::calloc(static_cast<size_t>(bytes), 1);
    if (data == nullptr) return fail("calloc", ErrorKind::kResource);
    sizes_[data] = bytes;
    ++num_allocations_;
    ++num_alive_;
    return data;
  }
  void give(void* data) {
    sizes_.erase(data);
    std::free(data);
    --num_alive_;
  }

  cuda::DeviceInfo info_;
  int64_t free_bytes_;
  int64_t* num_leaked_;
  int64_t fail_in_ = -1;
  ErrorKind failure_ = ErrorKind::kInternal;
  int64_t num_calls_ = 0;
  int64_t num_alive_ = 0;
  int64_t num_allocations_ = 0;
  bool pins_ = true;
  std::string failed_call_;
  std::map<void*, int64_t> sizes_;
};

}  // namespace hotset::testing
