// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/header_cases.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <string_view>

namespace hotset {
namespace {

using Cases = std::vector<HeaderCase>;

std::string prefix(uint64_t length) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(length >> (8 * i));
  return out;
}

std::string file(std::string_view header, size_t data_bytes) {
  return prefix(header.size()) + std::string(header) + std::string(data_bytes, 'x');
}

std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                  std::string_view begin, std::string_view end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", name, dtype,
                     shape, begin, end);
}

std::string entry(std::string_view name, int64_t begin, int64_t end) {  // bytes
  return entry(name, "U8", std::to_string(end - begin), std::to_string(begin), std::to_string(end));
}

void add(Cases& cases, std::string name, std::string_view header, size_t data_bytes) {
  cases.push_back({std::move(name), file(header, data_bytes)});
}

// Numbers and things in place of numbers.
constexpr std::array kNumbers = {"0",
                                 "1",
                                 "2",
                                 "8",
                                 "2147483647",
                                 "2147483648",
                                 "2147483649",
                                 "4294967295",
                                 "4294967296",
                                 "4294967297",
                                 "9007199254740993",
                                 "2305843009213693952",
                                 "4611686018427387904",
                                 "9223372036854775807",
                                 "9223372036854775808",
                                 "9223372036854775809",
                                 "18446744073709551614",
                                 "18446744073709551615",
                                 "18446744073709551616",
                                 "1000000000000000000000000000000",
                                 "-0",
                                 "-1",
                                 "-9223372036854775808",
                                 "1.0",
                                 "1e0",
                                 "8E0",
                                 "1.5",
                                 "1e400",
                                 "-0.0",
                                 "01",
                                 "+1",
                                 "0x1",
                                 "1.",
                                 ".5",
                                 "NaN",
                                 "Infinity",
                                 "\"1\"",
                                 "true",
                                 "null",
                                 "[1]",
                                 "{}",
                                 "",
                                 " 8 ",
                                 "8,"};

void add_numbers(Cases& cases) {
  for (size_t i = 0; i < kNumbers.size(); ++i) {
    const std::string n = kNumbers[i];
    const auto put = [&](const char* field, const std::string& header) {
      add(cases, fmt::format("number-{:02}-{}", i, field), "{" + header + "}", 8);
    };
    put("shape", entry("a", "U8", n, "0", "8"));
    put("shape-wide", entry("a", "F64", n, "0", "8"));
    put("shape-before-zero", entry("a", "U8", n + ",0", "0", "0") + "," + entry("b", 0, 8));
    put("shape-after-zero", entry("a", "U8", "0," + n, "0", "0") + "," + entry("b", 0, 8));
    put("shape-product", entry("a", "U8", n + ",8," + n, "0", "8"));
    put("begin", entry("a", "U8", "8", n, "8"));
    put("end", entry("a", "U8", "8", "0", n));
    put("both", entry("a", "U8", "0", n, n) + "," + entry("b", 0, 8));
  }
}

constexpr std::array kDTypeNames = {
    "BOOL",        "U8",  "I8",  "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "U16",
    "F8_E5M2FNUZ", "I16", "F16", "BF16",    "U32",     "I32",     "F32",         "U64",
    "I64",         "F64", "C64", "F4",      "F6_E2M3", "F6_E3M2"};
constexpr std::array kDTypeBits = {8,  8,  8,  8,  8,  8,  8,  16, 8, 16, 16,
                                   16, 32, 32, 32, 64, 64, 64, 64, 4, 6,  6};

void add_dtypes(Cases& cases) {
  for (size_t i = 0; i < kDTypeNames.size(); ++i) {
    for (const int count : {0, 1, 2, 3, 4, 5}) {
      const int bytes = count * kDTypeBits[i] / 8;
      for (const int off : {0, 1, -1}) {
        if (bytes + off < 0) continue;
        const auto end = std::to_string(bytes + off);
        add(cases, fmt::format("dtype-{}-x{}-off{}", kDTypeNames[i], count, off),
            "{" + entry("a", kDTypeNames[i], std::to_string(count), "0", end) + "}",
            static_cast<size_t>(bytes + off));
      }
    }
    const auto bytes = static_cast<size_t>(kDTypeBits[i]);  // eight elements
    add(cases, fmt::format("dtype-{}-scalar", kDTypeNames[i]),
        "{" + entry("a", kDTypeNames[i], "", "0", std::to_string(bytes / 8)) + "}", bytes / 8);
    add(cases, fmt::format("dtype-{}-cube", kDTypeNames[i]),
        "{" + entry("a", kDTypeNames[i], "2,2,2", "0", std::to_string(bytes)) + "}", bytes);
  }
  for (const char* dtype : {"", "f32", "F33", "F32 ", "FLOAT", "F8", "E4M3", "U4", "I128",
                            "F\\u0033"
                            "2"}) {
    add(cases, fmt::format("dtype-unknown-{}", cases.size()),
        "{" + entry("a", dtype, "2", "0", "8") + "}", 8);
  }
  for (const char* dtype : {"null", "32", "[\"F32\"]", "{}", "true"}) {
    add(cases, fmt::format("dtype-not-text-{}", cases.size()),
        fmt::format(R"({{"a":{{"dtype":{},"shape":[2],"data_offsets":[0,8]}}}})", dtype), 8);
  }
}

void add_variant_dtype(Cases& cases) {
  add(cases, "dtype-as-object", R"({"a":{"dtype":{"F32":null},"shape":[2],"data_offsets":[0,8]}})",
      8);
}

void add_lengths(Cases& cases) {
  const std::string header = "{" + entry("a", 0, 8) + "}";
  for (size_t size = 0; size <= 10; ++size) {
    cases.push_back({fmt::format("short-{}", size), file(header, 8).substr(0, size)});
  }
  for (const int64_t off : {-9, -2, -1, 1, 2, 8, 9, 100}) {
    const auto length = static_cast<uint64_t>(static_cast<int64_t>(header.size()) + off);
    cases.push_back(
        {fmt::format("length-off-{}", off), prefix(length) + header + std::string(8, 'x')});
  }
  for (const uint64_t length :
       {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{99'999'999}, uint64_t{100'000'000},
        uint64_t{100'000'001}, uint64_t{1} << 31, uint64_t{1} << 32, (uint64_t{1} << 63) - 1,
        uint64_t{1} << 63, UINT64_MAX - 8, UINT64_MAX - 7, UINT64_MAX}) {
    cases.push_back(
        {fmt::format("length-{}", length), prefix(length) + header + std::string(8, 'x')});
  }
  for (const char* empty : {"", " ", "{}", "{} ", "[]", "null", "\"a\"", "1", "{", "}"}) {
    for (const size_t data : {size_t{0}, size_t{1}}) {
      add(cases, fmt::format("whole-header-{}", cases.size()), empty, data);
    }
  }
}

void add_tilings(Cases& cases) {
  const auto put = [&](const char* name, std::vector<std::string> entries, size_t data) {
    add(cases, fmt::format("tiling-{}", name), fmt::format("{{{}}}", fmt::join(entries, ",")),
        data);
  };
  put("two", {entry("a", 0, 8), entry("b", 8, 16)}, 16);
  put("two-reversed", {entry("b", 8, 16), entry("a", 0, 8)}, 16);
  put("trailing-1", {entry("a", 0, 8)}, 9);
  put("trailing-8", {entry("a", 0, 8)}, 16);
  put("missing-1", {entry("a", 0, 8)}, 7);
  put("missing-all", {entry("a", 0, 8)}, 0);
  put("hole", {entry("a", 0, 8), entry("b", 9, 17)}, 17);
  put("hole-first", {entry("a", 1, 9)}, 9);
  put("overlap", {entry("a", 0, 8), entry("b", 7, 15)}, 15);
  put("same", {entry("a", 0, 8), entry("b", 0, 8)}, 8);
  put("same-double-data", {entry("a", 0, 8), entry("b", 0, 8)}, 16);
  put("inside", {entry("a", 0, 16), entry("b", 4, 8)}, 16);
  put("inside-end", {entry("a", 0, 16), entry("b", 8, 16)}, 16);
  put("backwards", {entry("a", "U8", "8", "8", "0")}, 8);
  put("empty-first", {entry("e", 0, 0), entry("a", 0, 8)}, 8);
  put("empty-second", {entry("a", 0, 8), entry("e", 0, 0)}, 8);
  put("empty-between", {entry("a", 0, 8), entry("e", 8, 8), entry("b", 8, 16)}, 16);
  put("empty-inside", {entry("a", 0, 8), entry("e", 4, 4)}, 8);
  put("empty-end", {entry("a", 0, 8), entry("e", 8, 8)}, 8);
  put("empty-past-end", {entry("a", 0, 8), entry("e", 9, 9)}, 8);
  put("empty-many", {entry("e", 0, 0), entry("f", 0, 0), entry("g", 0, 0)}, 0);
  put("empty-only-trailing", {entry("e", 0, 0)}, 1);
  put("scalar", {entry("s", "F32", "", "0", "4")}, 4);
  put("one-offset", {R"("a":{"dtype":"U8","shape":[8],"data_offsets":[8]})"}, 8);
  put("three-offsets", {R"("a":{"dtype":"U8","shape":[8],"data_offsets":[0,8,8]})"}, 8);
  put("no-offsets", {R"("a":{"dtype":"U8","shape":[0],"data_offsets":[]})"}, 0);
  put("offsets-object", {R"("a":{"dtype":"U8","shape":[8],"data_offsets":{"0":8}})"}, 8);
  put("shape-number", {R"("a":{"dtype":"U8","shape":8,"data_offsets":[0,8]})"}, 8);
  put("shape-null", {R"("a":{"dtype":"U8","shape":null,"data_offsets":[0,8]})"}, 8);
  std::string dims = "8";
  for (int i = 0; i < 1000; ++i) dims += ",1";
  put("thousand-dims", {entry("a", "U8", dims, "0", "8")}, 8);
  std::string twos = "2";
  for (int i = 0; i < 63; ++i) twos += ",2";
  put("product-is-2-64", {entry("a", "U8", twos, "0", "0")}, 0);
  put("product-wraps-to-8", {entry("a", "U8", "4294967296,4294967296,8", "0", "8")}, 8);
}

void add_fields(Cases& cases) {
  const auto put = [&](const char* name, const char* header) {
    add(cases, fmt::format("field-{}", name), header, 8);
  };
  put("dup-tensor",
      R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})");
  put("dup-tensor-escaped",
      R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"\u0061":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})");
  put("dup-dtype", R"({"a":{"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]}})");
  put("dup-shape", R"({"a":{"dtype":"U8","shape":[8],"shape":[8],"data_offsets":[0,8]}})");
  put("dup-offsets",
      R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"data_offsets":[0,8]}})");
  put("no-dtype", R"({"a":{"shape":[8],"data_offsets":[0,8]}})");
  put("no-shape", R"({"a":{"dtype":"U8","data_offsets":[0,8]}})");
  put("no-data-offsets", R"({"a":{"dtype":"U8","shape":[8]}})");
  put("extra", R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"strides":[1]}})");
  put("extra-empty", R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"":0}})");
  put("order", R"({"a":{"data_offsets":[0,8],"shape":[8],"dtype":"U8"}})");
  put("case", R"({"a":{"DType":"U8","shape":[8],"data_offsets":[0,8]}})");
  put("positional", R"({"a":["U8",[8],[0,8]]})");
  put("tensor-null", R"({"a":null})");
  put("tensor-text", R"({"a":"U8"})");
  const std::string a = entry("a", 0, 8);
  int number = 0;
  for (const char* metadata :
       {"{}", "null", R"({"format":"pt"})", R"({"a":1})", R"({"a":null})", R"({"a":{}})",
        R"({"a":["b"]})", R"({"a":true})", "[]", "1", "\"x\"", R"({"a":"1","a":"2"})", R"({"":""})",
        R"({"a":"\ud83d\ude00"})", R"({"a":"\ud83d"})", R"([["a","b"]])",
        R"({"dtype":"U8","shape":[8],"data_offsets":[0,8]})"}) {
    add(cases, fmt::format("metadata-{}", number++),
        fmt::format(R"({{"__metadata__":{},{}}})", metadata, a), 8);
  }
  add(cases, "metadata-twice", R"({"__metadata__":{},"__metadata__":{},)" + a + "}", 8);
  add(cases, "metadata-last", "{" + a + R"(,"__metadata__":{"k":"v"}})", 8);
  add(cases, "metadata-only", R"({"__metadata__":{"k":"v"}})", 0);
}

void add_texts(Cases& cases) {
  const std::string a = entry("a", 0, 8);
  const auto put = [&](std::string name, const std::string& header) {
    add(cases, "text-" + std::move(name), header, 8);
  };
  put("bom", "\xef\xbb\xbf{" + a + "}");
  for (const char* space : {" ", "\n", "\t", "\r", "   "}) {
    put(fmt::format("space-before-{}-{}", static_cast<int>(space[0]), std::string(space).size()),
        space + ("{" + a + "}"));
    put(fmt::format("space-after-{}-{}", static_cast<int>(space[0]), std::string(space).size()),
        "{" + a + "}" + space);
    put(fmt::format("space-within-{}-{}", static_cast<int>(space[0]), std::string(space).size()),
        "{" + (space + a) + space + "}");
  }
  put("nul-after", "{" + a + "}" + std::string(1, '\0'));
  put("garbage-after", "{" + a + "}x");
  put("second-object", "{" + a + "}{}");
  put("comma-after", "{" + a + "},");
  put("trailing-comma", "{" + a + ",}");
  put("leading-comma", "{," + a + "}");
  put("double-comma", "{" + a + ",," + entry("b", 8, 8) + "}");
  put("comment", "{/**/" + a + "}");
  put("line-comment", "{" + a + "}//");
  put("unclosed", "{" + a);
  put("extra-close", "{" + a + "}}");
  put("wrong-close", "{" + a + "]");
  put("single-quotes", R"({'a':{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})");
  put("bare-key", R"({a:{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})");
  put("number-key", R"({1:{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})");
  put("no-colon", R"({"a"{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})");
  const std::array<std::string, 24> names = {"",
                                             "\xff",
                                             "\xc0\xaf",
                                             "\xed\xa0\x80",
                                             "\xf4\x90\x80\x80",
                                             "\xc3",
                                             "\xe2\x82",
                                             "\x80",
                                             "\xc3\xa9",
                                             "\xf0\x9f\x98\x80",
                                             "\\ud800",
                                             "\\udc00",
                                             "\\ud800\\ud800",
                                             "\\ud83d\\ude00",
                                             "\\u0000",
                                             "\\u00zz",
                                             "\\x41",
                                             "\\",
                                             "\n",
                                             std::string(1, '\0'),
                                             "\\n\\t\\/\\b",
                                             "\x7f",
                                             "a-0b",
                                             std::string(5000, 'n')};
  for (size_t i = 0; i < names.size(); ++i) {
    put(fmt::format("name-{}", i), "{" + entry(names[i], 0, 8) + "}");
    put(fmt::format("metadata-{}", i), R"({"__metadata__":{"k":")" + names[i] + "\"}," + a + "}");
  }
}

void add_bombs(Cases& cases) {
  for (const size_t depth : {size_t{50}, size_t{200}, size_t{1000}, size_t{5000}, size_t{100000}}) {
    const std::string arrays = std::string(depth, '[') + std::string(depth, ']');
    std::string objects;
    for (size_t i = 0; i < depth; ++i) objects += "{\"a\":";
    objects += "1" + std::string(depth, '}');
    const auto put = [&](const char* name, const std::string& header) {
      add(cases, fmt::format("bomb-{}-{}", depth, name), header, 8);
    };
    put("arrays", arrays);
    put("objects", objects);
    put("open-arrays", std::string(depth, '['));
    put("open-objects", objects.substr(0, 5 * depth));
    for (const std::string& bomb : {arrays, objects}) {
      const char* kind = bomb[0] == '[' ? "arrays" : "objects";
      put(fmt::format("tensor-{}", kind).c_str(), "{\"a\":" + bomb + "}");
      put(fmt::format("shape-{}", kind).c_str(),
          R"({"a":{"dtype":"U8","shape":)" + bomb + R"(,"data_offsets":[0,8]}})");
      put(fmt::format("metadata-{}", kind).c_str(),
          "{\"__metadata__\":{\"k\":" + bomb + "}," + entry("a", 0, 8) + "}");
    }
  }
}

// One byte of a good header replaced, at every position, by a few bytes in turn.
void add_mutations(Cases& cases) {
  const std::string good = R"({"__metadata__":{"k":"v"},)" + entry("a", "F32", "2,3", "0", "24") +
                           "," + entry("b", "I8", "4", "24", "28") + "}  ";
  const std::string replacements = "0\"{},:[-\\ \x01\xff";
  for (size_t at = 0; at < good.size(); ++at) {
    for (size_t k = 0; k < 3; ++k) {
      std::string header = good;
      header[at] = replacements[(at * 5 + k * 4) % replacements.size()];
      if (header != good) add(cases, fmt::format("mutation-{}-{}", at, k), header, 28);
    }
    add(cases, fmt::format("deletion-{}", at), good.substr(0, at) + good.substr(at + 1), 28);
  }
}

}  // namespace

std::vector<HeaderCase> header_cases() {
  Cases cases;
  add_numbers(cases);
  add_dtypes(cases);
  add_variant_dtype(cases);
  add_lengths(cases);
  add_tilings(cases);
  add_fields(cases);
  add_texts(cases);
  add_bombs(cases);
  add_mutations(cases);
  return cases;
}

}  // namespace hotset
