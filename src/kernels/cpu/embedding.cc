// SPDX-License-Identifier: Apache-2.0
#include "kernels/embedding.h"

#include "base/check.h"
#include "kernels/cpu/parallel.h"

namespace hotset {

// A row is a strided walk through one tile of the packed table; at some microseconds a token the
// scalar codec is no cost against a layer.
void embed(cpu::Queue& queue, const PackedMatrix& table, std::span<const int32_t> ids, float* out) {
  cpu::for_shares(queue, std::ssize(ids), 8 * table.cols, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t id = ids[static_cast<size_t>(t)];
      HS_CHECK(id >= 0 && id < table.rows, "token id {} of a table of {} rows", id, table.rows);
      dequantize_row(table, id, {out + t * table.cols, static_cast<size_t>(table.cols)});
    }
  });
}

}  // namespace hotset
