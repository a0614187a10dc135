# SPDX-License-Identifier: Apache-2.0
add_executable(experts_bench experts_bench.cc)
target_link_libraries(experts_bench PRIVATE hotset_kernels hotset_memory hotset_warnings)
