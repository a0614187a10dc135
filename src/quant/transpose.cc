// SPDX-License-Identifier: Apache-2.0
#include "quant/transpose.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace hotset {
namespace {

constexpr int64_t kBlock = 16;  // columns a block

#if defined(__SSE2__)

// One round of the perfect shuffle: four rounds over 16 registers of 16 bytes transpose them, and
// three over 8 registers of 8 halves.
void transpose_16x16_bytes(const std::byte* from, int64_t stride_bytes, std::byte* to) {
  __m128i a[16];
  __m128i b[16];
  for (int r = 0; r < 16; ++r) {
    a[r] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + r * stride_bytes));
  }
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
      b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
    }
    for (int i = 0; i < 8; ++i) {
      a[2 * i] = _mm_unpacklo_epi8(b[i], b[i + 8]);
      a[2 * i + 1] = _mm_unpackhi_epi8(b[i], b[i + 8]);
    }
  }
  for (int c = 0; c < 16; ++c) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16 * c), a[c]);
  }
}

// Eight rows of eight halves; column c of the result goes to to + 32·c.
void transpose_8x8_halves(const std::byte* from, int64_t stride_bytes, std::byte* to) {
  __m128i a[8];
  __m128i b[8];
  for (int r = 0; r < 8; ++r) {
    a[r] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + r * stride_bytes));
  }
  for (int i = 0; i < 4; ++i) {
    b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
    b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
  }
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
    a[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
  }
  for (int i = 0; i < 4; ++i) {
    b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
    b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
  }
  for (int c = 0; c < 8; ++c) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 32 * c), b[c]);
  }
}

#endif

template <typename T>
void transpose_scalar(const std::byte* from, int64_t stride, int64_t lanes, int64_t cols,
                      std::byte* to) {
  for (int64_t r = 0; r < lanes; ++r) {
    const std::byte* row = from + r * stride * static_cast<int64_t>(sizeof(T));
    std::byte* column = to + r * static_cast<int64_t>(sizeof(T));
    for (int64_t c = 0; c < cols; ++c) {
      std::memcpy(column + c * kTileRows * static_cast<int64_t>(sizeof(T)),
                  row + c * static_cast<int64_t>(sizeof(T)), sizeof(T));
    }
  }
}

// A full block of 16 rows and kBlock columns.
template <typename T>
void transpose_block(const std::byte* from, int64_t stride, std::byte* to) {
#if defined(__SSE2__)
  if constexpr (sizeof(T) == 1) {
    transpose_16x16_bytes(from, stride, to);
    return;
  } else if constexpr (sizeof(T) == 2) {
    for (int64_t r = 0; r < 16; r += 8) {
      for (int64_t c = 0; c < 16; c += 8) {
        transpose_8x8_halves(from + 2 * (r * stride + c), 2 * stride, to + 32 * c + 2 * r);
      }
    }
    return;
  }
#endif
  transpose_scalar<T>(from, stride, kTileRows, kBlock, to);
}

}  // namespace

template <typename T>
void transpose_tile(const std::byte* from, int64_t stride, int64_t lanes, int64_t cols,
                    int64_t padded_cols, std::byte* to) {
  constexpr auto kSize = static_cast<int64_t>(sizeof(T));
  if (lanes < kTileRows) std::memset(to, 0, static_cast<size_t>(padded_cols * kTileRows * kSize));
  int64_t done = 0;
  if (lanes == kTileRows) {
    for (; done + kBlock <= cols; done += kBlock) {
      transpose_block<T>(from + done * kSize, stride, to + done * kTileRows * kSize);
    }
  }
  transpose_scalar<T>(from + done * kSize, stride, lanes, cols - done,
                      to + done * kTileRows * kSize);
  if (padded_cols > cols) {
    std::memset(to + cols * kTileRows * kSize, 0,
                static_cast<size_t>((padded_cols - cols) * kTileRows * kSize));
  }
}

template void transpose_tile<uint8_t>(const std::byte*, int64_t, int64_t, int64_t, int64_t,
                                      std::byte*);
template void transpose_tile<uint16_t>(const std::byte*, int64_t, int64_t, int64_t, int64_t,
                                       std::byte*);
template void transpose_tile<uint32_t>(const std::byte*, int64_t, int64_t, int64_t, int64_t,
                                       std::byte*);

}  // namespace hotset
