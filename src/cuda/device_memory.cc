// SPDX-License-Identifier: Apache-2.0
#include "cuda/device_memory.h"

namespace hotset::cuda {

Result<DeviceMemory> DeviceMemory::allocate(Runtime& runtime, int64_t bytes, MemoryKind kind) {
  DeviceMemory memory;
  memory.runtime_ = &runtime;
  memory.kind_ = kind;
  if (bytes == 0) return memory;
  HS_ASSIGN_OR_RETURN(void* data, kind == MemoryKind::kDevice ? runtime.allocate(bytes)
                                                              : runtime.allocate_pinned(bytes));
  memory.data_ = static_cast<std::byte*>(data);
  memory.size_ = bytes;
  return memory;
}

DeviceMemory::~DeviceMemory() {
  if (data_ == nullptr) return;
  if (kind_ == MemoryKind::kDevice) {
    runtime_->free(data_);
  } else {
    runtime_->free_pinned(data_);
  }
}

}  // namespace hotset::cuda
