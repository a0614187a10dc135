// SPDX-License-Identifier: Apache-2.0
#include "server/routes.h"

#include <gtest/gtest.h>

namespace hotset {
namespace {

TEST(Routes, FindsEveryRowAndIgnoresTheQuery) {
  for (const Route& route : routes()) {
    const std::string path = std::string(route.path) + (route.takes_suffix ? "name" : "");
    const auto match = match_route(route.method, path);
    ASSERT_TRUE(match.has_value()) << path;
    EXPECT_EQ(match->route, &route);
    EXPECT_TRUE(match_route(route.method, path + "?beta=true").has_value());
    const auto wrong = match_route(route.method == "GET" ? "POST" : "GET", path);
    ASSERT_FALSE(wrong.has_value());
    EXPECT_EQ(wrong.error().status, 405);
    EXPECT_EQ(wrong.error().allow, route.method);
  }
}

TEST(Routes, TakesNoOtherSpelling) {
  for (const char* path : {"", "/", "//v1/models", "/v1//models", "/V1/models", "/v1/models%2f",
                           "/v1/chat/completions/", "/v1/../health", "http://localhost/health",
                           "/v1/chat", "*", "/health/", "/%68ealth"}) {
    const auto match = match_route("GET", path);
    ASSERT_FALSE(match.has_value()) << path;
    EXPECT_EQ(match.error().status, 404) << path;
  }
}

TEST(Routes, NamesMayHoldSlashes) {
  EXPECT_EQ(match_route("GET", "/v1/models/org/name")->suffix, "org/name");
  EXPECT_EQ(match_route("GET", "/v1/models/org%2Fname")->suffix, "org/name");
}

// A new route without a thought about its key would show here.
TEST(Routes, OnlyHealthIsPublic) {
  for (const Route& route : routes()) {
    EXPECT_EQ(route.is_public, route.endpoint == Endpoint::kHealth) << route.path;
  }
}

}  // namespace
}  // namespace hotset
