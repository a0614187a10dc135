# SPDX-License-Identifier: Apache-2.0
# Compiler, warnings, sanitizers, ccache and the fast linker.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_program(HOTSET_CCACHE ccache)
if(HOTSET_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${HOTSET_CCACHE})
endif()
find_program(HOTSET_MOLD mold)
if(HOTSET_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# Contracting a*b+c is left to the places that ask for it: an expert's sum must not depend on the
# compiler's choice (docs/decisions).
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
add_library(hotset_warnings INTERFACE)
foreach(warning -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wno-psabi)
  target_compile_options(hotset_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${warning}>)
endforeach()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 warns about std::string's own concatenation when it inlines it (GCC bug 105651).
  target_compile_options(hotset_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND HOTSET_SANITIZE MATCHES "thread")
  target_compile_options(hotset_warnings INTERFACE -Wno-tsan)  # Boost.Asio's fences beside its mutexes
endif()
if(HOTSET_WERROR)
  target_compile_options(hotset_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>
                                                   $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()
if(HOTSET_SANITIZE)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${HOTSET_SANITIZE};-fno-omit-frame-pointer;-g1>")
  add_link_options(-fsanitize=${HOTSET_SANITIZE})
  if(HOTSET_SANITIZE MATCHES "undefined")
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=undefined>)
  endif()
endif()
find_package(Threads REQUIRED)
