// SPDX-License-Identifier: Apache-2.0
#include "server/access.h"

#include <algorithm>
#include <cstdint>

namespace hotset {
namespace {

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

// "name:80" → "name", "[::1]:80" → "[::1]"; anything after the port that is no digit stays and so
// matches nothing.
std::string_view without_port(std::string_view host) {
  const size_t bracket = host.rfind(']');
  const size_t colon = host.rfind(':');
  if (colon == std::string_view::npos) return host;
  if (bracket != std::string_view::npos && colon < bracket) return host;
  const std::string_view port = host.substr(colon + 1);
  const bool is_number = port.size() <= 5 && std::all_of(port.begin(), port.end(), [](char c) {
                           return c >= '0' && c <= '9';
                         });
  return is_number ? host.substr(0, colon) : host;
}

}  // namespace

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  volatile uint8_t difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    const char other = b.empty() ? '\0' : b[i % b.size()];
    difference = static_cast<uint8_t>(difference |
                                      (static_cast<uint8_t>(a[i]) ^ static_cast<uint8_t>(other)));
  }
  return difference == 0;
}

bool is_loopback_host(std::string_view host) {
  return host == "localhost" || host == "::1" || host == "[::1]" || host.starts_with("127.");
}

std::vector<std::string> allowed_hosts_for(const std::string& bind_host,
                                           const std::vector<std::string>& extra) {
  std::vector<std::string> hosts;
  for (const std::string& name : extra) hosts.push_back(lower_case(name));
  if (!is_loopback_host(bind_host)) return hosts;
  hosts.insert(hosts.end(), {"localhost", "127.0.0.1", "[::1]", lower_case(bind_host)});
  return hosts;
}

bool host_is_allowed(const AccessRules& rules, std::string_view host) {
  if (rules.allowed_hosts.empty()) return true;
  const std::string name = lower_case(without_port(host));
  return std::find(rules.allowed_hosts.begin(), rules.allowed_hosts.end(), name) !=
         rules.allowed_hosts.end();
}

bool key_is_valid(const AccessRules& rules, std::string_view authorization,
                  std::string_view x_api_key) {
  if (rules.api_keys.empty()) return true;
  constexpr std::string_view kBearer = "bearer ";
  std::string_view given = x_api_key;
  if (lower_case(authorization.substr(0, kBearer.size())) == kBearer) {
    given = authorization.substr(kBearer.size());
  }
  bool is_valid = false;  // every key is compared, so the time does not tell which one matched
  for (const std::string& key : rules.api_keys) {
    is_valid = equal_in_constant_time(given, key) || is_valid;
  }
  return is_valid;
}

}  // namespace hotset
