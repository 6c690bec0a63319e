// Schemas of the operators.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(fastltc, m) { (void)m; }
