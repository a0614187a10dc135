// SPDX-License-Identifier: Apache-2.0
#include "model/stage_marks.h"

#include <algorithm>

namespace hotset {

StageMarks::~StageMarks() {
  for (const Mark& mark : marks_) runtime_.destroy(mark.event);
}

Status StageMarks::put(Stage stage, int64_t bytes) {
  if (num_marks_ == marks_.size()) {
    HS_ASSIGN_OR_RETURN(const cuda::Event event, runtime_.create_event());
    marks_.push_back({.event = event});
  }
  Mark& mark = marks_[num_marks_++];
  mark.stage = stage;
  mark.bytes = bytes;
  return runtime_.record_time(mark.event, stream_);
}

Status StageMarks::begin() {
  num_marks_ = 0;
  HS_RETURN_IF_ERROR(put(Stage::kNumStages, 0));
  return put(Stage::kNumStages, 0);
}

Status StageMarks::mark(Stage stage, int64_t bytes) {
  return put(stage, bytes);
}

Status StageMarks::end() {
  return put(Stage::kNumStages, 0);
}

Status StageMarks::collect(StageClock& clock) {
  if (num_marks_ < 2) return {};
  HS_ASSIGN_OR_RETURN(const double cost,
                      runtime_.elapsed_seconds(marks_[0].event, marks_[1].event));
  for (size_t i = 2; i + 1 < num_marks_; ++i) {
    const Mark& mark = marks_[i];
    HS_ASSIGN_OR_RETURN(const double seconds,
                        runtime_.elapsed_seconds(mark.event, marks_[i + 1].event));
    clock.add(mark.stage, std::max(0.0, seconds - cost), mark.bytes);
  }
  return {};
}

}  // namespace hotset
