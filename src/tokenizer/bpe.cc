// SPDX-License-Identifier: Apache-2.0
// Two ways to the same result: a scan for the lowest rank (pieces up to kShortPiece bytes) and a
// heap over a linked list.
#include "tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "base/check.h"
#include "tokenizer/byte_hash.h"

namespace hotset {
namespace {

constexpr size_t kShortPiece = 48;
constexpr uint32_t kEnd = UINT32_MAX;

uint64_t pair_key(int32_t left, int32_t right) {
  return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
}

// A symbol of merge_long: it starts at its own index, id -1 once it was merged into its left one.
struct Symbol {
  int32_t id;
  uint32_t previous;
  uint32_t next;
  uint32_t rank;  // of the pair with the next symbol; an entry of the heap with another is stale
};

}  // namespace

Bpe::Bpe(const std::array<int32_t, 256>& byte_ids, size_t merges)
    : byte_ids_(byte_ids), table_(std::bit_ceil(2 * std::max(merges, size_t{8}))) {}

Status Bpe::add_merge(int32_t left, int32_t right, int32_t merged) {
  const uint64_t key = pair_key(left, right);
  size_t at = mix_hash(key) & (table_.size() - 1);
  for (size_t probes = 0; table_[at].pair != kNoPair; ++probes) {
    if (table_[at].pair == key) return fail("the pair has been merged before");
    if (probes == kMaxProbes) return fail("the merges are chosen to collide in a hash table");
    at = (at + 1) & (table_.size() - 1);
  }
  table_[at] = {key, merges_++, merged};
  return {};
}

const Bpe::Merge& Bpe::find(int32_t left, int32_t right) const {
  const uint64_t key = pair_key(left, right);
  size_t at = mix_hash(key) & (table_.size() - 1);
  while (table_[at].pair != key && table_[at].pair != kNoPair) at = (at + 1) & (table_.size() - 1);
  return table_[at];
}

void Bpe::merge(std::string_view piece, std::vector<int32_t>& out) const {
  if (piece.size() == 1) {
    out.push_back(byte_ids_[static_cast<uint8_t>(piece[0])]);
  } else if (piece.size() <= kShortPiece) {
    merge_short(piece, out);
  } else {
    merge_long(piece, out);
  }
}

void Bpe::merge_short(std::string_view piece, std::vector<int32_t>& out) const {
  std::array<int32_t, kShortPiece> ids;
  std::array<uint32_t, kShortPiece> ranks{};  // of (i, i + 1)
  std::array<int32_t, kShortPiece> results;   // what that pair becomes
  size_t count = piece.size();
  const auto look_up = [&](size_t i) {
    const Merge& merge = find(ids[i], ids[i + 1]);
    ranks[i] = merge.rank;
    results[i] = merge.id;
  };
  for (size_t i = 0; i < count; ++i) ids[i] = byte_ids_[static_cast<uint8_t>(piece[i])];
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNoRank) break;
    ids[best] = results[best];
    --count;
    for (size_t i = best + 1; i < count; ++i) ids[i] = ids[i + 1];
    for (size_t i = best + 1; i + 1 < count; ++i) {
      ranks[i] = ranks[i + 1];
      results[i] = results[i + 1];
    }
    if (best + 1 < count) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count));
}

void Bpe::merge_long(std::string_view piece, std::vector<int32_t>& out) const {
  HS_CHECK(piece.size() < kEnd, "a piece of {} bytes", piece.size());
  const auto count = static_cast<uint32_t>(piece.size());
  std::vector<Symbol> symbols(count);
  std::vector<uint64_t> heap;  // rank << 32 | index: the lowest rank, then the leftmost
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t next = i + 1 == count ? kEnd : i + 1;
    symbols[i] = {byte_ids_[static_cast<uint8_t>(piece[i])], i == 0 ? kEnd : i - 1, next, kNoRank};
  }
  const auto look_up = [&](uint32_t i) {
    const uint32_t next = symbols[i].next;
    symbols[i].rank = next == kEnd ? kNoRank : find(symbols[i].id, symbols[next].id).rank;
    return symbols[i].rank != kNoRank;
  };
  const auto entry = [&](uint32_t i) { return (uint64_t{symbols[i].rank} << 32) | i; };
  const auto push = [&](uint32_t i) {
    if (!look_up(i)) return;
    heap.push_back(entry(i));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (uint32_t i = 0; i < count; ++i) {
    if (look_up(i)) heap.push_back(entry(i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t top = heap.back();
    heap.pop_back();
    const auto at = static_cast<uint32_t>(top);
    Symbol& left = symbols[at];
    if (left.id < 0 || left.rank != static_cast<uint32_t>(top >> 32)) continue;
    Symbol& right = symbols[left.next];
    left.id = find(left.id, right.id).id;
    right.id = -1;
    left.next = right.next;
    if (left.next != kEnd) symbols[left.next].previous = at;
    push(at);
    if (left.previous != kEnd) push(left.previous);
  }
  for (uint32_t i = 0; i != kEnd; i = symbols[i].next) out.push_back(symbols[i].id);
}

}  // namespace hotset
