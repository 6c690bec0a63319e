# The library inside the Python package that needs no torch: _runtime (pybind11).

find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
# In a folder that was built in before, that of an earlier isolated build may be gone.
if(NOT EXISTS "${pybind11_DIR}/pybind11Config.cmake")
  unset(pybind11_DIR CACHE)
  execute_process(COMMAND ${Python_EXECUTABLE} -m pybind11 --cmakedir
    OUTPUT_VARIABLE pybind11_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_package(pybind11 3 CONFIG REQUIRED)
# Its headers at a place and of an age that do not change from one isolated build to the next: what
# includes them is then not compiled again.
get_target_property(pybind11_include pybind11::pybind11_headers INTERFACE_INCLUDE_DIRECTORIES)
list(GET pybind11_include 0 pybind11_from)
set(pybind11_to ${PROJECT_BINARY_DIR}/pybind11)
file(GLOB_RECURSE headers RELATIVE ${pybind11_from} ${pybind11_from}/pybind11/*.h)
foreach(header IN LISTS headers)
  get_filename_component(folder ${pybind11_to}/${header} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  file(COPY_FILE ${pybind11_from}/${header} ${pybind11_to}/${header} ONLY_IF_DIFFERENT)
endforeach()
list(REMOVE_AT pybind11_include 0)
set_target_properties(pybind11::pybind11_headers PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${pybind11_to};${pybind11_include}"
  INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${pybind11_to};${pybind11_include}")

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
