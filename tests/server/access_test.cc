// SPDX-License-Identifier: Apache-2.0
#include "server/access.h"

#include <gtest/gtest.h>

namespace hotset {
namespace {

TEST(Access, ComparesWholeKeys) {
  EXPECT_TRUE(equal_in_constant_time("secret", "secret"));
  for (const char* wrong : {"", "s", "secre", "secret ", "secrets", "Secret", "secretsecret"}) {
    EXPECT_FALSE(equal_in_constant_time(wrong, "secret")) << wrong;
    EXPECT_FALSE(equal_in_constant_time("secret", wrong)) << wrong;
  }
  EXPECT_TRUE(equal_in_constant_time("", ""));
}

TEST(Access, TakesBearerAndApiKeyHeaders) {
  AccessRules rules;
  rules.api_keys = {"one", "two"};
  EXPECT_TRUE(key_is_valid(rules, "Bearer two", ""));
  EXPECT_TRUE(key_is_valid(rules, "bearer one", ""));
  EXPECT_TRUE(key_is_valid(rules, "", "one"));
  for (const char* header : {"", "Bearer", "Bearer ", "Bearer three", "Bearer one ", "Bearer  one",
                             "Basic one", "one", "Bearer onetwo", "Bearer on"}) {
    EXPECT_FALSE(key_is_valid(rules, header, "")) << header;
  }
  EXPECT_TRUE(key_is_valid(AccessRules(), "", "")) << "no keys, no question";
}

TEST(Access, ALoopbackServerAnswersToLoopbackNamesOnly) {
  AccessRules rules;
  rules.allowed_hosts = allowed_hosts_for("127.0.0.1", {"My.Box"});
  for (const char* host : {"localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000",
                           "[::1]", "my.box:80"}) {
    EXPECT_TRUE(host_is_allowed(rules, host)) << host;
  }
  for (const char* host :
       {"", "evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "localhost:80:80",
        "localhost:x", "evil.example:8000", "localhost@evil", "[::2]", "localhost ", ":8000"}) {
    EXPECT_FALSE(host_is_allowed(rules, host)) << host;
  }
}

TEST(Access, ANetworkServerAnswersToAnyNameUnlessTold) {
  AccessRules rules;
  rules.allowed_hosts = allowed_hosts_for("0.0.0.0", {});
  EXPECT_TRUE(host_is_allowed(rules, "gpu-box:8000"));
  rules.allowed_hosts = allowed_hosts_for("0.0.0.0", {"gpu-box"});
  EXPECT_TRUE(host_is_allowed(rules, "gpu-box:8000"));
  EXPECT_FALSE(host_is_allowed(rules, "other"));
}

}  // namespace
}  // namespace hotset
