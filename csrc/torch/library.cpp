// Schemas of the operators. python/fastltc/ops documents their arguments.
#include <torch/csrc/stable/library.h>

#define FASTLTC_LTC_ARGUMENTS                                                               \
  "Tensor x, Tensor? h0, Tensor? timespans, Tensor? lengths, "                              \
  "Tensor gleak, Tensor vleak, Tensor cm, Tensor sigma, Tensor mu, Tensor w, Tensor erev, " \
  "Tensor sensory_sigma, Tensor sensory_mu, Tensor sensory_w, Tensor sensory_erev, "        \
  "Tensor? input_w, Tensor? input_b, Tensor? output_w, Tensor? output_b, "                  \
  "Tensor? memory_w, Tensor? memory_b, Tensor? memory_recurrent_w, "                        \
  "Tensor synapses, Tensor sensory_synapses, "

#define FASTLTC_CFC_ARGUMENTS                                        \
  "Tensor x, Tensor? h0, Tensor? timespans, Tensor? lengths, "       \
  "Tensor[] parameters, Tensor[] masks, int[] layer_sizes, "         \
  "int backbone_layers, int mode, int activation, Tensor? dropout, " \
  "Tensor? memory_w, Tensor? memory_b, Tensor? memory_recurrent_w, "

STABLE_TORCH_LIBRARY(fastltc, m) {
  m.def("ltc_forward(" FASTLTC_LTC_ARGUMENTS
        "int output_size, int ode_unfolds, float epsilon, bool softplus, bool return_sequences, "
        "bool time_major, bool save_states) -> (Tensor output, Tensor hn, Tensor states)");
  m.def(
      "ltc_backward(Tensor? grad_output, Tensor? grad_hn, " FASTLTC_LTC_ARGUMENTS
      "Tensor states, int output_size, int ode_unfolds, float epsilon, bool softplus, "
      "bool return_sequences, bool time_major, bool timespans_grad) -> "
      "(Tensor grad_x, Tensor grad_h0, Tensor grad_timespans, "
      "Tensor grad_gleak, Tensor grad_vleak, Tensor grad_cm, Tensor grad_sigma, Tensor grad_mu, "
      "Tensor grad_w, Tensor grad_erev, Tensor grad_sensory_sigma, Tensor grad_sensory_mu, "
      "Tensor grad_sensory_w, Tensor grad_sensory_erev, Tensor grad_input_w, Tensor grad_input_b, "
      "Tensor grad_output_w, Tensor grad_output_b, Tensor grad_memory_w, Tensor grad_memory_b, "
      "Tensor grad_memory_recurrent_w)");
  m.def("cfc_forward(" FASTLTC_CFC_ARGUMENTS
        "bool return_sequences, bool time_major, bool save_states) -> "
        "(Tensor output, Tensor hn, Tensor states)");
  m.def("cfc_backward(Tensor? grad_output, Tensor? grad_hn, " FASTLTC_CFC_ARGUMENTS
        "Tensor states, bool return_sequences, bool time_major, bool timespans_grad) -> "
        "(Tensor grad_x, Tensor grad_h0, Tensor grad_timespans, Tensor[] grad_parameters, "
        "Tensor grad_memory_w, Tensor grad_memory_b, Tensor grad_memory_recurrent_w)");
  m.def("masked_linear(Tensor x, Tensor weight, Tensor? bias, Tensor entries) -> Tensor");
  m.def(
      "masked_linear_backward(Tensor grad_output, Tensor x, Tensor weight, Tensor entries, "
      "bool bias_grad) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)");
}
