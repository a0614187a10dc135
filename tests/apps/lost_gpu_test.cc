// SPDX-License-Identifier: Apache-2.0
// A server that loses its GPU: whoever waits is told, and the process ends with 3, so that whatever
// started it can start another.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <string>
#include <thread>

#include "apps/run_program.h"
#include "support/http_client.h"

namespace hotset {
namespace {

const std::string kDemo = std::string(HOTSET_SOURCE_DIR) + "/models/demo";

uint16_t wait_for_port(const test::BackgroundProgram& server) {
  for (int i = 0; i < 12'000; ++i) {
    const std::string errors = server.read_errors();
    const size_t at = errors.find("http://127.0.0.1:");
    if (at != std::string::npos && errors.find("/v1", at) != std::string::npos) {
      return static_cast<uint16_t>(std::stoi(errors.substr(at + 17)));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return 0;
}

TEST(LostGpu, EndsTheServerWithItsOwnExitCode) {
  test::BackgroundProgram server(
      {"serve", kDemo, "--device", "cuda", "--port", "0", "--max-model-len", "512"},
      FAKE_GPU_BINARY);
  const uint16_t port = wait_for_port(server);
  ASSERT_NE(port, 0) << server.read_errors();
  const std::string body = R"({"prompt":"x","max_tokens":4,"temperature":0})";
  const test::HttpAnswer before = test::http_post(port, "/v1/completions", body);
  EXPECT_EQ(before.status, 200) << before.body;
  server.send_signal(SIGUSR1);
  const test::HttpAnswer after = test::http_post(port, "/v1/completions", body);
  EXPECT_EQ(after.status, 500) << after.body;
  EXPECT_NE(after.body.find("lost for a test"), std::string::npos) << after.body;
  EXPECT_EQ(server.wait_for_exit(20), 3) << server.read_errors();
  EXPECT_NE(server.read_errors().find("the GPU is lost to this process"), std::string::npos)
      << server.read_errors();
}

}  // namespace
}  // namespace hotset
