# SPDX-License-Identifier: Apache-2.0
add_executable(pack_bench pack_bench.cc)
target_link_libraries(pack_bench PRIVATE hotset_checkpoint hotset_warnings)
