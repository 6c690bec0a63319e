# Decides whether CUDA kernels are built, and says why: FASTLTC_CUDA_BUILT and FASTLTC_CUDA_REASON go
# to the configure log and to `fastltc info`. A GPU that happens to be visible plays no part.

# No torch: also compiled as C++, for the emulator in tests/.
set(FASTLTC_CUDA_KERNELS
  ${PROJECT_SOURCE_DIR}/csrc/cuda/ltc.cu
  ${PROJECT_SOURCE_DIR}/csrc/cuda/ltc_schedule.cpp)

set(FASTLTC_CUDA_SOURCES)

set(FASTLTC_CUDA_BUILT 0)
if(NOT FASTLTC_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "FASTLTC_CUDA must be AUTO, ON or OFF, but is '${FASTLTC_CUDA}'")
elseif(FASTLTC_CUDA STREQUAL OFF)
  set(FASTLTC_CUDA_REASON "switched off by FASTLTC_CUDA=OFF")
elseif(NOT FASTLTC_CUDA_SOURCES)
  set(FASTLTC_CUDA_REASON "this version of fastltc has no CUDA kernels")
else()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(FASTLTC_CUDA_BUILT 1)
    set(FASTLTC_CUDA_REASON "toolkit found: ${CMAKE_CUDA_COMPILER}")
  else()
    set(FASTLTC_CUDA_REASON "no CUDA toolkit found (no nvcc; set CUDACXX to its path)")
  endif()
endif()
if(FASTLTC_CUDA STREQUAL ON AND NOT FASTLTC_CUDA_BUILT)
  message(FATAL_ERROR "FASTLTC_CUDA=ON, but CUDA kernels cannot be built: ${FASTLTC_CUDA_REASON}. "
    "Build with FASTLTC_CUDA=AUTO or OFF for the CPU kernels alone.")
endif()
message(STATUS "fastltc: CUDA built: ${FASTLTC_CUDA_BUILT} (${FASTLTC_CUDA_REASON})")
