# SPDX-License-Identifier: Apache-2.0
add_executable(model_bench model_bench.cc file_read.cc)
target_link_libraries(model_bench PRIVATE hotset_read_ceiling hotset_model hotset_warnings CLI11::CLI11)
