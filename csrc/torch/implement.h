// The operators' implementations for one device, for STABLE_TORCH_LIBRARY_IMPL.
#pragma once

#include <torch/csrc/stable/library.h>

#include "torch/cfc_operator.h"
#include "torch/ltc_operator.h"
#include "torch/masked_linear_operator.h"

namespace fastltc {

template <typename Device>
void implement_operators(torch::stable::detail::StableLibrary& library) {
  library.impl("ltc_forward", TORCH_BOX(&LtcOperator<Device>::forward));
  library.impl("ltc_backward", TORCH_BOX(&LtcOperator<Device>::backward));
  library.impl("cfc_forward", TORCH_BOX(&CfcOperator<Device>::forward));
  library.impl("cfc_backward", TORCH_BOX(&CfcOperator<Device>::backward));
  library.impl("masked_linear", TORCH_BOX(&masked_linear<Device>));
  library.impl("masked_linear_backward", TORCH_BOX(&masked_linear_backward<Device>));
}

}  // namespace fastltc
