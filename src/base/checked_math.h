// SPDX-License-Identifier: Apache-2.0
// Arithmetic on sizes that come from outside: every product and sum says whether it fits.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <span>

namespace hotset {

template <std::integral T>
[[nodiscard]] constexpr std::optional<T> checked_mul(T a, T b) {
  T out{};
  if (__builtin_mul_overflow(a, b, &out)) return std::nullopt;
  return out;
}

template <std::integral T>
[[nodiscard]] constexpr std::optional<T> checked_add(T a, T b) {
  T out{};
  if (__builtin_add_overflow(a, b, &out)) return std::nullopt;
  return out;
}

// Product of non-negative dimensions; nullopt when one is negative or the product exceeds 2^63-1.
[[nodiscard]] constexpr std::optional<int64_t> checked_numel(std::span<const int64_t> shape) {
  int64_t numel = 1;
  for (const int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    const auto next = checked_mul(numel, dim);
    if (!next) return std::nullopt;
    numel = *next;
  }
  return numel;
}

[[nodiscard]] constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
[[nodiscard]] constexpr int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}

}  // namespace hotset
