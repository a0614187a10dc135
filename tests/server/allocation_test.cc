// SPDX-License-Identifier: Apache-2.0
// Every allocation of a request above a size is made to fail once, the k-th for all k, on whatever
// thread it happens. That request may end with an error or a closed connection; the server lives,
// frees what the request held and answers the next one.
//
// Smaller ones succeed always, as they do on Linux while the process lives: the JSON library's
// destructors need a few hundred bytes to take a document apart, and destructors can't fail.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <new>
#include <thread>

#include "server/strict_json.h"
#include "support/test_server.h"

namespace {

// Allocations left until the one that fails; negative: none does.
std::atomic<int64_t> allocations_left{-1};
thread_local bool is_exempt = false;  // the client's side
constexpr size_t kSmallestToFail = 512;

bool must_fail(size_t size) {
  if (is_exempt || size < kSmallestToFail || allocations_left.load(std::memory_order_relaxed) < 0)
    return false;
  return allocations_left.fetch_sub(1) == 0;
}

void* allocate(size_t size, size_t alignment) {
  if (must_fail(size)) return nullptr;
  const size_t rounded = (std::max<size_t>(size, 1) + alignment - 1) / alignment * alignment;
  return std::aligned_alloc(alignment, rounded);
}

void* allocate_or_throw(size_t size, size_t alignment) {
  void* const memory = allocate(size, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t size) {
  return allocate_or_throw(size, alignof(std::max_align_t));
}
void* operator new[](size_t size) {
  return allocate_or_throw(size, alignof(std::max_align_t));
}
void* operator new(size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, static_cast<size_t>(alignment));
}
void* operator new[](size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, static_cast<size_t>(alignment));
}
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return allocate(size, alignof(std::max_align_t));
}
void* operator new[](size_t size, const std::nothrow_t&) noexcept {
  return allocate(size, alignof(std::max_align_t));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}

namespace hotset {
namespace {

using test::HttpAnswer;
using test::HttpClient;
using test::TestServer;
using test::TestServerOptions;

bool connections_end_within(const TestServer& server, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (server.http->num_connections() > 0 || server.http->num_open_answers() > 0) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

// Connects, asks, reads and leaves; the status, or 0 when the connection was closed.
int ask(const TestServer& server, const std::string& path, const std::string& body) {
  HttpClient client(server.port());
  if (!client.post(path, body)) return 0;
  return client.read_answer(5).status;
}

// Fails the k-th allocation from the accepting of a connection to its end, for all k.
int64_t sweep(const std::string& path, const std::string& body) {
  is_exempt = true;
  TestServerOptions options;
  options.http.ping_interval = std::chrono::milliseconds(20);  // a lost wake-up costs that much
  TestServer server(options);
  EXPECT_EQ(ask(server, path, body), 200);
  int64_t num_refused = 0;
  for (int64_t k = 0; k < 20'000; ++k) {
    EXPECT_TRUE(connections_end_within(server, 5)) << path << " allocation " << k;
    allocations_left = k;
    const int status = ask(server, path, body);
    EXPECT_TRUE(server.engine_is_idle_within(5)) << path << " allocation " << k;
    const bool has_failed = allocations_left.exchange(-1) < 0;
    EXPECT_TRUE(status == 0 || status == 200 || status >= 400) << status;
    num_refused += status != 200;
    if (!has_failed) {
      EXPECT_EQ(status, 200) << "nothing failed";
      EXPECT_GT(num_refused, 3) << "of " << k;
      return k;
    }
    if (::testing::Test::HasFailure()) return k;
    if (k % 16 == 0) {
      EXPECT_EQ(ask(server, path, body), 200) << "after allocation " << k;
    }
  }
  ADD_FAILURE() << path << ": the sweep has no end";
  return 0;
}

TEST(Allocation, ThatFailsEndsItsRequestOnly) {
  // Long enough for what grows with it to be large: body, prompt, ids, echo.
  const std::string text(1500, 'x');
  const std::string messages = R"({"messages":[{"role":"user","content":")" + text + "\"}]";
  int64_t num_points = sweep("/v1/chat/completions", messages + "}");
  num_points +=
      sweep("/v1/chat/completions", messages + R"(,"stream":true,"n":2,"logprobs":true})");
  num_points += sweep("/v1/completions", R"({"prompt":")" + text + R"(\n","echo":true})");
  num_points += sweep("/tokenize", R"({"content":")" + text + "\"}");
  EXPECT_GT(num_points, 100);
  std::cout << num_points << " allocations were made to fail\n";
}

}  // namespace
}  // namespace hotset
