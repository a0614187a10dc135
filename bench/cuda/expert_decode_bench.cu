// SPDX-License-Identifier: Apache-2.0
// A workbench for routed experts at decode: can a GPU read the CPU's 16-row tiles as they lie, near
// its memory's rate, and give the same bits?
//
// One token, k experts of a layer, affine 4-bit codes in groups of 128 with fp16 scales and the
// zero 8 (quant/packed_matrix.h). Two kernels: gate·up·SwiGLU with the rounding to int8 that down
// reads, then down with the weighted sum. Every dot product is integer; the fp32 operations of a
// row follow the order of kernels/cpu/matmul_integer_body.h, so the result must equal the host's
// bit for bit.
//
//   expert_decode_bench [layers] [experts per layer in memory]     prints µs/layer, GB/s, share of
//   a plain read
//
// Needs nvcc alone:  nvcc -O3 -std=c++17 -arch=native expert_decode_bench.cu
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#define CUDA_OK(call)                                                    \
  do {                                                                   \
    if (const cudaError_t error_ = (call); error_ != cudaSuccess) {      \
      std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, \
                   cudaGetErrorString(error_));                          \
      std::exit(1);                                                      \
    }                                                                    \
  } while (false)

namespace {

constexpr int kHidden = 2048;
constexpr int kWidth = 512;
constexpr int kGroup = 128;
constexpr int kSub = 32;
constexpr int kRows = 16;
constexpr int kGroupBytes = 32 + kRows * kGroup / 2;  // 16 halves, then codes
constexpr int kUpTileBytes = kHidden / kGroup * kGroupBytes;
constexpr int kDownTileBytes = kWidth / kGroup * kGroupBytes;
constexpr int kGateBytes = kWidth / kRows * kUpTileBytes;
constexpr int kDownBytes = kHidden / kRows * kDownTileBytes;
constexpr int kExpertBytes = 2 * kGateBytes + kDownBytes;
constexpr int kMaxChosen = 11;
constexpr float kZero = 8.0f;

// An int8 vector with a scale and a sum per 32 columns, and per group Σ scale·sum.
template <int kCols>
struct Rounded {
  int8_t q[kCols];
  float scale[kCols / kSub];
  int32_t sum[kCols / kSub];
  float group_sum[kCols / kGroup];
};
using RoundedX = Rounded<kHidden>;
using RoundedAct = Rounded<kWidth>;

// ── The arithmetic both sides share
// ─────────────────────────────────────────────────────────────────
#ifdef __CUDA_ARCH__
#define FMA(a, b, c) __fmaf_rn(a, b, c)
#define MUL(a, b) __fmul_rn(a, b)
#define ADD(a, b) __fadd_rn(a, b)
#define DIV(a, b) __fdiv_rn(a, b)
#define ROUND(a) __float2int_rn(a)
#else
#define FMA(a, b, c) std::fma(a, b, c)
#define MUL(a, b) ((a) * (b))
#define ADD(a, b) ((a) + (b))
#define DIV(a, b) ((a) / (b))
#define ROUND(a) static_cast<int>(std::nearbyint(a))
#endif

__host__ __device__ inline float pow2(int n) {
  const uint32_t bits = static_cast<uint32_t>(n + 127) << 23;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

__host__ __device__ inline float exponential(float x) {
  const float limited = fmaxf(-87.0f, fminf(88.0f, x));
  const int n = ROUND(MUL(limited, 1.44269504f));
  float r = FMA(static_cast<float>(n), -0.693145752f, limited);
  r = FMA(static_cast<float>(n), -1.42860677e-6f, r);
  float p = 1.0f / 5040;
  p = FMA(p, r, 1.0f / 720);
  p = FMA(p, r, 1.0f / 120);
  p = FMA(p, r, 1.0f / 24);
  p = FMA(p, r, 1.0f / 6);
  p = FMA(p, r, 0.5f);
  p = FMA(p, r, 1.0f);
  p = FMA(p, r, 1.0f);
  return MUL(p, pow2(n));
}

__host__ __device__ inline float silu_mul(float gate, float up) {
  const float sigmoid = DIV(1.0f, ADD(1.0f, exponential(-gate)));
  return MUL(MUL(gate, sigmoid), up);
}

// ── Host oracle
// ─────────────────────────────────────────────────────────────────────────────────────
template <int kCols>
void round_host(const float* x, Rounded<kCols>& out) {
  for (int s = 0; s < kCols / kSub; ++s) {
    float most = 0;
    for (int i = 0; i < kSub; ++i) most = std::max(most, std::fabs(x[s * kSub + i]));
    const float inverse = most > 0 ? 127.0f / most : 0.0f;
    out.scale[s] = most / 127.0f;
    out.sum[s] = 0;
    for (int i = 0; i < kSub; ++i) {
      out.q[s * kSub + i] = static_cast<int8_t>(std::nearbyint(x[s * kSub + i] * inverse));
      out.sum[s] += out.q[s * kSub + i];
    }
  }
  for (int g = 0; g < kCols / kGroup; ++g) {
    float total = 0;
    for (int s = g * kGroup / kSub; s < (g + 1) * kGroup / kSub; ++s) {
      total = std::fma(out.scale[s], static_cast<float>(out.sum[s]), total);
    }
    out.group_sum[g] = total;
  }
}

template <int kCols>
float row_host(const uint8_t* tile, int row, const Rounded<kCols>& x) {
  float y = 0;
  for (int g = 0; g < kCols / kGroup; ++g) {
    const uint8_t* group = tile + g * kGroupBytes;
    float part = 0;
    for (int s = 0; s < kGroup / kSub; ++s) {
      int32_t dot = 0;
      for (int c = 0; c < kSub; ++c) {
        const int col = s * kSub + c;
        const uint8_t byte = group[32 + col / 8 * 64 + 4 * row + col % 4];
        dot += (col % 8 < 4 ? byte & 15 : byte >> 4) * x.q[g * kGroup + col];
      }
      part = std::fma(static_cast<float>(dot), x.scale[g * kGroup / kSub + s], part);
    }
    part = std::fma(-kZero, x.group_sum[g], part);
    __half scale;
    memcpy(&scale, group + 2 * row, 2);
    y = std::fma(part, __half2float(scale), y);
  }
  return y;
}

void experts_host(const std::vector<const uint8_t*>& experts, const float* weights, const float* x,
                  float* y) {
  std::vector<RoundedX> rounded(1);
  round_host(x, rounded[0]);
  std::fill(y, y + kHidden, 0.0f);
  std::vector<RoundedAct> acts(1);
  for (size_t k = 0; k < experts.size(); ++k) {
    float act[kWidth];
    for (int r = 0; r < kWidth; ++r) {
      const uint8_t* tile = experts[k] + r / kRows * kUpTileBytes;
      const float gate = row_host(tile, r % kRows, rounded[0]);
      act[r] = silu_mul(gate, row_host(tile + kGateBytes, r % kRows, rounded[0]));
    }
    round_host(act, acts[0]);
    for (int r = 0; r < kHidden; ++r) {
      const uint8_t* tile = experts[k] + 2 * kGateBytes + r / kRows * kDownTileBytes;
      y[r] = std::fma(weights[k], row_host(tile, r % kRows, acts[0]), y[r]);
    }
  }
}

// ── Device
// ──────────────────────────────────────────────────────────────────────────────────────────
struct Layer {
  const uint8_t* expert[kMaxChosen];  // records: gate, up, down
  float weight[kMaxChosen];
  int num_chosen;
};

// 512 bytes of codes a warp: lane l has step l/4 (8 columns) of rows 4·(l%4) … +3. Leaves each lane
// with the sub-block sum of one row: sub-block l/16, row 4·(l%4) + (l/4)%4.
__device__ inline int dot_64_columns(uint4 codes, const int8_t* q, int lane) {
  const int2 x = *reinterpret_cast<const int2*>(q + 8 * (lane / 4));
  const uint32_t word[4] = {codes.x, codes.y, codes.z, codes.w};
  int dot[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    dot[r] = __dp4a(static_cast<int>(word[r] & 0x0f0f0f0fu), x.x, 0);
    dot[r] = __dp4a(static_cast<int>((word[r] >> 4) & 0x0f0f0f0fu), x.y, dot[r]);
  }
  // Reduce-scatter over the four steps of a sub-block (lane bits 2 and 3): three shuffles instead
  // of eight.
  const bool odd = (lane & 4) != 0;
  const int keep0 = odd ? dot[1] : dot[0], keep1 = odd ? dot[3] : dot[2];
  const int give0 = odd ? dot[0] : dot[1], give1 = odd ? dot[2] : dot[3];
  const int half0 = keep0 + __shfl_xor_sync(~0u, give0, 4);
  const int half1 = keep1 + __shfl_xor_sync(~0u, give1, 4);
  const bool high = (lane & 8) != 0;
  const int give = high ? half0 : half1;
  return (high ? half1 : half0) + __shfl_xor_sync(~0u, give, 8);
}

// Groups first … first+kGroups−1 of a tile into dots[sub-block][row] (shared memory).
template <int kGroups>
__device__ inline void tile_dots(const uint8_t* tile, int first, const int8_t* q, int* dots,
                                 int lane) {
  uint4 codes[2 * kGroups];
#pragma unroll
  for (int i = 0; i < 2 * kGroups; ++i) {
    const uint8_t* group = tile + (first + i / 2) * kGroupBytes;
    codes[i] = __ldcs(reinterpret_cast<const uint4*>(group + 32 + (i % 2) * 512) + lane);
  }
  const int row = 4 * (lane % 4) + (lane / 4) % 4;
#pragma unroll
  for (int i = 0; i < 2 * kGroups; ++i) {
    const int dot = dot_64_columns(codes[i], q + first * kGroup + i * 64, lane);
    dots[(first * 4 + i * 2 + lane / 16) * kRows + row] = dot;
  }
}

// The fp32 chain of one row, in the CPU's order.
template <int kCols>
__device__ inline float row_chain(const uint8_t* tile, int row, const int* dots, const float* scale,
                                  const float* group_sum) {
  float y = 0;
#pragma unroll 4
  for (int g = 0; g < kCols / kGroup; ++g) {
    float part = 0;
#pragma unroll
    for (int s = 4 * g; s < 4 * g + 4; ++s) {
      part = FMA(static_cast<float>(dots[s * kRows + row]), scale[s], part);
    }
    part = FMA(-kZero, group_sum[g], part);
    const __half weight_scale = *reinterpret_cast<const __half*>(tile + g * kGroupBytes + 2 * row);
    y = FMA(part, __half2float(weight_scale), y);
  }
  return y;
}

// Block: 32 rows of one expert's gate and up. 16 warps: (gate, up) × 2 tiles × 4 quarters of the
// columns.
__global__ void __launch_bounds__(512)
    gate_up_kernel(const Layer* layer, const RoundedX* x, RoundedAct* act) {
  __shared__ alignas(16) int8_t q[kHidden];
  __shared__ float scale[kHidden / kSub];
  __shared__ float group_sum[kHidden / kGroup];
  __shared__ int dots[4][kHidden / kSub * kRows];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int which = warp / 4;  // 0, 1: gate tiles; 2, 3: up tiles
  const uint8_t* record = layer->expert[blockIdx.y];
  const auto tile_of = [&](int w) {
    return record + (w / 2) * kGateBytes +
           (2 * static_cast<int>(blockIdx.x) + w % 2) * kUpTileBytes;
  };
  reinterpret_cast<int*>(q)[threadIdx.x] = reinterpret_cast<const int*>(x->q)[threadIdx.x];
  if (threadIdx.x < kHidden / kSub) scale[threadIdx.x] = x->scale[threadIdx.x];
  if (threadIdx.x < kHidden / kGroup) group_sum[threadIdx.x] = x->group_sum[threadIdx.x];
  __syncthreads();
  tile_dots<4>(tile_of(which), 4 * (warp % 4), q, dots[which], lane);
  __syncthreads();
  if (warp >= 2) return;
  // Warp 0: gate rows 0–31; warp 1: up rows 0–31.
  __shared__ float up[32];
  const int tile = 2 * warp + lane / 16;
  const float y = row_chain<kHidden>(tile_of(tile), lane % 16, dots[tile], scale, group_sum);
  if (warp == 1) up[lane] = y;
  asm volatile("bar.sync 1, 64;" ::: "memory");
  if (warp == 1) return;
  const float value = silu_mul(y, up[lane]);
  float most = fabsf(value);
  for (int i = 16; i > 0; i /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, i));
  const int rounded = most > 0 ? ROUND(MUL(value, DIV(127.0f, most))) : 0;
  int sum = rounded;
  for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
  RoundedAct& out = act[blockIdx.y];
  out.q[32 * blockIdx.x + lane] = static_cast<int8_t>(rounded);
  if (lane == 0) {
    out.scale[blockIdx.x] = DIV(most, 127.0f);
    out.sum[blockIdx.x] = sum;
  }
}

// Block: one tile of the output; warp k: expert k.
__global__ void __launch_bounds__(32 * kMaxChosen)
    down_kernel(const Layer* layer, const RoundedAct* act, float* y) {
  __shared__ int dots[kMaxChosen][kWidth / kSub * kRows];
  __shared__ float part[kMaxChosen][kRows];
  const int k = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const RoundedAct& in = act[k];
  const uint8_t* tile = layer->expert[k] + 2 * kGateBytes + blockIdx.x * kDownTileBytes;
  tile_dots<4>(tile, 0, in.q, dots[k], lane);
  __syncwarp();
  if (lane < kRows) {
    float group_sum[kWidth / kGroup];
    for (int g = 0; g < kWidth / kGroup; ++g) {
      float total = 0;
      for (int s = 4 * g; s < 4 * g + 4; ++s)
        total = FMA(in.scale[s], static_cast<float>(in.sum[s]), total);
      group_sum[g] = total;
    }
    part[k][lane] = row_chain<kWidth>(tile, lane, dots[k], in.scale, group_sum);
  }
  __syncthreads();
  if (threadIdx.x >= kRows) return;
  float total = 0;
  for (int e = 0; e < layer->num_chosen; ++e)
    total = FMA(layer->weight[e], part[e][threadIdx.x], total);
  y[blockIdx.x * kRows + threadIdx.x] = total;
}

__global__ void plain_read_kernel(const uint4* data, size_t count, uint32_t* out) {
  uint32_t sum = 0;
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += 4 * stride) {
    uint4 v[4] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (i + j * stride < count) v[j] = __ldcs(data + i + j * stride);
    }
    for (int j = 0; j < 4; ++j) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (sum == 0x12345678u) *out = sum;
}

// ── Harness
// ─────────────────────────────────────────────────────────────────────────────────────────
struct Bench {
  int num_layers, num_experts;
  std::vector<uint8_t> record;  // the host's copy of one expert; others are rotations of it
  uint8_t* bank = nullptr;
  Layer* layers = nullptr;
  RoundedX* x = nullptr;
  RoundedAct* act = nullptr;
  float* y = nullptr;
};

std::vector<uint8_t> random_bank(int num_experts, std::mt19937_64& rng) {
  std::vector<uint8_t> bytes(static_cast<size_t>(num_experts) * kExpertBytes);
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    const uint64_t word = rng();
    memcpy(bytes.data() + i, &word, 8);
  }
  std::uniform_real_distribution<float> scale(0.002f, 0.01f);
  for (size_t group = 0; group + kGroupBytes <= bytes.size(); group += kGroupBytes) {
    for (int r = 0; r < kRows; ++r) {
      const __half value = __float2half(scale(rng));
      memcpy(bytes.data() + group + 2 * r, &value, 2);
    }
  }
  return bytes;
}

void launch_layer(const Bench& b, int layer, int chosen, cudaStream_t stream) {
  gate_up_kernel<<<dim3(kWidth / 32, chosen), 512, 0, stream>>>(b.layers + layer, b.x, b.act);
  down_kernel<<<kHidden / kRows, 32 * chosen, 0, stream>>>(b.layers + layer, b.act, b.y);
}

double plain_read(const uint8_t* data, size_t bytes, cudaStream_t stream) {
  uint32_t* out;
  CUDA_OK(cudaMalloc(&out, 4));
  cudaEvent_t begin, end;
  CUDA_OK(cudaEventCreate(&begin));
  CUDA_OK(cudaEventCreate(&end));
  float best = 1e30f;
  for (int i = 0; i < 5; ++i) {
    CUDA_OK(cudaEventRecord(begin, stream));
    plain_read_kernel<<<132 * 16, 512, 0, stream>>>(reinterpret_cast<const uint4*>(data),
                                                    bytes / 16, out);
    CUDA_OK(cudaEventRecord(end, stream));
    CUDA_OK(cudaStreamSynchronize(stream));
    float ms = 0;
    CUDA_OK(cudaEventElapsedTime(&ms, begin, end));
    best = std::min(best, ms);
  }
  return static_cast<double>(bytes) / best * 1e3;
}

// Milliseconds of one pass over all layers, as a replayed graph; the median of 21.
float time_graph(const Bench& b, int chosen, cudaStream_t stream) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (int l = 0; l < b.num_layers; ++l) launch_layer(b, l, chosen, stream);
  CUDA_OK(cudaStreamEndCapture(stream, &graph));
  CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin, end;
  CUDA_OK(cudaEventCreate(&begin));
  CUDA_OK(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < 24; ++i) {
    CUDA_OK(cudaEventRecord(begin, stream));
    CUDA_OK(cudaGraphLaunch(exec, stream));
    CUDA_OK(cudaEventRecord(end, stream));
    CUDA_OK(cudaStreamSynchronize(stream));
    float ms = 0;
    CUDA_OK(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 3) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  Bench b;
  b.num_layers = argc > 1 ? std::atoi(argv[1]) : 48;
  b.num_experts = argc > 2 ? std::atoi(argv[2]) : 64;
  std::mt19937_64 rng(20261121);
  const std::vector<uint8_t> host_bank = random_bank(b.num_experts, rng);
  const size_t layer_bytes = host_bank.size();
  CUDA_OK(cudaMalloc(&b.bank, layer_bytes * static_cast<size_t>(b.num_layers)));
  for (int l = 0; l < b.num_layers; ++l) {
    CUDA_OK(cudaMemcpy(b.bank + layer_bytes * l, host_bank.data(), layer_bytes,
                       cudaMemcpyHostToDevice));
  }
  CUDA_OK(cudaMalloc(&b.layers, sizeof(Layer) * b.num_layers));
  CUDA_OK(cudaMalloc(&b.x, sizeof(RoundedX)));
  CUDA_OK(cudaMalloc(&b.act, sizeof(RoundedAct) * kMaxChosen));
  CUDA_OK(cudaMalloc(&b.y, sizeof(float) * kHidden));

  std::vector<float> x(kHidden);
  std::normal_distribution<float> normal;
  for (float& v : x) v = normal(rng);
  std::vector<RoundedX> rounded(1);
  round_host(x.data(), rounded[0]);
  CUDA_OK(cudaMemcpy(b.x, rounded.data(), sizeof(RoundedX), cudaMemcpyHostToDevice));

  std::vector<Layer> layers(static_cast<size_t>(b.num_layers));
  std::vector<const uint8_t*> first_layer;
  for (size_t l = 0; l < layers.size(); ++l) {
    std::vector<int> ids(static_cast<size_t>(b.num_experts));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int>(i);
    std::shuffle(ids.begin(), ids.end(), rng);
    layers[l].num_chosen = kMaxChosen;
    for (int k = 0; k < kMaxChosen; ++k) {
      const size_t offset = static_cast<size_t>(ids[static_cast<size_t>(k)]) * kExpertBytes;
      layers[l].expert[k] = b.bank + layer_bytes * l + offset;
      layers[l].weight[k] = 0.05f + 0.01f * static_cast<float>(k);
      if (l == 0) first_layer.push_back(host_bank.data() + offset);
    }
  }
  CUDA_OK(
      cudaMemcpy(b.layers, layers.data(), sizeof(Layer) * layers.size(), cudaMemcpyHostToDevice));

  cudaStream_t stream;
  CUDA_OK(cudaStreamCreate(&stream));
  CUDA_OK(cudaMemset(b.y, 0xff, sizeof(float) * kHidden));
  launch_layer(b, 0, kMaxChosen, stream);
  CUDA_OK(cudaGetLastError());
  CUDA_OK(cudaStreamSynchronize(stream));
  std::vector<float> got(kHidden), want(kHidden);
  CUDA_OK(cudaMemcpy(got.data(), b.y, sizeof(float) * kHidden, cudaMemcpyDeviceToHost));
  experts_host(first_layer, layers[0].weight, x.data(), want.data());
  int different = 0;
  for (int i = 0; i < kHidden; ++i) different += std::memcmp(&got[i], &want[i], 4) != 0;
  std::printf("bits: %d of %d values differ from the host (y[0] = %g, host %g)\n", different,
              kHidden, got[0], want[0]);

  const double ceiling =
      plain_read(b.bank, layer_bytes * static_cast<size_t>(b.num_layers), stream);
  std::printf("plain read of %.1f GB: %.0f GB/s\n\n",
              static_cast<double>(layer_bytes) * b.num_layers / 1e9, ceiling / 1e9);
  std::printf("| experts | us/layer | MB/layer | GB/s | of plain read |\n|---|---|---|---|---|\n");
  for (const int chosen : {1, 2, 3, 4, 6, 8, 10, 11}) {
    for (Layer& layer : layers) layer.num_chosen = chosen;
    CUDA_OK(
        cudaMemcpy(b.layers, layers.data(), sizeof(Layer) * layers.size(), cudaMemcpyHostToDevice));
    const double us = 1e3 * time_graph(b, chosen, stream) / b.num_layers;
    const double bytes = static_cast<double>(chosen) * kExpertBytes;
    std::printf("| %d | %.2f | %.2f | %.0f | %.0f %% |\n", chosen, us, bytes / 1e6,
                bytes / us / 1e3, 100 * bytes / us * 1e6 / ceiling);
  }
  return different == 0 ? 0 : 1;
}
