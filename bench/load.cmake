# SPDX-License-Identifier: Apache-2.0
add_executable(load_bench load_bench.cc file_read.cc)
target_link_libraries(load_bench PRIVATE hotset_model hotset_warnings CLI11::CLI11)
