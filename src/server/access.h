// SPDX-License-Identifier: Apache-2.0
// Who may ask: the API key, and the Host header. A web page in the user's browser can reach a
// loopback server under any name it makes resolve to 127.0.0.1 (DNS rebinding); asking for a Host
// we know closes that door.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hotset {

// Time depends on the lengths only, never on the content.
[[nodiscard]] bool equal_in_constant_time(std::string_view a, std::string_view b);

struct AccessRules {
  std::vector<std::string> api_keys;       // empty: no key is asked for
  std::vector<std::string> allowed_hosts;  // without port, lower case; empty: any
};

// Host names for a server bound to `bind_host`. A loopback server answers to loopback names only;
// one that the network can reach is protected by its key instead.
[[nodiscard]] std::vector<std::string> allowed_hosts_for(const std::string& bind_host,
                                                         const std::vector<std::string>& extra);
[[nodiscard]] bool is_loopback_host(std::string_view host);

// `host` as in the header: a name or address with an optional port.
[[nodiscard]] bool host_is_allowed(const AccessRules& rules, std::string_view host);

// A Bearer token or an x-api-key that equals one of the keys.
[[nodiscard]] bool key_is_valid(const AccessRules& rules, std::string_view authorization,
                                std::string_view x_api_key);

}  // namespace hotset
