# SPDX-License-Identifier: Apache-2.0
# A room is a folder of src/ and a static library; DEPENDS lists the rooms it may include, and the
# include test (tests/tidiness) holds the same list against the sources.

# hotset_room(NAME SOURCES a.cc … [DEPENDS base …] [LIBS fmt::fmt …])
function(hotset_room NAME)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPENDS;LIBS" ${ARGN})
  add_library(hotset_${NAME} STATIC ${ROOM_SOURCES})
  target_include_directories(hotset_${NAME} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  foreach(dep ${ROOM_DEPENDS})
    target_link_libraries(hotset_${NAME} PUBLIC hotset_${dep})
  endforeach()
  target_link_libraries(hotset_${NAME} PUBLIC ${ROOM_LIBS} PRIVATE hotset_warnings)
endfunction()

# hotset_test(NAME SOURCES a_test.cc … LIBS hotset_base … [LABELS …] [TIMEOUT s])
# Tests run in the repository's tests/ folder, so golden/… is a relative path.
# Each label L is also a target L_tests; quick_tests is all that is not labelled slow. The sanitizer
# builds make no more than what they run.
function(hotset_add_to_group GROUP NAME)
  if(NOT TARGET ${GROUP}_tests)
    add_custom_target(${GROUP}_tests)
  endif()
  add_dependencies(${GROUP}_tests ${NAME})
endfunction()

function(hotset_test NAME)
  cmake_parse_arguments(T "" "TIMEOUT" "SOURCES;LIBS;LABELS" ${ARGN})
  add_executable(${NAME} ${T_SOURCES})
  target_include_directories(${NAME} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_link_libraries(${NAME} PRIVATE ${T_LIBS} GTest::gtest GTest::gmock GTest::gtest_main hotset_warnings)
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 300)
  endif()
  add_test(NAME ${NAME} COMMAND ${NAME} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}/tests)
  set_tests_properties(${NAME} PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "${T_LABELS}")
  foreach(label ${T_LABELS})
    hotset_add_to_group(${label} ${NAME})
  endforeach()
  if(NOT "slow" IN_LIST T_LABELS)
    hotset_add_to_group(quick ${NAME})
  endif()
endfunction()

# As hotset_test, for a test that needs a GPU: built in any case. Run by hand without one it says so.
function(hotset_gpu_test NAME)
  cmake_parse_arguments(T "" "" "SOURCES;LIBS" ${ARGN})
  list(APPEND T_SOURCES ${CMAKE_SOURCE_DIR}/tests/support/needs_gpu.cc)
  if(HOTSET_HAS_GPU)
    hotset_test(${NAME} SOURCES ${T_SOURCES} LIBS ${T_LIBS} LABELS cuda TIMEOUT 600)
    set_tests_properties(${NAME} PROPERTIES SKIP_RETURN_CODE 77)
  else()
    add_executable(${NAME} ${T_SOURCES})
    target_include_directories(${NAME} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    target_link_libraries(${NAME} PRIVATE ${T_LIBS} GTest::gtest GTest::gmock GTest::gtest_main hotset_warnings)
  endif()
endfunction()

# hotset_fuzz(NAME SOURCES x_fuzz.cc LIBS … [CORPUS dir]): the source defines LLVMFuzzerTestOneInput.
# With g++ a small driver replays and mutates the corpus (tests/fuzz/driver.cc) so that every build
# exercises the target; with clang it is a libFuzzer binary.
function(hotset_fuzz NAME)
  cmake_parse_arguments(F "" "CORPUS" "SOURCES;LIBS" ${ARGN})
  add_executable(${NAME} ${F_SOURCES})
  target_link_libraries(${NAME} PRIVATE ${F_LIBS} hotset_warnings)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    target_compile_options(${NAME} PRIVATE -fsanitize=fuzzer)
    target_link_options(${NAME} PRIVATE -fsanitize=fuzzer)
    add_test(NAME ${NAME} COMMAND ${NAME} -max_total_time=10 -timeout=2 -max_len=1048576 -close_fd_mask=1
             ${CMAKE_BINARY_DIR}/corpus/${NAME} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${F_CORPUS})
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/corpus/${NAME})
  else()
    target_sources(${NAME} PRIVATE ${CMAKE_SOURCE_DIR}/tests/fuzz/driver.cc)
    add_test(NAME ${NAME} COMMAND ${NAME} --seconds 2 ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${F_CORPUS})
  endif()
  set_tests_properties(${NAME} PROPERTIES TIMEOUT 120 LABELS "fuzz")
  hotset_add_to_group(fuzz ${NAME})
  hotset_add_to_group(quick ${NAME})
endfunction()
