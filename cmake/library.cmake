# libfastltc: header, static and shared library, and the package that find_package(fastltc) finds.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# The version has one place.
file(STRINGS ${PROJECT_SOURCE_DIR}/pyproject.toml version REGEX "^version = ")
string(REGEX MATCH "[0-9][^\"]*" FASTLTC_VERSION "${version}")
string(REGEX MATCH "^[0-9]+\\.[0-9]+\\.[0-9]+" numbers "${FASTLTC_VERSION}")
string(REGEX MATCH "^[0-9]+" major "${numbers}")

# Of the kernels, those of streams alone.
set(objects $<TARGET_OBJECTS:fastltc_model> $<TARGET_OBJECTS:fastltc_kernels>)
foreach(isa IN LISTS FASTLTC_COPIES)
  list(APPEND objects $<TARGET_OBJECTS:fastltc_kernels_${isa}>)
endforeach()
set(unused "/(operator_exports|synapse_check|cfc_kernels|ltc_kernels|masked_linear_kernels)\\.")

# Compiled once for both.
add_library(fastltc_library OBJECT csrc/library/fastltc.cpp)
target_link_libraries(fastltc_library PRIVATE fastltc_guarded_flags)
target_include_directories(fastltc_library PRIVATE ${PROJECT_SOURCE_DIR}/include)
target_compile_options(fastltc_library PRIVATE -O2)
target_compile_definitions(fastltc_library PRIVATE
  FASTLTC_VERSION="${FASTLTC_VERSION}" FASTLTC_BUILDING_SHARED)

foreach(kind IN ITEMS SHARED STATIC)
  string(TOLOWER ${kind} name)
  add_library(fastltc_${name} ${kind}
    $<TARGET_OBJECTS:fastltc_library> "$<FILTER:${objects},EXCLUDE,${unused}>")
  set_target_properties(fastltc_${name} PROPERTIES
    EXPORT_NAME ${name} OUTPUT_NAME fastltc LINKER_LANGUAGE CXX
    VERSION ${numbers} SOVERSION ${major})
  target_include_directories(fastltc_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
  target_compile_features(fastltc_${name} INTERFACE cxx_std_17)
  if(FASTLTC_SANITIZE)
    target_link_options(fastltc_${name} PUBLIC -fsanitize=${FASTLTC_SANITIZE})
  endif()
endforeach()
# The C++ library's own templates are no part of the interface.
if(CMAKE_SYSTEM_NAME STREQUAL Linux)
  target_link_options(fastltc_shared PRIVATE -Wl,--gc-sections
    -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/library.map)
endif()

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/fastltc)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/fastltcConfigVersion.cmake
  VERSION ${numbers} COMPATIBILITY SameMinorVersion)
# A wheel built with these for the tests does not hold them.
set(library COMPONENT library)
if(SKBUILD)
  list(APPEND library EXCLUDE_FROM_ALL)
endif()
install(TARGETS fastltc_shared fastltc_static EXPORT fastltc ${library})
install(EXPORT fastltc NAMESPACE fastltc:: DESTINATION ${package} FILE fastltcTargets.cmake
  ${library})
install(FILES cmake/fastltcConfig.cmake ${PROJECT_BINARY_DIR}/fastltcConfigVersion.cmake
  DESTINATION ${package} ${library})
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} ${library})
