// SPDX-License-Identifier: Apache-2.0
// Model folders with something wrong: cut shards, lying indexes, links and special files, code and
// pickles beside the weights. Every refusal names the file, and where there is one the tensor or
// the field.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "checkpoint/model_folder.h"
#include "checkpoint/safetensors_writer.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSharded = "golden/models/random-c";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kShards[] = {"model-00001-of-00003.safetensors",
                                   "model-00002-of-00003.safetensors",
                                   "model-00003-of-00003.safetensors"};

void expect_refused(const ModelFolder& folder, const std::vector<std::string>& named) {
  const auto opened = Checkpoint::open(folder.text());
  ASSERT_FALSE(opened);
  for (const std::string& text : named) {
    EXPECT_NE(opened.error().message.find(text), std::string::npos)
        << "'" << text << "' is not in: " << opened.error().message;
  }
}

// One tensor of four bytes.
std::string small_file(const std::string& tensor) {
  int64_t bytes = 0;
  std::string out = safetensors_header_bytes({{tensor, DType::kU8, {4}}}, {}, &bytes).value();
  return out + "abcd";
}

std::string index_of(const std::string& weight_map) {
  return R"({"metadata":{"total_size":8},"weight_map":{)" + weight_map + "}}";
}

TEST(BadFolder, EveryCutOfAShardIsRefused) {
  const ModelFolder folder("cuts");
  folder.copy_of(kSharded);
  ASSERT_TRUE(load_everything(folder.text()));
  const auto whole = Checkpoint::open(folder.text()).value();
  size_t cuts = 0;
  for (uint32_t shard = 0; shard < 3; ++shard) {
    const std::string good = folder.read(kShards[shard]);
    std::set<int64_t> places = {0, 1, 7, 8, 9};
    for (const TensorInfo& tensor : whole.tensors()) {
      if (tensor.shard != shard) continue;
      for (const int64_t edge : {tensor.offset, tensor.offset + tensor.bytes}) {
        places.insert({edge - 1, edge, edge + 1});
      }
    }
    for (const int64_t cut : places) {
      const auto size = static_cast<int64_t>(good.size());
      if (cut < 0 || cut == size) continue;
      fs::resize_file(folder.path() / kShards[shard], static_cast<uintmax_t>(cut));
      expect_refused(folder, {kShards[shard]});
      if (HasFatalFailure()) return;
      cuts += 1;
      folder.write(kShards[shard], good);
    }
  }
  EXPECT_GE(cuts, 300u);
}

TEST(BadFolder, AFileCutAfterOpeningIsAnErrorNotADeath) {
  const ModelFolder folder("cut-later");
  folder.copy_of(kSharded);
  const auto checkpoint = Checkpoint::open(folder.text()).value();
  fs::resize_file(folder.path() / kShards[1], 100);
  size_t failed = 0;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    std::vector<std::byte> bytes(static_cast<size_t>(tensor.bytes));
    const Status status = checkpoint.read(tensor, bytes);
    EXPECT_EQ(status.has_value(), tensor.shard != 1 || tensor.bytes == 0);
    if (status) continue;
    failed += 1;
    EXPECT_NE(status.error().message.find(kShards[1]), std::string::npos);
    EXPECT_NE(status.error().message.find(tensor.name), std::string::npos);
  }
  EXPECT_GT(failed, 0u);
}

TEST(BadFolder, ShardNamesStayInTheFolder) {
  const ModelFolder folder("names");
  folder.write("a.safetensors", small_file("t"));
  folder.write("sub/a.safetensors", small_file("t"));
  for (const char* name :
       {"../a.safetensors", "/etc/passwd", "/tmp/a.safetensors", "sub/a.safetensors",
        "./a.safetensors", "..", ".", "", "a\\\\b.safetensors", "a.safetensors\\u0000", "a.bin",
        "a.pt", "a.safetensors/", "a.safetensors/..", "~/a.safetensors", "model.py"}) {
    SCOPED_TRACE(name);
    folder.write(kIndex, index_of(std::string(R"("t":")") + name + "\""));
    expect_refused(folder, {kIndex, "weight_map"});
  }
}

TEST(BadFolder, IndexesThatLie) {
  const ModelFolder folder("indexes");
  folder.write("a.safetensors", small_file("t"));
  folder.write("b.safetensors", small_file("u"));
  const std::string good = R"("t":"a.safetensors","u":"b.safetensors")";
  folder.write(kIndex, index_of(good));
  ASSERT_TRUE(Checkpoint::open(folder.text()));
  const auto refuse = [&](const std::string& index, const std::vector<std::string>& named) {
    SCOPED_TRACE(index.substr(0, 200));
    folder.write(kIndex, index);
    expect_refused(folder, named);
  };
  refuse(index_of(R"("t":"b.safetensors","u":"b.safetensors")"), {"'t'", "b.safetensors"});
  refuse(index_of(R"("t":"a.safetensors","u":"a.safetensors")"), {"'u'", "a.safetensors"});
  refuse(index_of(R"("t":"b.safetensors","u":"a.safetensors")"), {"'t'", "but in a.safetensors"});
  refuse(index_of(good + R"(,"v":"a.safetensors")"), {"'v'", "a.safetensors"});
  refuse(index_of(good + R"(,"t":"a.safetensors")"), {"'t'", "twice"});
  refuse(index_of(good + R"(,"x":"c.safetensors","y":"d.safetensors")"),
         {"2 of 4 shards", "c.safetensors", "d.safetensors", "hf download"});
  refuse(index_of(good + R"(,"x":7)"), {"'x'"});
  refuse(index_of(good + R"(,"x":null)"), {"'x'"});
  refuse(index_of(""), {"weight_map: empty"});
  refuse("{}", {"weight_map"});
  refuse(R"({"weight_map":[]})", {"weight_map"});
  refuse(R"({"weight_map":{},"weight_map":{}})", {"given twice"});
  refuse("[]", {kIndex});
  refuse("", {kIndex, "empty"});
  refuse("{\"weight_map\":", {kIndex});
  refuse(std::string(1 << 20, '['), {kIndex});
  refuse("\xff\xfe{}", {kIndex});

  folder.write(kIndex, index_of(good));
  folder.write("b.safetensors", small_file("t"));
  expect_refused(folder, {"'t'", "two shards", "a.safetensors", "b.safetensors"});
}

TEST(BadFolder, ShardsOfTwoModelsAreToldApart) {
  const ModelFolder folder("two-models");
  folder.copy_of(kSharded);
  fs::copy_file(folder.path() / kShards[0], folder.path() / kShards[2],
                fs::copy_options::overwrite_existing);
  expect_refused(folder, {"two shards", kShards[0], kShards[2]});
  folder.write(kShards[2], small_file("of.another.model"));
  expect_refused(folder, {kIndex, kShards[2]});
}

TEST(BadFolder, NothingHere) {
  const ModelFolder folder("nothing");
  expect_refused(folder, {"model.safetensors", kIndex, "hf download", folder.text()});
  folder.write("pytorch_model.bin", "x");
  folder.write("model.gguf", "x");
  expect_refused(folder, {"only safetensors", "hf download"});
}

TEST(BadFolder, SpecialFilesAndLinks) {
  const std::string weights = "model.safetensors";
  const auto layout = [&](const char* name, auto make, const std::string& why) {
    SCOPED_TRACE(name);
    const ModelFolder folder(std::string("layout-") + name);
    folder.write("outside/model.safetensors", small_file("t"));
    fs::create_directories(folder.path() / "m");
    make(folder);
    const auto opened = Checkpoint::open((folder.path() / "m").string());
    if (why.empty()) {
      EXPECT_TRUE(opened) << opened.error().message;
      return;
    }
    ASSERT_FALSE(opened);
    EXPECT_NE(opened.error().message.find(why), std::string::npos) << opened.error().message;
    EXPECT_NE(opened.error().message.find(weights), std::string::npos) << opened.error().message;
  };
  using F = const ModelFolder&;
  layout(
      "plain", [](F f) { f.write("m/model.safetensors", small_file("t")); }, "");
  layout(
      "directory", [](F f) { fs::create_directories(f.path() / "m/model.safetensors"); },
      "a directory");
  layout(
      "fifo", [](F f) { ::mkfifo((f.path() / "m/model.safetensors").c_str(), 0600); }, "a FIFO");
  layout(
      "device", [](F f) { f.link("/dev/zero", "m/model.safetensors"); }, "a device");
  layout(
      "null", [](F f) { f.link("/dev/null", "m/model.safetensors"); }, "a device");
  layout(
      "out", [](F f) { f.link("../outside/model.safetensors", "m/model.safetensors"); },
      "outside of the model directory");
  layout(
      "absolute",
      [](F f) { f.link(f.text() + "/outside/model.safetensors", "m/model.safetensors"); },
      "outside of the model directory");
  layout(
      "passwd", [](F f) { f.link("/etc/passwd", "m/model.safetensors"); }, "outside");
  layout(
      "beneath",
      [](F f) {
        f.write("m/sub/w.safetensors", small_file("t"));
        f.link("sub/w.safetensors", "m/model.safetensors");
      },
      "");
  layout(
      "by-folder",
      [](F f) {
        f.link("../outside", "m/sub");
        f.link("sub/model.safetensors", "m/model.safetensors");
      },
      "outside of the model directory");
  layout(
      "dangling", [](F f) { f.link("nowhere", "m/model.safetensors"); }, "is here");
  layout(
      "loop", [](F f) { f.link("model.safetensors", "m/model.safetensors"); }, "is here");
}

TEST(BadFolder, SnapshotsOfTheHubCache) {
  const ModelFolder folder("hub");
  const std::string snapshot = "models--org--name/snapshots/0123/";
  folder.write("models--org--name/blobs/aa", small_file("t"));
  folder.write("models--org--name/blobs/bb", "{}");
  folder.link("../../blobs/aa", snapshot + "model.safetensors");
  folder.link("../../blobs/bb", snapshot + "config.json");
  EXPECT_TRUE(load_everything((folder.path() / snapshot).string()));
  fs::remove(folder.path() / snapshot / "config.json");
  folder.write("secret", "{}");
  folder.link("../../../secret", snapshot + "config.json");
  const auto refused = load_everything((folder.path() / snapshot).string());
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("config.json"), std::string::npos);
  EXPECT_NE(refused.error().message.find("outside"), std::string::npos);
}

// Names of everything that was opened, seen through the room's own calls.
TEST(BadFolder, CodeAndPicklesAreNamedAndNeverOpened) {
  const ModelFolder folder("pickles");
  folder.write("model.safetensors", small_file("t"));
  folder.write("config.json",
               R"({"auto_map":{"AutoModel":"evil.Model"},"_attn_implementation_internal":"a/b"})");
  const std::vector<std::string> code = {"pytorch_model.bin", "model.pt",   "model.pth",
                                         "model.ckpt",        "x.pkl",      "x.pickle",
                                         "modeling_evil.py",  "__init__.py"};
  for (const std::string& name : code) folder.write(name, "boom");
  auto calls = std::make_shared<FileCalls>(*system_file_calls());
  auto opened = std::make_shared<std::set<std::string>>();
  calls->openat = [opened](int dir, const char* name, int flags) {
    opened->insert(name);
    return ::openat(dir, name, flags);
  };
  const auto checkpoint = Checkpoint::open(folder.text(), calls);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ(*opened, (std::set<std::string>{folder.text(), "model.safetensors", "config.json"}));
  std::string all;
  for (const std::string& warning : checkpoint->warnings()) all += warning + "\n";
  for (const std::string& name : code) EXPECT_NE(all.find(name), std::string::npos) << name;
  EXPECT_NE(all.find("auto_map"), std::string::npos);
  EXPECT_NE(all.find("_attn_implementation_internal"), std::string::npos);
}

}  // namespace
}  // namespace hotset
