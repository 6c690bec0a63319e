#include "core/synapse_check.h"

namespace fastltc {

std::string synapse_list_error(const int32_t* list, int64_t values, int64_t neurons, int64_t rows) {
  if (values < neurons + 1) {
    return "expected at least " + std::to_string(neurons + 1) + " integers (column pointers for " +
           std::to_string(neurons) + " neurons), got " + std::to_string(values);
  }
  const int64_t count = values - neurons - 1;
  if (list[0] != 0)
    return "expected the first column pointer to be 0, got " + std::to_string(list[0]);
  if (list[neurons] != count) {
    return "expected the last column pointer to be the number of synapses, " +
           std::to_string(count) + ", got " + std::to_string(list[neurons]);
  }
  // All pointers before any row is read: ascending from 0 to count, they stay inside the list.
  for (int64_t j = 0; j < neurons; ++j) {
    if (list[j + 1] < list[j]) {
      return "expected ascending column pointers, got " + std::to_string(list[j]) + " then " +
             std::to_string(list[j + 1]) + " at neuron " + std::to_string(j);
    }
  }
  const int32_t* const row = list + neurons + 1;
  for (int64_t j = 0; j < neurons; ++j) {
    for (int64_t k = list[j]; k < list[j + 1]; ++k) {
      if (row[k] < 0 || row[k] >= rows) {
        return "expected presynaptic indices in [0, " + std::to_string(rows) + "), got " +
               std::to_string(row[k]) + " at neuron " + std::to_string(j);
      }
      if (k > list[j] && row[k] <= row[k - 1]) {
        return "expected ascending presynaptic indices for each neuron, got " +
               std::to_string(row[k - 1]) + " then " + std::to_string(row[k]) + " at neuron " +
               std::to_string(j);
      }
    }
  }
  return {};
}

}  // namespace fastltc
