// SPDX-License-Identifier: Apache-2.0
// What `hotset profile` lets a model read: files of text, files of questions, or what is at hand.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "options.h"

namespace hotset {

struct ProfileTexts {
  std::string name;                    // for people: where it comes from
  std::vector<std::string> texts;      // read as they are
  std::vector<std::string> questions;  // each a user's message, which the model answers
};

// The files that were named; else heldout.txt of the model's directory, which the demo model has;
// else a small text of many kinds.
[[nodiscard]] Result<ProfileTexts> read_profile_texts(const ProfileOptions& options,
                                                      const std::string& directory);

// A few thousand tokens: prose, dialogue, several languages, code, tables, sums.
[[nodiscard]] std::string_view profile_sample();

}  // namespace hotset
