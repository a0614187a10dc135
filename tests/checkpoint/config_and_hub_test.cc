// SPDX-License-Identifier: Apache-2.0
// JSON files of a model folder, and the way from ORG/NAME to a folder of the local Hub cache.
#include <gtest/gtest.h>

#include <chrono>

#include "checkpoint/hub.h"
#include "checkpoint/model_folder.h"

namespace hotset {
namespace {

TEST(ConfigJson, OrderIsKept) {
  const auto json = parse_config_json(R"({"z":1,"a":[1,2.5,"x",null,true],"m":{}})", "config.json");
  ASSERT_TRUE(json);
  EXPECT_EQ(json->dump(), R"({"z":1,"a":[1,2.5,"x",null,true],"m":{}})");
}

TEST(ConfigJson, RefusalsNameFileAndPlace) {
  const std::pair<std::string, const char*> refused[] = {
      {"", "config.json"},
      {"[]", "not a JSON object"},
      {"7", "not a JSON object"},
      {R"({"a":1,"a":2})", "'a' is given twice"},
      {R"({"x":{"b":1,"\u0062":2}})", "'b' is given twice"},
      {R"([{"a":1,"a":2}])", "'a' is given twice"},
      {"{", "at byte"},
      {R"({"a":1,})", "at byte"},
      {R"({"a":1}x)", "at byte"},
      {R"({"a":NaN})", "at byte"},
      {"{\"a\":\"\xff\"}", "at byte"},
      {"{\"\xed\xa0\x80\":1}", "at byte"},
      {R"({"a":"\ud800"})", "at byte"},
      {R"({"a":1e999})", "at byte"},
      {"{\"a\":\"\n\"}", "at byte"},
      {"// c\n{}", "at byte"},
  };
  for (const auto& [text, why] : refused) {
    SCOPED_TRACE(text);
    const auto json = parse_config_json(text, "config.json");
    ASSERT_FALSE(json);
    EXPECT_TRUE(json.error().message.starts_with("config.json: ")) << json.error().message;
    EXPECT_NE(json.error().message.find(why), std::string::npos) << json.error().message;
  }
}

TEST(ConfigJson, DepthAndSizeAreBounded) {
  const auto nested = [](size_t levels, const char* open, char close) {
    std::string text;
    for (size_t i = 0; i < levels; ++i) text += open;
    return "{\"a\":" + text + "1" + std::string(levels, close) + "}";
  };
  EXPECT_TRUE(parse_config_json(nested(63, "[", ']'), "c"));
  EXPECT_TRUE(parse_config_json(nested(63, "{\"a\":", '}'), "c"));
  for (const size_t levels : {size_t{64}, size_t{1000}, size_t{1'000'000}}) {
    for (const auto& text : {nested(levels, "[", ']'), nested(levels, "{\"a\":", '}')}) {
      const auto begin = std::chrono::steady_clock::now();
      const auto json = parse_config_json(text, "c");
      ASSERT_FALSE(json);
      EXPECT_NE(json.error().message.find("nested deeper than 64"), std::string::npos);
      EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
    }
  }
  const ModelFolder folder("config-size");
  folder.write("config.json", "{\"a\":\"" + std::string(size_t{17} << 20, 'x') + "\"}");
  const auto refused = read_json_file(Directory::open(folder.text()).value(), "config.json");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("config.json: 178"), std::string::npos)
      << refused.error().message;
  EXPECT_FALSE(parse_config_json(std::string(size_t{17} << 20, ' '), "c"));
  std::string keys = "{";
  for (int i = 0; i < 200'000; ++i) keys += "\"k" + std::to_string(i) + "\":1,";
  keys.back() = '}';
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(parse_config_json(keys, "c"));  // linear in the number of keys
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST(Hub, CacheDirectory) {
  HubEnv env{.hf_hub_cache = "/1",
             .huggingface_hub_cache = "/2",
             .hf_home = "/3",
             .xdg_cache_home = "/4",
             .home = "/5"};
  EXPECT_EQ(hub_cache_directory(env), "/1");
  env.hf_hub_cache.clear();
  EXPECT_EQ(hub_cache_directory(env), "/2");
  env.huggingface_hub_cache.clear();
  EXPECT_EQ(hub_cache_directory(env), "/3/hub");
  env.hf_home.clear();
  EXPECT_EQ(hub_cache_directory(env), "/4/huggingface/hub");
  env.xdg_cache_home.clear();
  EXPECT_EQ(hub_cache_directory(env), "/5/.cache/huggingface/hub");
}

class HubCache : public ::testing::Test {
 protected:
  void expect_refused(const std::string& argument, const std::string& revision,
                      const std::vector<std::string>& named) const {
    const auto model = resolve_model(argument, env(), revision);
    ASSERT_FALSE(model) << model->directory;
    for (const std::string& text : named) {
      EXPECT_NE(model.error().message.find(text), std::string::npos) << model.error().message;
    }
  }
  HubEnv env() const {
    return {.hf_hub_cache = folder_.text(),
            .huggingface_hub_cache = {},
            .hf_home = {},
            .xdg_cache_home = {},
            .home = {}};
  }
  std::string snapshot(const std::string& commit) const {
    return folder_.text() + "/models--org--name/snapshots/" + commit;
  }
  ModelFolder folder_{"hub-cache"};
};

TEST_F(HubCache, RevisionsAndSnapshots) {
  folder_.write("models--org--name/snapshots/c1/config.json", "{}");
  auto model = resolve_model("org/name", env());
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->directory, snapshot("c1"));
  EXPECT_EQ(model->name, "org/name");
  EXPECT_EQ(model->revision, "c1");

  folder_.write("models--org--name/snapshots/c2/config.json", "{}");
  expect_refused("org/name", "", {"2 snapshots", "c1", "c2", "--revision"});
  folder_.write("models--org--name/refs/main", "c2\n");
  EXPECT_EQ(resolve_model("org/name", env())->directory, snapshot("c2"));
  EXPECT_EQ(resolve_model("org/name", env(), "c1")->directory, snapshot("c1"));
  folder_.write("models--org--name/refs/pr/1", "c1");
  EXPECT_EQ(resolve_model("org/name", env(), "pr/1")->directory, snapshot("c1"));
  expect_refused("org/name", "v9", {"'v9'", "hf download org/name --revision v9"});
  folder_.write("models--org--name/refs/main", "c3");
  expect_refused("org/name", "", {"hf download org/name"});
  folder_.write("models--org--name/refs/main", "../../../etc");
  expect_refused("org/name", "", {"refs/main"});
  expect_refused("org/name", "../../x", {"not a branch"});

  const auto entry = resolve_model(folder_.text() + "/models--org--name/", env(), "c1");
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->directory, snapshot("c1"));
  EXPECT_EQ(resolve_model(snapshot("c1") + "/", env())->name, "org/name");
}

TEST_F(HubCache, NotThere) {
  expect_refused("org/other", "", {"org/other", folder_.text(), "hf download org/other"});
  expect_refused("org/other", "v1", {"hf download org/other --revision v1"});
  for (const char* bad : {"", "name", "a/b/c", "../x", "org/..", "/no/such/dir", "org/na me",
                          "https://x/y", "org--x/y"}) {
    SCOPED_TRACE(bad);
    EXPECT_FALSE(resolve_model(bad, env()));
  }
  folder_.write("file.gguf", "x");
  expect_refused(folder_.text() + "/file.gguf", "", {"is a file", "directory"});
}

TEST_F(HubCache, MissingShardsNameTheCommand) {
  folder_.write("models--org--name/snapshots/c1/model.safetensors.index.json",
                R"({"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})");
  const auto model = resolve_model("org/name", env()).value();
  const auto opened = Checkpoint::open(model.directory);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind, ErrorKind::kNotFound);
  for (const char* text :
       {"model-1.safetensors", "model-2.safetensors", "hf download org/name --revision c1"}) {
    EXPECT_NE(opened.error().message.find(text), std::string::npos) << opened.error().message;
  }
}

TEST(Hub, PlainDirectories) {
  const ModelFolder folder("plain-model");
  const auto model = resolve_model(folder.text() + "//", {});
  ASSERT_TRUE(model);
  EXPECT_EQ(model->directory, folder.text());
  EXPECT_EQ(model->name, folder.path().filename().string());
  EXPECT_NE(fetch_command(folder.text()).find("--local-dir " + folder.text()), std::string::npos);
}

}  // namespace
}  // namespace hotset
