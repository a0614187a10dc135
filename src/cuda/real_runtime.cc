// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <mutex>
#include <unordered_map>

#include "cuda/kernel_image.h"
#include "cuda/runtime.h"

namespace hotset::cuda {
namespace {

constexpr int kMinComputeMajor = 8;
constexpr int64_t kSharedWithoutOptIn = 40 * 1024;  // of 48 KiB, the rest for a kernel's static
constexpr int kEarlyMajor = 9;  // compute capability from which kernels can start early

ErrorKind kind_of(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
    case cudaErrorDevicesUnavailable:
    case cudaErrorLaunchOutOfResources:
      return ErrorKind::kResource;
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorAssert:
    case cudaErrorContained:
      return ErrorKind::kDeviceLost;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
      return ErrorKind::kNotFound;
    default:
      return ErrorKind::kInternal;
  }
}

Status check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return {};
  cudaGetLastError();  // a failure that is not sticky is not the next call's
  return fail(fmt::format("{}: {}", call, cudaGetErrorString(error)), kind_of(error));
}

cudaStream_t native(Stream stream) {
  return static_cast<cudaStream_t>(stream.handle);
}
cudaEvent_t native(Event event) {
  return static_cast<cudaEvent_t>(event.handle);
}
cudaGraphExec_t native(Graph graph) {
  return static_cast<cudaGraphExec_t>(graph.handle);
}
dim3 native(Grid grid) {
  return {grid.x, grid.y, grid.z};
}

Result<DeviceInfo> device_info(int ordinal) {
  cudaDeviceProp p;
  HS_RETURN_IF_ERROR(check(cudaGetDeviceProperties(&p, ordinal), "cudaGetDeviceProperties"));
  return DeviceInfo{.ordinal = ordinal,
                    .name = p.name,
                    .compute_major = p.major,
                    .compute_minor = p.minor,
                    .num_sms = p.multiProcessorCount,
                    .total_bytes = static_cast<int64_t>(p.totalGlobalMem),
                    .l2_bytes = p.l2CacheSize,
                    .max_shared_bytes = static_cast<int64_t>(p.sharedMemPerBlockOptin)};
}

// Without this the first kernel would fail, in the words of the driver.
Status check_image(const DeviceInfo& info) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, image_probe());
  if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction) {
    return check(error, "cudaFuncGetAttributes");
  }
  return fail(fmt::format("{} has compute capability {}.{}, and this program was built for others "
                          "(CUDA architectures {}): build it with "
                          "-DHOTSET_CUDA_ARCHITECTURES={}{}-real, or by the preset "
                          "release-all-gpus",
                          info.name, info.compute_major, info.compute_minor, built_architectures(),
                          info.compute_major, info.compute_minor),
              ErrorKind::kUnsupported);
}

class RealRuntime final : public Runtime {
 public:
  explicit RealRuntime(DeviceInfo info) : info_(std::move(info)) {}

  [[nodiscard]] const DeviceInfo& info() const override { return info_; }

  Result<int64_t> free_bytes() override {
    size_t free = 0, total = 0;
    HS_RETURN_IF_ERROR(use());
    HS_RETURN_IF_ERROR(check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo"));
    return static_cast<int64_t>(free);
  }

  Result<void*> allocate(int64_t bytes) override {
    void* data = nullptr;
    if (Status status = use(); !status) return fail(status.error());
    if (Status status = check(cudaMalloc(&data, static_cast<size_t>(bytes)), "cudaMalloc");
        !status) {
      return fail(with_size(status.error(), bytes));
    }
    return data;
  }
  void free(void* data) override { cudaFree(data); }

  Result<void*> allocate_pinned(int64_t bytes) override {
    void* data = nullptr;
    HS_RETURN_IF_ERROR(use());
    const auto flags = cudaHostAllocPortable | cudaHostAllocMapped;
    if (Status status =
            check(cudaHostAlloc(&data, static_cast<size_t>(bytes), flags), "cudaHostAlloc");
        !status) {
      return fail(with_size(status.error(), bytes));
    }
    return data;
  }
  void free_pinned(void* data) override { cudaFreeHost(data); }

  Status pin(void* data, int64_t bytes) override {
    HS_RETURN_IF_ERROR(use());
    const auto flags = cudaHostRegisterPortable | cudaHostRegisterMapped;
    if (Status status =
            check(cudaHostRegister(data, static_cast<size_t>(bytes), flags), "cudaHostRegister");
        !status) {
      return fail(with_size(status.error(), bytes));
    }
    return {};
  }
  void unpin(void* data) override { cudaHostUnregister(data); }

  Result<Stream> create_stream() override {
    cudaStream_t stream = nullptr;
    HS_RETURN_IF_ERROR(use());
    HS_RETURN_IF_ERROR(check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                             "cudaStreamCreateWithFlags"));
    return Stream{stream};
  }
  void destroy(Stream stream) override { cudaStreamDestroy(native(stream)); }
  Status synchronize(Stream stream) override {
    return check(cudaStreamSynchronize(native(stream)), "cudaStreamSynchronize");
  }

  Result<Event> create_event() override {
    cudaEvent_t event = nullptr;
    HS_RETURN_IF_ERROR(use());
    HS_RETURN_IF_ERROR(check(cudaEventCreate(&event), "cudaEventCreate"));
    return Event{event};
  }
  void destroy(Event event) override { cudaEventDestroy(native(event)); }
  Status record(Event event, Stream stream) override {
    return check(cudaEventRecord(native(event), native(stream)), "cudaEventRecord");
  }
  Status record_time(Event event, Stream stream) override {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    HS_RETURN_IF_ERROR(
        check(cudaStreamIsCapturing(native(stream), &capture), "cudaStreamIsCapturing"));
    const unsigned flags =
        capture == cudaStreamCaptureStatusActive ? cudaEventRecordExternal : cudaEventRecordDefault;
    return check(cudaEventRecordWithFlags(native(event), native(stream), flags),
                 "cudaEventRecordWithFlags");
  }
  Status wait(Stream stream, Event event) override {
    return check(cudaStreamWaitEvent(native(stream), native(event), 0), "cudaStreamWaitEvent");
  }
  Status synchronize(Event event) override {
    return check(cudaEventSynchronize(native(event)), "cudaEventSynchronize");
  }
  Result<bool> is_done(Event event) override {
    const cudaError_t state = cudaEventQuery(native(event));
    if (state == cudaErrorNotReady) return false;
    HS_RETURN_IF_ERROR(check(state, "cudaEventQuery"));
    return true;
  }
  Result<double> elapsed_seconds(Event begin, Event end) override {
    float ms = 0;
    HS_RETURN_IF_ERROR(
        check(cudaEventElapsedTime(&ms, native(begin), native(end)), "cudaEventElapsedTime"));
    return static_cast<double>(ms) / 1000;
  }

  Status copy(void* to, const void* from, int64_t bytes, Stream stream) override {
    return check(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, native(stream)),
        "cudaMemcpyAsync");
  }
  Status fill(void* to, int byte, int64_t bytes, Stream stream) override {
    return check(cudaMemsetAsync(to, byte, static_cast<size_t>(bytes), native(stream)),
                 "cudaMemsetAsync");
  }
  Status launch(const Launch& launch, Stream stream) override {
    HS_RETURN_IF_ERROR(use());
    HS_RETURN_IF_ERROR(opt_into_shared(launch));
    if (launch.early && waits_itself(launch.kernel)) return launch_early(launch, stream);
    return check(
        cudaLaunchKernel(launch.kernel, native(launch.grid), native(launch.block), launch.arguments,
                         static_cast<size_t>(launch.shared_bytes), native(stream)),
        launch.name);
  }

  Status begin_capture(Stream stream) override {
    return check(cudaStreamBeginCapture(native(stream), cudaStreamCaptureModeThreadLocal),
                 "cudaStreamBeginCapture");
  }
  Result<Graph> end_capture(Stream stream) override {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    HS_RETURN_IF_ERROR(check(cudaStreamEndCapture(native(stream), &graph), "cudaStreamEndCapture"));
    size_t num_nodes = 0;
    Status made = check(cudaGraphGetNodes(graph, nullptr, &num_nodes), "cudaGraphGetNodes");
    if (made) made = check(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    cudaGraphDestroy(graph);
    if (!made) return fail(made.error());
    // Else the first launch would allocate what the graph takes on the device.
    if (made = check(cudaGraphUpload(exec, native(stream)), "cudaGraphUpload"); !made) {
      cudaGraphExecDestroy(exec);
      return fail(made.error());
    }
    return Graph{exec, static_cast<int64_t>(num_nodes)};
  }
  Status launch(Graph graph, Stream stream) override {
    return check(cudaGraphLaunch(native(graph), native(stream)), "cudaGraphLaunch");
  }
  void destroy(Graph graph) override { cudaGraphExecDestroy(native(graph)); }

 private:
  // The device is a setting of the calling thread.
  Status use() { return check(cudaSetDevice(info_.ordinal), "cudaSetDevice"); }
  static Error with_size(Error error, int64_t bytes) {
    error.message += fmt::format(" ({:.2f} GiB asked)", static_cast<double>(bytes) / (1 << 30));
    return error;
  }

  Status opt_into_shared(const Launch& launch) {
    if (launch.shared_bytes <= kSharedWithoutOptIn) return {};
    const std::lock_guard lock(kernels_mutex_);
    int64_t& granted = shared_bytes_[launch.kernel];
    if (granted >= launch.shared_bytes) return {};
    HS_RETURN_IF_ERROR(
        check(cudaFuncSetAttribute(launch.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(launch.shared_bytes)),
              "cudaFuncSetAttribute"));
    granted = launch.shared_bytes;
    return {};
  }

  // Was the kernel compiled for a device that can start it early? If not, its code does not wait.
  bool waits_itself(const void* kernel) {
    if (info_.compute_major < kEarlyMajor) return false;
    const std::lock_guard lock(kernels_mutex_);
    const auto [found, is_new] = waits_.try_emplace(kernel, false);
    if (is_new) {
      cudaFuncAttributes attributes;
      found->second = check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes") &&
                      attributes.ptxVersion >= 10 * kEarlyMajor;
    }
    return found->second;
  }
  static Status launch_early(const Launch& launch, Stream stream) {
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = native(launch.grid);
    config.blockDim = native(launch.block);
    config.dynamicSmemBytes = static_cast<size_t>(launch.shared_bytes);
    config.stream = native(stream);
    config.attrs = &attribute;
    config.numAttrs = 1;
    return check(cudaLaunchKernelExC(&config, launch.kernel, launch.arguments), launch.name);
  }

  DeviceInfo info_;
  std::mutex kernels_mutex_;
  std::unordered_map<const void*, bool> waits_;
  std::unordered_map<const void*, int64_t> shared_bytes_;
};

}  // namespace

bool is_built_with_cuda() {
  return true;
}

Result<std::vector<DeviceInfo>> list_devices() {
  int count = 0;
  const Status counted = check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (!counted && counted.error().kind == ErrorKind::kNotFound) {
    return fail("no NVIDIA GPU with a driver for CUDA 13 was found (" + counted.error().message +
                    "); --device cpu needs none",
                ErrorKind::kNotFound);
  }
  HS_RETURN_IF_ERROR(counted);
  std::vector<DeviceInfo> devices;
  for (int i = 0; i < count; ++i) {
    HS_ASSIGN_OR_RETURN(DeviceInfo info, device_info(i));
    devices.push_back(std::move(info));
  }
  return devices;
}

Result<std::unique_ptr<Runtime>> open_runtime(int ordinal) {
  HS_ASSIGN_OR_RETURN(const std::vector<DeviceInfo> devices, list_devices());
  if (ordinal < 0 || ordinal >= static_cast<int>(devices.size())) {
    return fail(fmt::format("CUDA device {} of {}", ordinal, devices.size()), ErrorKind::kNotFound);
  }
  const DeviceInfo& info = devices[static_cast<size_t>(ordinal)];
  if (info.compute_major < kMinComputeMajor) {
    return fail(fmt::format("{} has compute capability {}.{}; 8.0 (Ampere) or newer is needed",
                            info.name, info.compute_major, info.compute_minor),
                ErrorKind::kUnsupported);
  }
  HS_RETURN_IF_ERROR(check(cudaSetDevice(ordinal), "cudaSetDevice"));
  HS_RETURN_IF_ERROR(check(cudaFree(nullptr), "cudaFree"));  // makes the context, or says why not
  HS_RETURN_IF_ERROR(check_image(info));
  return std::make_unique<RealRuntime>(info);
}

}  // namespace hotset::cuda
