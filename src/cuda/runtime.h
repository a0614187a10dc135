// SPDX-License-Identifier: Apache-2.0
// The one door to the GPU: every call into the CUDA runtime goes through this interface, so that a
// test on a machine without a GPU can stand behind it, count calls and let any of them fail.
//
// open_runtime() gives the real one (when the build has CUDA). A Runtime serves one device. Calls
// may come from several threads; a stream, event or graph is used by one thread at a time.
//
// Errors name the CUDA call and its reason. kResource: out of memory, or the device is busy.
// kDeviceLost: the context is gone (illegal access, hardware fault) and nothing on it can be used
// again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace hotset::cuda {

struct DeviceInfo {
  int ordinal = 0;
  std::string name;  // "NVIDIA GeForce RTX 4080"
  int compute_major = 0;
  int compute_minor = 0;
  int num_sms = 0;
  int64_t total_bytes = 0;
  int64_t l2_bytes = 0;
  int64_t max_shared_bytes = 0;  // of a thread block that opts in
};

struct Grid {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
};

struct Launch {
  const void* kernel = nullptr;
  const char* name = "";
  Grid grid;
  Grid block;
  int64_t shared_bytes = 0;    // dynamic; more than 48 KiB is opted into
  void** arguments = nullptr;  // one pointer a parameter
  // May start before what is on the stream before it has ended: the kernel itself waits for that
  // (kernels/cuda/launch.cuh). Ignored where device or kernel cannot.
  bool early = false;
};

// Opaque handles; null is none.
struct Stream {
  void* handle = nullptr;
};
struct Event {
  void* handle = nullptr;
};
struct Graph {
  void* handle = nullptr;
  int64_t num_nodes = 0;
};

class Runtime {
 public:
  virtual ~Runtime() = default;

  [[nodiscard]] virtual const DeviceInfo& info() const = 0;
  virtual Result<int64_t> free_bytes() = 0;  // of the device, as the driver counts

  virtual Result<void*> allocate(int64_t bytes) = 0;  // 256-byte aligned device memory
  virtual void free(void* data) = 0;
  // Host memory that the device reads and writes at the same address.
  virtual Result<void*> allocate_pinned(int64_t bytes) = 0;
  virtual void free_pinned(void* data) = 0;
  virtual Status pin(void* data, int64_t bytes) = 0;  // memory that exists already, likewise
  virtual void unpin(void* data) = 0;

  virtual Result<Stream> create_stream() = 0;
  virtual void destroy(Stream stream) = 0;
  virtual Status synchronize(Stream stream) = 0;

  virtual Result<Event> create_event() = 0;
  virtual void destroy(Event event) = 0;
  virtual Status record(Event event, Stream stream) = 0;
  // For elapsed_seconds(). While the stream is captured, the event becomes a node that every replay
  // of the graph sets; record() would only order the capture.
  virtual Status record_time(Event event, Stream stream) = 0;
  virtual Status wait(Stream stream, Event event) = 0;  // the stream waits, not the caller
  virtual Status synchronize(Event event) = 0;          // the caller waits
  virtual Result<bool> is_done(Event event) = 0;
  virtual Result<double> elapsed_seconds(Event begin, Event end) = 0;  // both done

  // In stream order. Host memory that is not pinned makes copy() wait.
  virtual Status copy(void* to, const void* from, int64_t bytes, Stream stream) = 0;
  virtual Status fill(void* to, int byte, int64_t bytes, Stream stream) = 0;
  virtual Status launch(const Launch& launch, Stream stream) = 0;

  // What is put on the stream between the two is recorded instead of run.
  virtual Status begin_capture(Stream stream) = 0;
  virtual Result<Graph> end_capture(Stream stream) = 0;
  virtual Status launch(Graph graph, Stream stream) = 0;
  virtual void destroy(Graph graph) = 0;
};

// Does this build have CUDA at all?
[[nodiscard]] bool is_built_with_cuda();

// kNotFound: no driver, or no device; kUnsupported: a build without CUDA, a device older than
// compute capability 8.0, or one that this build has no code for.
Result<std::vector<DeviceInfo>> list_devices();
Result<std::unique_ptr<Runtime>> open_runtime(int ordinal);

}  // namespace hotset::cuda
