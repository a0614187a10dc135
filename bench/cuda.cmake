# SPDX-License-Identifier: Apache-2.0
# CUDA workbenches, where there is a CUDA compiler.
if(HOTSET_HAS_CUDA)
  add_executable(expert_decode_bench cuda/expert_decode_bench.cu)
  set_target_properties(expert_decode_bench PROPERTIES LINKER_LANGUAGE CXX)
  add_executable(cuda_ops_bench cuda/ops_bench.cu)
  set_target_properties(cuda_ops_bench PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(cuda_ops_bench PRIVATE hotset_kernels)
endif()
