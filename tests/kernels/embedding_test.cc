// SPDX-License-Identifier: Apache-2.0
// Rows of a packed table come back as they went in, in the order of the ids.
#include "kernels/embedding.h"

#include "kernels/op_testing.h"

namespace hotset {
namespace {

TEST(Embedding, GathersRows) {
  const int64_t rows = 37, cols = 20;
  testing::Numbers numbers(1);
  const auto values = numbers.normal(rows * cols);
  const PackedShape shape = plain_shape(CodeKind::kF32, rows, cols);
  std::vector<std::byte> bytes(shape.bytes());
  pack_rows(shape, values.data(), 0, rows, bytes.data());
  PackedMatrix table;
  static_cast<PackedShape&>(table) = shape;
  table.data = bytes.data();
  const std::vector<int32_t> ids = {36, 0, 5, 5, 16};
  testing::for_each_isa([&](cpu::Queue& queue, const std::string&) {
    std::vector<float> out(ids.size() * cols);
    embed(queue, table, ids, out.data());
    for (size_t t = 0; t < ids.size(); ++t) {
      for (int64_t c = 0; c < cols; ++c) EXPECT_EQ(out[t * cols + c], values[ids[t] * cols + c]);
    }
  });
}

}  // namespace
}  // namespace hotset
