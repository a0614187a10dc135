# SPDX-License-Identifier: Apache-2.0
# What `hotset bench` says, apart from the program so that tests can call it; and the plain read of
# memory that benches hold themselves against.
add_library(hotset_bench STATIC ${CMAKE_CURRENT_LIST_DIR}/bench_plan.cc ${CMAKE_CURRENT_LIST_DIR}/bench_bound.cc ${CMAKE_CURRENT_LIST_DIR}/bench_report.cc)
target_include_directories(hotset_bench PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(hotset_bench PUBLIC fmt::fmt hotset_model PRIVATE nlohmann_json::nlohmann_json hotset_warnings)

add_library(hotset_read_ceiling STATIC ${CMAKE_CURRENT_LIST_DIR}/read_ceiling.cc)
target_include_directories(hotset_read_ceiling PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(hotset_read_ceiling PUBLIC hotset_kernels PRIVATE hotset_warnings)
