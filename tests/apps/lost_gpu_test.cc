// SPDX-License-Identifier: Apache-2.0
// A server that loses its GPU: whoever waits is told, and the process ends with 3, so that whatever
// started it can start another.
#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "apps/run_program.h"
#include "support/http_client.h"

namespace hotset {
namespace {

const std::string kDemo = std::string(HOTSET_SOURCE_DIR) + "/models/demo";

TEST(LostGpu, EndsTheServerWithItsOwnExitCode) {
  test::BackgroundProgram server(
      {"serve", kDemo, "--device", "cuda", "--port", "0", "--max-model-len", "512"},
      FAKE_GPU_BINARY);
  const uint16_t port = server.wait_for_port();
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
