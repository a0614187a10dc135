// SPDX-License-Identifier: Apache-2.0
// Where the time of a step goes on a GPU: timed events on its stream, one wherever the next stage
// begins. In a recorded graph an event is a node that each replay sets anew, so the stages of a
// graph are measured as it runs, with the CPU answering beside it.
//
// An event takes time of its own. The first two have nothing between them; what lies between all
// others is counted less that. Work without marks is not slowed down: who measures both can tell.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "cuda/runtime.h"
#include "telemetry/stage_clock.h"

namespace hotset {

class StageMarks {
 public:
  StageMarks(cuda::Runtime& runtime, cuda::Stream stream) : runtime_(runtime), stream_(stream) {}
  ~StageMarks();
  StageMarks(const StageMarks&) = delete;
  StageMarks& operator=(const StageMarks&) = delete;

  // Forgets all marks, and puts down the two that measure what a mark costs.
  Status begin();
  // From here on the stream's time belongs to `stage`, until the next mark.
  Status mark(Stage stage, int64_t bytes = 0);
  Status end();
  // After the stream is synchronized: adds what lies between the marks.
  Status collect(StageClock& clock);

 private:
  struct Mark {
    cuda::Event event;
    Stage stage = Stage::kNumStages;
    int64_t bytes = 0;
  };
  Status put(Stage stage, int64_t bytes);

  cuda::Runtime& runtime_;
  cuda::Stream stream_;
  std::vector<Mark> marks_;  // events are kept for the next begin()
  size_t num_marks_ = 0;
};

}  // namespace hotset
