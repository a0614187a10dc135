// SPDX-License-Identifier: Apache-2.0
// The instructions behind tensor-core kernels, for compute capability 8.0 and up: asynchronous
// copies to shared memory, loads of 8 × 8 matrices, and 16 × 8 × 16 products of bf16 or half with
// fp32 sums. A float goes in as the sum of two such values, high and low.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>

namespace hotset::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// 16 bytes; zeros when not `inside`, and `from` is not read then.
__device__ __forceinline__ void copy_async(uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(inside ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void commit_async() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until at most kLeft groups are under way.
template <int kLeft>
__device__ __forceinline__ void wait_async() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// Four 8 × 8 matrices of 16-bit values; lane 8m + r gives the address of row r of matrix m.
__device__ __forceinline__ void load_matrices(uint32_t (&m)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_transposed(uint32_t (&m)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}

// c += a·b: a 16 × 16, b 16 × 8.
template <typename T>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1);
template <>
__device__ __forceinline__ void multiply_add<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4],
                                                            uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply_add<__half>(float (&c)[4], const uint32_t (&a)[4],
                                                     uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two neighbouring values, the first in the low 16 bits, as their high parts and what these leave.
template <typename T>
struct Halves {
  uint32_t high;
  uint32_t low;
};

__device__ __forceinline__ uint32_t bits_of(__nv_bfloat162 pair) {
  return *reinterpret_cast<uint32_t*>(&pair);
}
__device__ __forceinline__ uint32_t bits_of(__half2 pair) {
  return *reinterpret_cast<uint32_t*>(&pair);
}

template <typename T>
__device__ __forceinline__ uint32_t rounded_pair(float a, float b);
template <>
__device__ __forceinline__ uint32_t rounded_pair<__nv_bfloat16>(float a, float b) {
  return bits_of(__floats2bfloat162_rn(a, b));
}
template <>
__device__ __forceinline__ uint32_t rounded_pair<__half>(float a, float b) {
  return bits_of(__floats2half2_rn(a, b));
}

template <typename T>
__device__ __forceinline__ Halves<T> split_pair(float a, float b);
template <>
__device__ __forceinline__ Halves<__nv_bfloat16> split_pair<__nv_bfloat16>(float a, float b) {
  const __nv_bfloat162 high = __floats2bfloat162_rn(a, b);
  const float2 back = __bfloat1622float2(high);
  return {bits_of(high), bits_of(__floats2bfloat162_rn(a - back.x, b - back.y))};
}
template <>
__device__ __forceinline__ Halves<__half> split_pair<__half>(float a, float b) {
  const __half2 high = __floats2half2_rn(a, b);
  const float2 back = __half22float2(high);
  return {bits_of(high), bits_of(__floats2half2_rn(a - back.x, b - back.y))};
}

}  // namespace hotset::cuda
