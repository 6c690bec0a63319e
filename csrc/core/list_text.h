// Sizes in the text of an error.
#pragma once

#include <cstdint>
#include <string>

namespace fastltc {

// As Python writes a list.
template <typename Sizes>
std::string list_text(const Sizes& sizes) {
  std::string text = "[";
  const char* separator = "";
  for (const int64_t size : sizes) {
    text += separator + std::to_string(size);
    separator = ", ";
  }
  return text + "]";
}

}  // namespace fastltc
