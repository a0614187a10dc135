// SPDX-License-Identifier: Apache-2.0
// ChatML without a template language: enough of a dialect to test the server by. Reasoning ends at
// </think> when `starts_in_reasoning`; a text "CALL name args;" is a tool call when tools are
// given.
#pragma once

#include "server/dialect.h"

namespace hotset::test {

class PlainDialect : public Dialect {
 public:
  bool starts_in_reasoning = false;

  Result<PromptText> render(const Json& messages, const Json& tools,
                            const Json& extra) const override;
  std::unique_ptr<AnswerParser> new_parser(const PromptText& prompt,
                                           const Json& tools) const override;
};

}  // namespace hotset::test
