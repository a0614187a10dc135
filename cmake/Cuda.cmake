# SPDX-License-Identifier: Apache-2.0
# CUDA where there is a compiler for it; a machine without one builds everything else.
#   HOTSET_CUDA               AUTO (default) | ON | OFF. The sanitizers look at the host's part, which tests run on a
#                             GPU that is not there. AUTO leaves CUDA out of them where there is one, and where kernels
#                             would be compiled a second time because there is no ccache.
#   HOTSET_CUDA_ARCHITECTURES what nvcc builds for. Default: the card of this machine; without one,
#                             code for sm_80 and sm_120 and PTX from which the driver makes the rest.
#                             The preset release-all-gpus has every supported card's own code.
set(HOTSET_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON or OFF")
set(HOTSET_CUDA_ARCHITECTURES "" CACHE STRING "CUDA architectures, as CMAKE_CUDA_ARCHITECTURES takes them")
set(HOTSET_HAS_CUDA OFF)
set(HOTSET_HAS_GPU OFF)  # CUDA tests are always built, and run where there is one
execute_process(COMMAND nvidia-smi -L OUTPUT_VARIABLE gpus ERROR_QUIET)
if(gpus MATCHES "GPU 0")
  set(HOTSET_HAS_GPU ON)
endif()
if(HOTSET_SANITIZE AND HOTSET_CUDA STREQUAL "AUTO" AND (HOTSET_HAS_GPU OR NOT HOTSET_CCACHE))
  set(HOTSET_CUDA OFF)  # a driver and AddressSanitizer's shadow memory do not get on
endif()
if(NOT HOTSET_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(HOTSET_HAS_CUDA ON)
  elseif(HOTSET_CUDA STREQUAL "ON")
    message(FATAL_ERROR "HOTSET_CUDA=ON, and no CUDA compiler (nvcc) was found")
  endif()
endif()
if(HOTSET_HAS_CUDA)
  if(NOT HOTSET_CUDA_ARCHITECTURES)
    if(HOTSET_HAS_GPU)
      set(HOTSET_CUDA_ARCHITECTURES native)
    else()
      set(HOTSET_CUDA_ARCHITECTURES 80 120-real)
    endif()
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${HOTSET_CUDA_ARCHITECTURES})
  if(HOTSET_CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${HOTSET_CCACHE})
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  # CMake 3.25 does not know that nvcc 12 and newer speak C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA_STANDARD 20)
  # fma only where the source asks for it, as on the CPU (Toolchain.cmake).
  string(APPEND CMAKE_CUDA_FLAGS " --expt-relaxed-constexpr --fmad=false")
endif()
