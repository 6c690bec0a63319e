# Decides whether CUDA kernels are built, and says why: FASTLTC_CUDA_BUILT and FASTLTC_CUDA_REASON go
# to the configure log and to `fastltc info`. A GPU that happens to be visible plays no part.

# No torch: also compiled as C++, for the emulator in tests/.
set(FASTLTC_CUDA_KERNELS
  ${PROJECT_SOURCE_DIR}/csrc/cuda/cfc.cu
  ${PROJECT_SOURCE_DIR}/csrc/cuda/cfc_schedule.cpp
  ${PROJECT_SOURCE_DIR}/csrc/cuda/ltc.cu
  ${PROJECT_SOURCE_DIR}/csrc/cuda/ltc_schedule.cpp
  ${PROJECT_SOURCE_DIR}/csrc/cuda/masked_linear.cu
  ${PROJECT_SOURCE_DIR}/csrc/cuda/special_function_limit.cu
  ${PROJECT_SOURCE_DIR}/csrc/cuda/stage.cu)

set(FASTLTC_CUDA_BUILT 0)
if(NOT FASTLTC_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "FASTLTC_CUDA must be AUTO, ON or OFF, but is '${FASTLTC_CUDA}'")
elseif(FASTLTC_CUDA STREQUAL OFF)
  set(FASTLTC_CUDA_REASON "switched off by FASTLTC_CUDA=OFF")
elseif(NOT FASTLTC_BUILD_PYTHON OR NOT FASTLTC_BUILD_TORCH)
  set(FASTLTC_CUDA_REASON "only the library for torch has them, which is not built")
else()
  # Where the toolkit's installer puts it, which is on few people's PATH.
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(CMAKE_CUDA_COMPILER nvcc PATHS /usr/local/cuda/bin)
    if(NOT CMAKE_CUDA_COMPILER)
      unset(CMAKE_CUDA_COMPILER CACHE)
    endif()
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(FASTLTC_CUDA_ARCHITECTURES "" CACHE STRING
      "Architectures of CUDA kernels, such as 90 or native; empty: TORCH_CUDA_ARCH_LIST, or all")
    set(CMAKE_CUDA_ARCHITECTURES OFF)
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.1)
      set(FASTLTC_CUDA_REASON "the toolkit's version is ${CMAKE_CUDA_COMPILER_VERSION}, and clusters take 12.1")
    else()
      set(FASTLTC_CUDA_BUILT 1)
      string(REGEX MATCH "^[0-9]+" major ${CMAKE_CUDA_COMPILER_VERSION})
      set(FASTLTC_CUDA_REASON "by CUDA ${CMAKE_CUDA_COMPILER_VERSION}, for drivers that know CUDA ${major}: ${CMAKE_CUDA_COMPILER}")
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_EXTENSIONS OFF)
    # CMake 3.25 does not know that nvcc has it.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    endif()
    # What builds other extensions of torch is told: 8.0;9.0+PTX.
    set(architectures ${FASTLTC_CUDA_ARCHITECTURES})
    if(NOT architectures)
      string(REGEX MATCHALL "[^ ,;]+" listed "$ENV{TORCH_CUDA_ARCH_LIST}")
      foreach(one IN LISTS listed)
        if(NOT one MATCHES "^([0-9]+)\\.([0-9][af]?)(\\+PTX)?$")
          message(FATAL_ERROR "TORCH_CUDA_ARCH_LIST: expected numbers such as 8.0;9.0+PTX, got "
            "'${one}'")
        endif()
        list(APPEND architectures ${CMAKE_MATCH_1}${CMAKE_MATCH_2}-real)
        if(CMAKE_MATCH_3)
          list(APPEND architectures ${CMAKE_MATCH_1}${CMAKE_MATCH_2}-virtual)
        endif()
      endforeach()
    endif()
    if(architectures)
      set(CMAKE_CUDA_ARCHITECTURES ${architectures})
    else()
      # Machine code for what people have, and PTX for what is to come. The sources ask for 8.0 and
      # 9.0 alone, so that one intermediate code serves several machine codes: to make it takes
      # longer than to assemble it.
      set(codes 75,code=sm_75 80,code=sm_80 80,code=sm_86 80,code=sm_89 90,code=sm_90 90,code=compute_90)
      if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
        # Intermediate code for 10.0, by another compiler, makes kernels take up to twice the
        # registers, and some spill.
        list(APPEND codes 90,code=sm_100 90,code=sm_120)
      endif()
      foreach(code IN LISTS codes)
        string(APPEND CMAKE_CUDA_FLAGS " -gencode=arch=compute_${code}")
      endforeach()
    endif()
  else()
    set(FASTLTC_CUDA_REASON "no CUDA toolkit found (no nvcc; set CUDACXX to its path)")
  endif()
endif()
if(FASTLTC_CUDA STREQUAL ON AND NOT FASTLTC_CUDA_BUILT)
  message(FATAL_ERROR "FASTLTC_CUDA=ON, but CUDA kernels cannot be built: ${FASTLTC_CUDA_REASON}. "
    "Build with FASTLTC_CUDA=AUTO or OFF for the CPU kernels alone.")
endif()
message(STATUS "fastltc: CUDA built: ${FASTLTC_CUDA_BUILT} (${FASTLTC_CUDA_REASON})")
