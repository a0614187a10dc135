// SPDX-License-Identifier: Apache-2.0
// From a linear in a checkpoint to the packed form of quant/packed_matrix.h.
//
// plan_packed() sizes the result from headers (and reads g_idx only where desc_act says the inputs
// are out of order); pack_linear() reads the tensors and writes the tiles. Codes and scales are
// bit-exact unless options say otherwise. Shapes that the tile form cannot express become kF32, and
// the plan says so.
//
//   file ──pread──▶ PackScratch (one per thread, reused) ──pack──▶ dst (the caller's, final place)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/linear_source.h"
#include "quant/int8.h"
#include "quant/packed_matrix.h"

namespace hotset {

struct PackOptions {
  // Plain 16-bit (or fp32) linears become kInt8 with one fp16 scale per 128 columns: half the bytes
  // and not bit-exact. PackAux::loss says what it cost.
  bool keep_16bit_at_8 = false;
  // The fp32 scales of codebooks become halves: 5.6 % fewer bytes with blocks of 64. Those that
  // were bf16 or fp16 weights are held exactly, doubly quantised ones to 2^-11 of themselves.
  bool codebook_scales_at_16 = false;
};

struct PackPlan {
  PackedShape shape;
  std::string note;              // empty, or why the packed form is not the stored one
  bool reorders_inputs = false;  // PackedMatrix::input_order will be there
};

// What requantising cost; zero unless something was requantised.
struct PackLoss : RequantLoss {
  [[nodiscard]] double relative_max() const;  // largest error over largest weight
  [[nodiscard]] double relative_rms() const;  // rms error over rms weight
  void add(const PackLoss& other);
};

// What belongs to a packed matrix beside its tiles; the caller keeps it as long as the matrix.
struct PackAux {
  std::array<float, 16> codebook{};  // kCodebook4
  std::vector<int32_t> input_order;  // empty: identity (PackedMatrix::input_order = null)
  PackLoss loss;

  void join(PackAux&& next_part);  // the parts of a linear, in order
};

// Memory that only grows and is never cleared: what is read into it overwrites it.
class PackBuffer {
 public:
  [[nodiscard]] std::span<std::byte> room(int64_t bytes);  // drops what room() gave before
  [[nodiscard]] std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* data) const { ::operator delete (data, std::align_val_t{4096}); }
  };
  std::unique_ptr<std::byte, Free> data_;
  int64_t size_ = 0;
};

// Reused buffers; one per thread.
struct PackScratch {
  PackBuffer weight;
  PackBuffer scales;
  PackBuffer zeros;
  std::vector<float> floats;
};

[[nodiscard]] Result<PackPlan> plan_packed(const Checkpoint& checkpoint, const LinearSource& source,
                                           const PackOptions& options = {});

// A large linear is packed in parts, which threads can share: how many does not depend on the
// number of threads, so that joined losses are the same whoever packed what.
[[nodiscard]] int64_t num_pack_parts(const LinearSource& source, const PackPlan& plan);

// `dst`: the whole matrix, as for pack_linear. `aux` is overwritten with this part's.
[[nodiscard]] Status pack_linear_part(const Checkpoint& checkpoint, const LinearSource& source,
                                      const PackPlan& plan, int64_t part, std::span<std::byte> dst,
                                      PackScratch& scratch, PackAux& aux);

// `dst`: plan.shape.bytes() bytes, 64-byte aligned; every byte is written. `aux` is overwritten.
// Thread-safe for distinct dst, scratch and aux.
[[nodiscard]] Status pack_linear(const Checkpoint& checkpoint, const LinearSource& source,
                                 const PackPlan& plan, std::span<std::byte> dst,
                                 PackScratch& scratch, PackAux& aux);

// The view that kernels take. `data` and `aux` outlive it.
[[nodiscard]] PackedMatrix packed_view(const PackPlan& plan, const std::byte* data,
                                       const PackAux& aux);

}  // namespace hotset
