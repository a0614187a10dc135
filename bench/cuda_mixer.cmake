# SPDX-License-Identifier: Apache-2.0
if(HOTSET_HAS_CUDA)
  add_executable(cuda_mixer_bench cuda/mixer_bench.cc)
  target_include_directories(cuda_mixer_bench PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(cuda_mixer_bench PRIVATE hotset_kernels fmt::fmt hotset_warnings)
  set_target_properties(cuda_mixer_bench PROPERTIES LINKER_LANGUAGE CXX)
endif()
