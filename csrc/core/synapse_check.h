// Whether a list of synapses, or of a mask's entries, can be followed without leaving the matrix it
// indexes.
#pragma once

#include <cstdint>
#include <string>

namespace fastltc {

// `list`: `neurons` + 1 column pointers, then the rows of the synapses, `values` integers in all.
// Returns an empty string, or what was expected and what came. Rows must ascend within a column, so
// that no synapse stands twice and no gradient is written twice.
std::string synapse_list_error(const int32_t* list, int64_t values, int64_t neurons, int64_t rows);

// The same for a mask [outputs, inputs], whose list holds the entries by outputs, then by inputs
// with the place of each in the first order (core/masked_linear_problem.h): outputs + 1 pointers,
// as many inputs as there are entries, inputs + 1 pointers, outputs, places.
std::string mask_entries_error(const int32_t* list, int64_t values, int64_t outputs,
                               int64_t inputs);

// The part of it that can be said without reading the list: whether it has as many integers as some
// mask's has.
std::string mask_entries_count_error(int64_t values, int64_t outputs, int64_t inputs);

}  // namespace fastltc
