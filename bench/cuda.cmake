# SPDX-License-Identifier: Apache-2.0
# CUDA workbenches, where there is a CUDA compiler; a machine without one builds everything else.
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 120-real 120-virtual)
  enable_language(CUDA)
  add_executable(expert_decode_bench cuda/expert_decode_bench.cu)
  set_target_properties(expert_decode_bench PROPERTIES LINKER_LANGUAGE CXX)
endif()
