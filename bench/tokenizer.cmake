# SPDX-License-Identifier: Apache-2.0
add_executable(tokenizer_bench tokenizer_bench.cc ${CMAKE_SOURCE_DIR}/tests/tokenizer/text_generator.cc)
target_include_directories(tokenizer_bench PRIVATE ${CMAKE_SOURCE_DIR}/tests/tokenizer)
target_link_libraries(tokenizer_bench PRIVATE hotset_tokenizer benchmark::benchmark hotset_warnings)
