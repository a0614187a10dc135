# SPDX-License-Identifier: Apache-2.0
add_executable(ops_bench ops_bench.cc)
target_link_libraries(ops_bench PRIVATE hotset_kernels hotset_warnings)
