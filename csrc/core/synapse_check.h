// Whether a synapse list can be followed without leaving the matrix it indexes.
#pragma once

#include <cstdint>
#include <string>

namespace fastltc {

// `list`: `neurons` + 1 column pointers, then the rows of the synapses, `values` integers in all.
// Returns an empty string, or what was expected and what came. Rows must ascend within a column, so
// that no synapse stands twice and no gradient is written twice.
std::string synapse_list_error(const int32_t* list, int64_t values, int64_t neurons, int64_t rows);

}  // namespace fastltc
