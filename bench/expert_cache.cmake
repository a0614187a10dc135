# SPDX-License-Identifier: Apache-2.0
add_executable(expert_cache_sim expert_cache_sim.cc expert_cache/baselines.cc expert_cache/synthetic_routing.cc)
target_include_directories(expert_cache_sim PRIVATE ${CMAKE_SOURCE_DIR}/bench)
target_link_libraries(expert_cache_sim PRIVATE hotset_experts hotset_warnings CLI11::CLI11)
