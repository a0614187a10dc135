# SPDX-License-Identifier: Apache-2.0
add_executable(matmul_bench matmul_bench.cc)
target_link_libraries(matmul_bench PRIVATE hotset_read_ceiling hotset_kernels hotset_memory hotset_warnings)
