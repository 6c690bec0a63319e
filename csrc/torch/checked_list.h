// Lists of synapses, or of a mask's entries, in the host's memory. A call goes by a copy, so that what
// was checked is what is used, whoever writes to the tensor meanwhile. Lists stay the same from call
// to call: copies are kept with what they were checked for, and a call only compares.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace fastltc {

using CheckedList = std::shared_ptr<const std::vector<int32_t>>;

// One of core/synapse_check.h.
using ListError = std::string (*)(const int32_t* list, int64_t values, int64_t neurons,
                                  int64_t rows);

// Of `values` integers. Calls refuse(problem), which throws, where `error` finds one.
template <typename Refuse>
CheckedList checked_list(const int32_t* given, int64_t values, int64_t neurons, int64_t rows,
                         ListError error, Refuse refuse) {
  struct Known {
    ListError error;
    int64_t neurons, rows;
    CheckedList list;
  };
  // Of each thread, so that none waits for another, nor a forked process for one that it lacks.
  constexpr size_t most_lists = 32;
  constexpr int64_t most_values = 1 << 20;  // of a list, 4 MiB
  thread_local std::vector<Known> known;
  thread_local size_t oldest = 0;
  const size_t bytes = static_cast<size_t>(values) * sizeof(int32_t);
  for (const Known& one : known) {
    if (one.list->size() == static_cast<size_t>(values) && one.error == error &&
        one.neurons == neurons && one.rows == rows &&
        std::memcmp(one.list->data(), given, bytes) == 0) {
      return one.list;
    }
  }
  const auto list = std::make_shared<const std::vector<int32_t>>(given, given + values);
  const std::string problem = error(list->data(), values, neurons, rows);
  if (!problem.empty()) refuse(problem);
  if (values <= most_values) {
    if (known.size() < most_lists) known.emplace_back();
    known[oldest % most_lists] = {error, neurons, rows, list};
    ++oldest;
  }
  return list;
}

}  // namespace fastltc
