// Schemas of the operators. python/fastltc/ops documents their arguments.
#include <torch/csrc/stable/library.h>

#include "torch/cfc_operator.h"
#include "torch/ltc_operator.h"

STABLE_TORCH_LIBRARY(fastltc, m) {
  fastltc::define_sequence_operators(m, "ltc", fastltc::LtcArguments::schema);
  fastltc::define_sequence_operators(m, "cfc", fastltc::CfcArguments::schema);
  m.def("masked_linear(Tensor x, Tensor weight, Tensor? bias, Tensor entries) -> Tensor");
  m.def(
      "masked_linear_backward(Tensor grad_output, Tensor x, Tensor weight, Tensor entries, "
      "bool bias_grad) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)");
}
