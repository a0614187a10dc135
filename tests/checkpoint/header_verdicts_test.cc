// SPDX-License-Identifier: Apache-2.0
// Our verdict on each handmade file against the reference reader's
// (golden/checkpoint/verdicts.json, made by tools/checkpoint/make_verdicts.py from the Rust
// implementation). Files that only we refuse are listed below with the reason; a list entry that no
// longer differs is an error too.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "checkpoint/header_cases.h"
#include "checkpoint/safetensors.h"

namespace hotset {
namespace {

struct Stricter {
  const char* prefix;  // of the case's name
  const char* why;
};
constexpr const char* kHuge =
    "a dimension of 2^63 or more beside a zero one: sizes are signed here";
constexpr Stricter kStricter[] = {
    {"number-14-shape-before-zero", kHuge},
    {"number-14-shape-after-zero", kHuge},
    {"number-15-shape-before-zero", kHuge},
    {"number-15-shape-after-zero", kHuge},
    {"number-16-shape-before-zero", kHuge},
    {"number-16-shape-after-zero", kHuge},
    {"number-17-shape-before-zero", kHuge},
    {"number-17-shape-after-zero", kHuge},
    {"dtype-as-object",
     "a dtype is text in the format; an object is an accident of the reference's decoder"},
    {"field-dup-tensor", "the format forbids a name twice; the reference keeps the last"},
    {"field-extra", "an unknown field may change what the bytes mean"},
    {"field-positional",
     "an entry is an object in the format; an array is an accident of the decoder"},
    {"text-space-before-", "the format says that the header begins with {"},
};

Status read(const std::string& file) {
  const auto bytes = std::as_bytes(std::span(file));
  const auto size = static_cast<int64_t>(file.size());
  const size_t prefix = std::min<size_t>(8, file.size());
  HS_ASSIGN_OR_RETURN(const int64_t length,
                      safetensors_header_length(bytes.first(prefix), size, "case.safetensors"));
  const std::string json = file.substr(8, static_cast<size_t>(length));
  HS_ASSIGN_OR_RETURN(const auto header, SafetensorsHeader::parse(json, size, "case.safetensors"));
  for (const TensorInfo& tensor : header.tensors) {
    if (tensor.offset < 8 + length || tensor.offset + tensor.bytes > size) {
      return fail("accepted, but a tensor lies outside of the file");
    }
  }
  return {};
}

const Stricter* stricter_entry(const std::string& name) {
  const auto at = std::find_if(std::begin(kStricter), std::end(kStricter),
                               [&](const Stricter& s) { return name.starts_with(s.prefix); });
  return at == std::end(kStricter) ? nullptr : at;
}

TEST(HeaderVerdicts, AgreeWithTheReference) {
  const auto golden = nlohmann::json::parse(std::ifstream("golden/checkpoint/verdicts.json"));
  const auto& verdicts = golden["accepted"];
  const auto cases = header_cases();
  EXPECT_GE(cases.size(), 400u);
  EXPECT_EQ(verdicts.size(), cases.size()) << "make the verdicts anew";
  std::set<std::string> names;
  std::set<const char*> used;
  size_t accepted = 0;
  for (const HeaderCase& one : cases) {
    SCOPED_TRACE(one.name);
    ASSERT_TRUE(names.insert(one.name).second);
    ASSERT_TRUE(verdicts.contains(one.name)) << "make the verdicts anew";
    const bool reference = verdicts[one.name];
    const Status ours = read(one.file);
    accepted += ours.has_value();
    if (ours.has_value() == reference) continue;
    const Stricter* listed = stricter_entry(one.name);
    EXPECT_TRUE(reference && listed != nullptr)
        << "reference " << (reference ? "accepts" : "refuses") << "; we "
        << (ours ? "accept" : "refuse: " + ours.error().message);
    if (listed != nullptr) used.insert(listed->prefix);
  }
  EXPECT_GE(accepted, 100u);
  for (const Stricter& s : kStricter) EXPECT_TRUE(used.contains(s.prefix)) << s.prefix;
}

TEST(HeaderVerdicts, RefusalsNameFileAndAreQuick) {
  for (const HeaderCase& one : header_cases()) {
    SCOPED_TRACE(one.name);
    const auto begin = std::chrono::steady_clock::now();
    const Status ours = read(one.file);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(took.count(), 1.0);
    if (ours) continue;
    EXPECT_TRUE(ours.error().message.starts_with("case.safetensors: ")) << ours.error().message;
    EXPECT_LT(ours.error().message.size(), 2000u);
    if (one.name.starts_with("number-") || one.name.starts_with("dtype-")) {
      // A number JSON itself does not know is refused by the parser; all others name the tensor.
      const bool names_tensor = ours.error().message.find("tensor '") != std::string::npos;
      const bool not_json = ours.error().message.find("header: ") != std::string::npos;
      EXPECT_TRUE(names_tensor || not_json || one.name.find("trailing") != std::string::npos)
          << ours.error().message;
    }
  }
}

}  // namespace
}  // namespace hotset
