// SPDX-License-Identifier: Apache-2.0
// One walk over all views serves twice: once to size the device memory, once to copy and repoint.
#include "model/gpu_weights.h"

#include <unordered_map>

#include "base/checked_math.h"

namespace hotset {
namespace {

constexpr int64_t kAlignment = 256;

// Gives each piece of host memory its place on the device, once, however often it is met.
class Uploader {
 public:
  Uploader(cuda::Runtime* runtime, cuda::Stream stream, std::byte* base)
      : runtime_(runtime), stream_(stream), base_(base) {}

  template <typename T>
  void move(const T*& pointer, int64_t count) {
    if (pointer == nullptr || count == 0) return;
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    const auto [place, is_new] = places_.try_emplace(pointer, used_);
    if (is_new) {
      used_ += round_up(bytes, kAlignment);
      if (base_ != nullptr && status_) {
        status_ = runtime_->copy(base_ + place->second, pointer, bytes, stream_);
      }
    }
    if (base_ == nullptr) return;
    pointer = reinterpret_cast<const T*>(base_ + place->second);
  }
  void move(Vector& vector) {
    const float* data = vector.data();
    move(data, std::ssize(vector));
    vector = Vector(data, vector.size());
  }
  void move_encoding(PackedMatrix& matrix) {
    move(matrix.codebook, 16);
    move(matrix.input_order, matrix.cols);
  }
  void move(PackedMatrix& matrix) {
    if (matrix.data == nullptr) return;  // the other mixer's
    move_encoding(matrix);
    move(matrix.data, matrix.bytes());
  }
  void move(ExpertView& expert) {
    move(expert.gate);
    move(expert.up);
    move(expert.down);
  }

  [[nodiscard]] int64_t used() const { return used_; }
  [[nodiscard]] const Status& status() const { return status_; }

 private:
  cuda::Runtime* runtime_;
  cuda::Stream stream_;
  std::byte* base_;
  int64_t used_ = 0;
  Status status_;
  std::unordered_map<const void*, int64_t> places_;
};

void leave_in_host_memory(Uploader& up, PackedMatrix& matrix) {
  up.move_encoding(matrix);
  matrix.data = nullptr;
}

void move_layer(Uploader& up, LayerWeights& layer) {
  LinearAttentionWeights& linear = layer.linear_attention;
  FullAttentionWeights& full = layer.full_attention;
  for (PackedMatrix* matrix :
       {&linear.in_proj_qkvz, &linear.in_proj_ba, &linear.out_proj, &full.q_proj, &full.k_proj,
        &full.v_proj, &full.o_proj, &layer.router, &layer.shared_expert_gate}) {
    up.move(*matrix);
  }
  for (Vector* vector : {&linear.conv1d, &linear.a_log, &linear.dt_bias, &linear.norm, &full.q_norm,
                         &full.k_norm, &layer.input_layernorm, &layer.post_attention_layernorm}) {
    up.move(*vector);
  }
  // The last one is the shared expert or the dense MLP; those before it are routed.
  for (size_t e = 0; e + 1 < layer.experts.size(); ++e) {
    ExpertView& expert = layer.experts[e];
    for (PackedMatrix* matrix : {&expert.gate, &expert.up, &expert.down}) {
      leave_in_host_memory(up, *matrix);
    }
  }
  up.move(layer.experts.back());
}

void move_model(Uploader& up, ModelWeights& views, EmbeddingPlace place) {
  const bool tied = views.lm_head.data == views.embed_tokens.data;
  if (place == EmbeddingPlace::kDevice) {
    up.move(views.embed_tokens);
  } else {
    up.move_encoding(views.embed_tokens);
  }
  up.move(views.lm_head);
  if (tied) views.embed_tokens.data = views.lm_head.data;
  up.move(views.norm);
  for (LayerWeights& layer : views.layers) move_layer(up, layer);
}

std::unique_ptr<ModelWeights> copy_views(const ModelWeights& host) {
  auto views = std::make_unique<ModelWeights>();
  views->embed_tokens = host.embed_tokens;
  views->lm_head = host.lm_head;
  views->norm = host.norm;
  views->layers = host.layers;
  return views;
}

}  // namespace

int64_t gpu_weight_bytes(const ModelWeights& host, EmbeddingPlace place) {
  const std::unique_ptr<ModelWeights> views = copy_views(host);
  Uploader sizer(nullptr, {}, nullptr);
  move_model(sizer, *views, place);
  return sizer.used();
}

Result<GpuWeights> upload_weights(cuda::Runtime& runtime, cuda::Stream stream,
                                  const ModelWeights& host, EmbeddingPlace place) {
  GpuWeights gpu;
  HS_ASSIGN_OR_RETURN(gpu.memory,
                      cuda::DeviceMemory::allocate(runtime, gpu_weight_bytes(host, place)));
  gpu.views = copy_views(host);
  Uploader uploader(&runtime, stream, gpu.memory.data());
  move_model(uploader, *gpu.views, place);
  HS_RETURN_IF_ERROR(uploader.status());
  HS_RETURN_IF_ERROR(runtime.synchronize(stream));
  return gpu;
}

}  // namespace hotset
