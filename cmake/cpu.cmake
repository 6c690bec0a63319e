# The kernel library: no torch, no Python; _C, _runtime and the C++ tests share it.

set(FASTLTC_KERNEL_SOURCES
  csrc/cpu/sigmoid_kernels.cpp
  csrc/cpu/stream_kernels.cpp)
# What runs streams alone needs none of the operators'.
set(operator_exports "")
if((FASTLTC_BUILD_PYTHON AND FASTLTC_BUILD_TORCH) OR FASTLTC_BUILD_TESTS)
  list(APPEND FASTLTC_KERNEL_SOURCES
    csrc/cpu/cfc_kernels.cpp
    csrc/cpu/ltc_kernels.cpp
    csrc/cpu/masked_linear_kernels.cpp)
  set(operator_exports csrc/cpu/operator_exports.cpp)
endif()

set(FASTLTC_ISAS baseline)
set(FASTLTC_FLAGS_baseline "")
# A universal macOS build compiles one source for several architectures: baseline only.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8
    AND NOT CMAKE_OSX_ARCHITECTURES)
  list(APPEND FASTLTC_ISAS avx2 avx512)
  set(FASTLTC_FLAGS_avx2 -mavx2 -mfma)
  # GCC 12 warns about its own AVX-512 header (its bug 105593).
  set(FASTLTC_FLAGS_avx512 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$"
    AND "${CMAKE_OSX_ARCHITECTURES}" MATCHES "^(arm64)?$")
  # Beside the portable set, which needs no intrinsics and has the same instructions.
  list(APPEND FASTLTC_ISAS neon)
  set(FASTLTC_FLAGS_neon -DFASTLTC_NEON)
endif()

add_library(fastltc_kernels STATIC
  csrc/core/synapse_check.cpp
  csrc/cpu/frame/isa.cpp
  csrc/cpu/runtime_exports.cpp
  csrc/cpu/stream/lowering.cpp
  ${operator_exports})
target_link_libraries(fastltc_kernels PUBLIC fastltc_flags PRIVATE fastltc_guarded_flags)

# Each kernel source is compiled once per instruction set, into a namespace of that name. -O3: GCC
# hardly vectorises at -O2. Not -ffast-math: it folds away the rounding trick of the exponential.
# Under sanitizers that takes minutes a file and finds no more.
if(FASTLTC_SANITIZE)
  set(FASTLTC_OPTIMIZE -O1)
else()
  set(FASTLTC_OPTIMIZE -O3)
endif()
function(fastltc_add_copy name isa)
  add_library(fastltc_kernels_${name} OBJECT ${ARGN})
  target_compile_definitions(fastltc_kernels_${name} PRIVATE FASTLTC_ISA=${name})
  target_compile_options(fastltc_kernels_${name} PRIVATE
    ${FASTLTC_OPTIMIZE} -fno-math-errno -fno-trapping-math -ffp-contract=fast ${FASTLTC_FLAGS_${isa}})
  target_link_libraries(fastltc_kernels_${name} PRIVATE fastltc_flags)
  target_sources(fastltc_kernels PRIVATE $<TARGET_OBJECTS:fastltc_kernels_${name}>)
endfunction()
foreach(isa IN LISTS FASTLTC_ISAS)
  fastltc_add_copy(${isa} ${isa} ${FASTLTC_KERNEL_SOURCES})
  string(TOUPPER ${isa} isa_upper)
  target_compile_definitions(fastltc_kernels PUBLIC FASTLTC_HAVE_${isa_upper}=1)
endforeach()
# Those of LTC once more with less precise sigmoids, for each set but baseline.
set(FASTLTC_COPIES ${FASTLTC_ISAS})
set(medium_sources ${FASTLTC_KERNEL_SOURCES})
list(FILTER medium_sources INCLUDE REGEX "(ltc|sigmoid|stream)_kernels")
foreach(isa IN LISTS FASTLTC_ISAS)
  if(NOT isa STREQUAL baseline)
    fastltc_add_copy(${isa}_medium ${isa} ${medium_sources})
    target_compile_definitions(fastltc_kernels_${isa}_medium PRIVATE FASTLTC_MEDIUM)
    list(APPEND FASTLTC_COPIES ${isa}_medium)
  endif()
endforeach()
list(JOIN FASTLTC_ISAS ", " isas)
message(STATUS "fastltc: instruction sets: ${isas}")
