// fastltc._runtime: what Python can use where no torch is installed.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "build_info.h"
#include "cpu/frame/isa.h"
#include "cpu/sigmoid.h"
#include "runtime/model.h"
#include "runtime/session.h"
#include "runtime/unchanged.h"
#include "runtime/unlocked.h"

namespace py = pybind11;
using fastltc::cpu::Isa;

namespace {

std::vector<std::string> names(const std::vector<Isa>& isas) {
  std::vector<std::string> result;
  for (const Isa isa : isas) result.emplace_back(fastltc::cpu::isa_name(isa));
  return result;
}

py::dict cpu_info() {
  const Isa active = fastltc::cpu::active_isa();
  const std::size_t bytes = fastltc::cpu::vector_bytes(active);
  py::dict lanes;
  lanes["float32"] = bytes / sizeof(float);
  lanes["float64"] = bytes / sizeof(double);
  py::dict info;
  info["compiled"] = names(fastltc::cpu::compiled_isas());
  info["supported"] = names(fastltc::cpu::supported_isas());
  info["chosen"] = fastltc::cpu::isa_name(active);
  info["lanes"] = lanes;
  info["maker"] = fastltc::cpu::processor_maker();
  return info;
}

py::dict build_info() {
  py::dict info;
  info["torch"] = FASTLTC_BUILD_TORCH_VERSION;
  info["compiler"] = FASTLTC_BUILD_COMPILER;
  info["build_type"] = FASTLTC_BUILD_TYPE;
  info["cuda"] = static_cast<bool>(FASTLTC_BUILD_CUDA);
  info["cuda_reason"] = FASTLTC_BUILD_CUDA_REASON;
  return info;
}

}  // namespace

PYBIND11_MODULE(_runtime, m) {
  m.doc() = "The part of fastltc's compiled code that needs no torch.";
  m.def("cpu_info", &cpu_info,
        "Return the instruction sets compiled, supported by this processor and chosen, the lanes "
        "of the chosen one, and the maker of the processor. Raises ValueError if FASTLTC_CPU asks "
        "for one that is not possible here.");
  m.def(
      "sigmoid_limit",
      [](int64_t repeats) {
        const fastltc::runtime::Unlocked unlocked;
        return fastltc::cpu::sigmoid_limit(repeats);
      },
      py::arg("repeats"),
      "Evaluate the kernels' sigmoid on data in registers, with the multiply-add before it and the "
      "two accumulations after it, and return how many evaluations that were. Benchmarks time it: "
      "its rate is what no kernel can exceed on this machine.");
  m.def("build_info", &build_info, "Return what this build was made of.");
  m.add_object("unchanged", fastltc::runtime::unchanged_function());

  using fastltc::runtime::network_of;
  using fastltc::runtime::NetworkObject;
  py::class_<NetworkObject>(m, "Network")
      .def(py::init<int64_t, const py::list&, const py::dict&, double, bool>(),
           py::arg("input_size"), py::arg("layers"), py::arg("tensors"), py::arg("time_unit") = 1.0,
           py::arg("medium_sigmoid") = false)
      .def_property_readonly(
          "input_size", [](py::handle self) { return network_of("self", self).network().inputs(); })
      .def_property_readonly(
          "output_size",
          [](py::handle self) { return network_of("self", self).network().outputs(); })
      .def_property_readonly(
          "state_size",
          [](py::handle self) { return network_of("self", self).network().state_size(); })
      .def_property_readonly("time_unit",
                             [](py::handle self) { return network_of("self", self).time_unit(); });
  fastltc::runtime::add_session(m);
}
