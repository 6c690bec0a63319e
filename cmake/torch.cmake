# The operators for torch: _C, and with a CUDA toolkit _C_cuda.

# Only torch's headers and libtorch_cpu are needed, and importing torch is slow and in an isolated
# build impossible: it is looked up on disk.
set(FASTLTC_TORCH_DIR "" CACHE PATH "The torch package to build against; empty: found by itself")
execute_process(
  COMMAND ${Python_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/build_backend/find_torch.py
    "${FASTLTC_TORCH_DIR}"
  OUTPUT_VARIABLE torch_found OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
list(GET torch_found 0 torch_dir)
list(GET torch_found 1 torch_version)
message(STATUS "fastltc: building against torch ${torch_version} in ${torch_dir}")

add_library(_C MODULE
  csrc/torch/cpu.cpp
  csrc/torch/library.cpp)
set_target_properties(_C PROPERTIES PREFIX "" SUFFIX ".so")
# The stable ABI of torch 2.10: the library runs on that version and every later one.
target_compile_definitions(_C PRIVATE TORCH_TARGET_VERSION=0x020a000000000000ULL)
target_compile_options(_C PRIVATE -fmacro-prefix-map=${torch_dir}/include/=)
target_include_directories(_C SYSTEM PRIVATE ${torch_dir}/include)
# As NEEDED only, without an rpath: importing torch has loaded it by then.
target_link_libraries(_C PRIVATE fastltc_kernels fastltc_guarded_flags
  ${torch_dir}/lib/${CMAKE_SHARED_LIBRARY_PREFIX}torch_cpu${CMAKE_SHARED_LIBRARY_SUFFIX})

# In a library of its own, so that one package serves builds of torch with and without CUDA. No
# symbol of torch's CUDA libraries is imported, and the CUDA runtime is linked statically.
if(FASTLTC_CUDA_BUILT)
  find_package(CUDAToolkit REQUIRED)
  # By themselves: what has no torch on its command line is not compiled again for another one.
  add_library(fastltc_cuda_kernels OBJECT ${FASTLTC_CUDA_KERNELS} csrc/cuda/set_device.cpp)
  set_target_properties(fastltc_cuda_kernels PROPERTIES CUDA_VISIBILITY_PRESET hidden)
  target_compile_options(fastltc_cuda_kernels PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--threads=2>)
  target_link_libraries(fastltc_cuda_kernels PRIVATE fastltc_guarded_flags CUDA::cudart_static)
  add_library(_C_cuda MODULE
    $<TARGET_OBJECTS:fastltc_cuda_kernels>
    csrc/torch/cuda.cpp
    csrc/torch/special_function_limit_cuda.cpp)
  set_target_properties(_C_cuda PROPERTIES
    PREFIX "" SUFFIX ".so" LINKER_LANGUAGE CUDA CUDA_RUNTIME_LIBRARY Static)
  target_compile_definitions(_C_cuda PRIVATE TORCH_TARGET_VERSION=0x020a000000000000ULL)
  target_compile_options(_C_cuda PRIVATE -fmacro-prefix-map=${torch_dir}/include/=)
  target_include_directories(_C_cuda SYSTEM PRIVATE ${torch_dir}/include)
  target_link_libraries(_C_cuda PRIVATE fastltc_kernels fastltc_guarded_flags CUDA::cudart_static
    ${torch_dir}/lib/${CMAKE_SHARED_LIBRARY_PREFIX}torch_cpu${CMAKE_SHARED_LIBRARY_SUFFIX})
  # The CUDA runtime's symbols are not for other libraries, which may bring another version of it.
  target_link_options(_C_cuda PRIVATE -Wl,--exclude-libs,ALL)
  install(TARGETS _C_cuda LIBRARY DESTINATION fastltc)
endif()

install(TARGETS _C LIBRARY DESTINATION fastltc)
