// The model file, docs/export.md, for programs without Python; fastltc/runtime/model_file.py is the
// same for those with it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/network_builder.h"

namespace fastltc::model {

struct ModelFile {
  NetworkBuilder builder;  // its network points to `numbers`
  int64_t inputs = 0;
  double time_unit = 1.0;  // seconds
  bool medium_sigmoid = false;
  std::vector<std::string> input_names;
  std::vector<std::string> output_names;
  std::vector<float> numbers;
};

// Reads the content of a model file, as if a stranger had written it: sizes are compared with each
// other and with the content before anything is allocated for them. Throws std::invalid_argument,
// naming the fault: truncated, damaged, of a newer version, or a model that cannot be.
ModelFile parse_model_file(std::string_view content);

// The content of a regular file. Throws std::system_error where it cannot be read, and
// std::invalid_argument where it is no regular file or too long for a model.
std::string read_file(const std::string& path);

}  // namespace fastltc::model
