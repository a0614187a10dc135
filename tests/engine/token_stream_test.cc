// SPDX-License-Identifier: Apache-2.0
#include "engine/token_stream.h"

#include <gtest/gtest.h>

#include <thread>

namespace hotset {
namespace {

TokenEvent token_event(int32_t token) {
  TokenEvent event;
  event.token = token;
  return event;
}

TokenEvent last_event() {
  TokenEvent event;
  event.finish = FinishReason::kStop;
  return event;
}

TEST(TokenStream, KeepsTheOrderAcrossThreads) {
  TokenStream stream;
  std::thread writer([&] {
    for (int32_t i = 0; i < 3000; ++i) ASSERT_TRUE(stream.push(token_event(i)));
    stream.push_last(last_event());
  });
  for (int32_t i = 0; i < 3000; ++i) EXPECT_EQ(stream.next().token, i);
  EXPECT_TRUE(stream.next().finish.has_value());
  writer.join();
}

TEST(TokenStream, IsBoundedButAlwaysTakesTheLastEvent) {
  TokenStream stream;
  size_t accepted = 0;
  while (stream.push(token_event(1))) ++accepted;
  EXPECT_EQ(accepted, TokenStream::kCapacity);
  stream.push_last(last_event());
}

TEST(TokenStream, WakesTheReader) {
  TokenStream stream;
  int num_wakeups = 0;
  stream.push(token_event(1));
  stream.set_wakeup([&] { ++num_wakeups; });
  EXPECT_EQ(num_wakeups, 1) << "something was waiting already";
  stream.push(token_event(2));
  EXPECT_EQ(num_wakeups, 2);
  stream.set_wakeup({});
  stream.push(token_event(3));
  EXPECT_EQ(num_wakeups, 2);
}

TEST(TokenStream, WaitsNoLongerThanAsked) {
  TokenStream stream;
  EXPECT_FALSE(stream.next_within(std::chrono::milliseconds(5)).has_value());
  stream.push(token_event(7));
  EXPECT_EQ(stream.next_within(std::chrono::seconds(5))->token, 7);
}

}  // namespace
}  // namespace hotset
