// SPDX-License-Identifier: Apache-2.0
#include "model/golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "checkpoint/safetensors.h"

namespace hotset::golden {
namespace {

std::vector<double> log_softmax(std::span<const float> row) {
  const double top = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float v : row) sum += std::exp(v - top);
  const double log_sum = top + std::log(sum);
  std::vector<double> out(row.begin(), row.end());
  for (double& v : out) v -= log_sum;
  return out;
}

}  // namespace

std::map<std::string, Tensor> load(const std::string& path) {
  std::map<std::string, Tensor> tensors;
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto size = static_cast<int64_t>(bytes.size());
  const auto head = std::as_bytes(std::span(bytes)).first(std::min<size_t>(8, bytes.size()));
  const auto length = safetensors_header_length(head, size, path);
  if (!length) {
    ADD_FAILURE() << length.error().message;
    return tensors;
  }
  const auto header = SafetensorsHeader::parse(
      std::string_view(bytes).substr(8, static_cast<size_t>(*length)), size, path);
  if (!header) {
    ADD_FAILURE() << header.error().message;
    return tensors;
  }
  for (const TensorInfo& info : header->tensors) {
    Tensor& tensor = tensors[info.name];
    tensor.shape = info.shape;
    const auto count = static_cast<size_t>(info.numel());
    const char* from = bytes.data() + info.offset;
    if (info.dtype == DType::kF32) {
      tensor.floats.resize(count);
      std::memcpy(tensor.floats.data(), from, count * sizeof(float));
    } else if (info.dtype == DType::kI32) {
      tensor.ints.resize(count);
      std::memcpy(tensor.ints.data(), from, count * sizeof(int32_t));
    }
  }
  return tensors;
}

LogitDifference compare_logits(std::span<const float> want, std::span<const float> got,
                               int64_t vocab) {
  LogitDifference out;
  EXPECT_EQ(want.size(), got.size());
  const auto width = static_cast<size_t>(vocab);
  out.num_rows = static_cast<int64_t>(want.size() / width);
  int64_t agreed = 0, agreed_or_tied = 0;
  for (int64_t row = 0; row < out.num_rows; ++row) {
    const auto a = want.subspan(static_cast<size_t>(row) * width, width);
    const auto b = got.subspan(static_cast<size_t>(row) * width, width);
    for (size_t i = 0; i < width; ++i) {
      const double difference = std::fabs(double{a[i]} - double{b[i]});
      if (!(difference <= out.max_abs)) {  // a NaN counts as the worst
        out.max_abs = difference;
        out.worst_row = row;
      }
    }
    const std::vector<double> p = log_softmax(a);
    const std::vector<double> q = log_softmax(b);
    double kl = 0;
    for (size_t i = 0; i < width; ++i) kl += std::exp(p[i]) * (p[i] - q[i]);
    out.mean_kl += kl;
    out.max_kl = std::max(out.max_kl, kl);
    const auto top = [](std::span<const float> r) {
      return static_cast<size_t>(std::max_element(r.begin(), r.end()) - r.begin());
    };
    agreed += top(a) == top(b) ? 1 : 0;
    agreed_or_tied += double{a[top(a)]} - double{a[top(b)]} <= kTie ? 1 : 0;
  }
  const auto rows = static_cast<double>(std::max<int64_t>(1, out.num_rows));
  out.mean_kl /= rows;
  out.top1 = static_cast<double>(agreed) / rows;
  out.top1_or_tie = static_cast<double>(agreed_or_tied) / rows;
  return out;
}

}  // namespace hotset::golden
