# The library inside the Python package that needs no torch: _runtime (pybind11).

find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
if(NOT pybind11_DIR)
  execute_process(COMMAND ${Python_EXECUTABLE} -m pybind11 --cmakedir
    OUTPUT_VARIABLE pybind11_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_package(pybind11 3 CONFIG REQUIRED)

if(FASTLTC_BUILD_TORCH)
  include(cmake/torch.cmake)
else()
  set(torch_version "none")
endif()

configure_file(${PROJECT_SOURCE_DIR}/csrc/runtime/build_info.h.in
  ${PROJECT_BINARY_DIR}/generated/build_info.h @ONLY)

pybind11_add_module(_runtime MODULE NO_EXTRAS
  csrc/runtime/arrays.cpp
  csrc/runtime/model.cpp
  csrc/runtime/module.cpp
  csrc/runtime/session.cpp
  csrc/runtime/unchanged.cpp)
target_include_directories(_runtime PRIVATE ${PROJECT_BINARY_DIR}/generated)
target_link_libraries(_runtime PRIVATE fastltc_model fastltc_kernels fastltc_guarded_flags)

install(TARGETS _runtime LIBRARY DESTINATION ${FASTLTC_PACKAGE_DIR})
if(NOT FASTLTC_BUILD_TORCH)
  # Puts the folder of fastltc-runtime behind everything else on Python's path.
  install(FILES runtime/fastltc_runtime.pth DESTINATION .)
endif()
