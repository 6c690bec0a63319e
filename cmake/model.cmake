# What a model is, and its file: no torch, no Python; _runtime and libfastltc share it.

add_library(fastltc_model STATIC
  csrc/model/model_file.cpp
  csrc/model/network_builder.cpp
  csrc/model/sha256.cpp
  csrc/model/value.cpp)
target_link_libraries(fastltc_model PUBLIC fastltc_flags PRIVATE fastltc_guarded_flags)
target_compile_options(fastltc_model PRIVATE -O2)
