#include "core/synapse_check.h"

namespace fastltc {
namespace {

// The same question as the loop that finds the words for the answer, without a branch for each
// synapse: it is asked in every call. Where rows ascend, the first and the last say all.
bool rows_are_valid(const int32_t* column, const int32_t* row, int64_t neurons, int64_t rows) {
  const int64_t count = column[neurons];
  int32_t descents = 0;
  for (int64_t k = 1; k < count; ++k) descents += row[k] <= row[k - 1];
  bool inside = true;
  for (int64_t j = 0; j < neurons; ++j) {
    const int32_t begin = column[j], end = column[j + 1];
    if (begin == end) continue;
    inside = inside && row[begin] >= 0 && row[end - 1] < rows;
    // From one column to the next they may descend.
    if (begin > 0) descents -= row[begin] <= row[begin - 1];
  }
  return inside && descents == 0;
}

}  // namespace

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
  if (rows_are_valid(list, row, neurons, rows)) return {};
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

std::string mask_entries_count_error(int64_t values, int64_t outputs, int64_t inputs) {
  const int64_t pointers = outputs + 1 + inputs + 1;
  if (values >= pointers && (values - pointers) % 3 == 0) return {};
  return "expected " + std::to_string(pointers) + " pointers and three integers for each entry " +
         "of the mask, got " + std::to_string(values) + " integers";
}

std::string mask_entries_error(const int32_t* list, int64_t values, int64_t outputs,
                               int64_t inputs) {
  std::string problem = mask_entries_count_error(values, outputs, inputs);
  if (!problem.empty()) return problem;
  const int64_t count = (values - (outputs + 1) - (inputs + 1)) / 3;
  problem = synapse_list_error(list, outputs + 1 + count, outputs, inputs);
  if (!problem.empty()) return problem;
  const int32_t* const by_input = list + outputs + 1 + count;
  problem = synapse_list_error(by_input, inputs + 1 + count, inputs, outputs);
  if (!problem.empty()) return "by inputs: " + problem;
  const int32_t *const input = list + outputs + 1, *const output = by_input + inputs + 1;
  const int32_t* const place = output + count;
  for (int64_t i = 0; i < inputs; ++i) {
    for (int64_t k = by_input[i]; k < by_input[i + 1]; ++k) {
      const int32_t o = output[k], at = place[k];
      if (list[o] <= at && at < list[o + 1] && input[at] == i) continue;
      return "expected the place of output " + std::to_string(o) + " and input " +
             std::to_string(i) + " in the order of the outputs, got " + std::to_string(at);
    }
  }
  return {};
}

}  // namespace fastltc
