# SPDX-License-Identifier: Apache-2.0
# The writer of synthetic checkpoints, apart from the program so that tests and benches can call it.
add_library(hotset_synth STATIC ${CMAKE_CURRENT_LIST_DIR}/synth.cc ${CMAKE_CURRENT_LIST_DIR}/synth_fill.cc
                                ${CMAKE_CURRENT_LIST_DIR}/synth_model.cc ${CMAKE_CURRENT_LIST_DIR}/synth_plan.cc
                                ${CMAKE_CURRENT_LIST_DIR}/synth_text.cc ${CMAKE_CURRENT_LIST_DIR}/synth_tokenizer.cc)
target_include_directories(hotset_synth PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(hotset_synth PUBLIC hotset_checkpoint hotset_kernels PRIVATE hotset_tokenizer nlohmann_json::nlohmann_json
                                                                                 hotset_warnings)

# Listens to a model's routers and says what a cache of experts makes of them; and runs what was
# written.
add_library(hotset_routing STATIC ${CMAKE_CURRENT_LIST_DIR}/routing_stats.cc ${CMAKE_CURRENT_LIST_DIR}/routing_replay.cc
                                  ${CMAKE_CURRENT_LIST_DIR}/routing_recorder.cc ${CMAKE_CURRENT_LIST_DIR}/routing_report.cc
                                  ${CMAKE_CURRENT_LIST_DIR}/routing_check.cc)
target_link_libraries(hotset_routing PUBLIC hotset_synth hotset_model PRIVATE nlohmann_json::nlohmann_json hotset_warnings)
