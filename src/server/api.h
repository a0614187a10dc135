// SPDX-License-Identifier: Apache-2.0
// The API without its transport: a request head and body go in, a Reply comes out. Rendering and
// tokenizing happen in handle(), on the caller's thread; generation goes on behind Reply::answer.
//
// All members may be called from any thread. A server starts before its model is there: until
// set_model(), everything but /health and /version is answered with 503.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "request/generation_defaults.h"
#include "server/access.h"
#include "server/answer_info.h"
#include "server/choices.h"
#include "server/dialect.h"
#include "server/http_message.h"
#include "server/routes.h"
#include "tokenizer/tokenizer.h"

namespace hotset {

// What is served; all borrowed parts outlive the Api and every answer.
struct ServedModel {
  const Tokenizer* tokenizer = nullptr;
  const Dialect* dialect = nullptr;  // null: the checkpoint has no chat template
  Engine* engine = nullptr;
  GenerationDefaults defaults;
  std::vector<std::string> names;  // the first is the one answers carry
  int64_t created_s = 0;
};

struct ApiOptions {
  AccessRules access;
  std::string version;
  std::function<void(const std::string& line)> log;  // one line a request; empty: none
};

class Api : public HttpHandler {
 public:
  explicit Api(ApiOptions options);

  void set_model(ServedModel model);
  void set_load_progress(int64_t loaded_bytes, int64_t total_bytes);
  // From now on /health and every new request get 503; answers under way go on.
  void start_draining() { is_draining_ = true; }

  [[nodiscard]] std::optional<Reply> check_head(const HttpHead& head) const override;
  [[nodiscard]] Reply handle(const HttpHead& head, std::string_view body) override;

 private:
  ApiResult<Reply> dispatch(const RouteMatch& match, std::string_view body);
  ApiResult<Reply> chat(const ServedModel& model, const Json& body);
  ApiResult<Reply> complete(const ServedModel& model, const Json& body);
  ApiResult<Reply> tokenize(const ServedModel& model, const Json& body) const;
  ApiResult<Reply> detokenize(const ServedModel& model, const Json& body) const;
  ApiResult<Reply> list_models(const ServedModel& model, const RouteMatch& match) const;
  Reply health() const;
  ApiResult<void> check_access(const HttpHead& head, const Route& route) const;

  ApiResult<Choices> submit(const ServedModel& model, const std::string& id,
                            const std::vector<int32_t>& prompt_ids, const CommonRequest& request);
  AnswerInfo new_info(const ServedModel& model, const char* id_prefix, const CommonRequest& request,
                      const std::vector<int32_t>& prompt_ids);
  std::shared_ptr<const ServedModel> model() const;

  ApiOptions options_;
  mutable std::mutex mutex_;  // guards model_
  std::shared_ptr<const ServedModel> model_;
  std::atomic<bool> is_draining_{false};
  std::atomic<int64_t> loaded_bytes_{0}, total_bytes_{0};
};

}  // namespace hotset
