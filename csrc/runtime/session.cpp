// The Python type of a session, by Python's own C interface: a step takes less than a microsecond,
// of which the general dispatch of pybind11 would be the larger part. Everything is checked before
// the state changes.
#include "runtime/session.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "cpu/stream.h"
#include "runtime/arrays.h"
#include "runtime/calls.h"
#include "runtime/flags.h"
#include "runtime/model.h"
#include "runtime/session_text.h"
#include "runtime/unlocked.h"

namespace py = pybind11;

namespace fastltc::runtime {

namespace {

// Work from which on other threads may run Python meanwhile, in cycles: some 3 us. Giving the
// interpreter lock away for less gains nothing, and getting it back can take as long as another
// thread likes to run, 5 ms by default.
constexpr int64_t kWorthUnlocking = 10000;
// After about so many cycles a sequence looks for Ctrl-C.
constexpr int64_t kBetweenSignals = 200000000;

struct Session {
  PyObject_HEAD PyObject* network;  // the Network that `cpp` reads
  cpu::StreamSession* cpp;
  int64_t inputs;
  int64_t outputs;
  int64_t state_size;
  int64_t streams;
  int64_t cycles;  // of a step, about
  std::atomic<bool> busy;
};

Session& self_of(PyObject* object) { return *reinterpret_cast<Session*>(object); }

// Keeps a second thread out while one uses the session; throws there.
class InUse {
 public:
  explicit InUse(Session& session) : session_(session) {
    if (session.busy.exchange(true, std::memory_order_acquire)) {
      throw std::runtime_error(
          "this session is in use by another thread; make one session for each thread, they share "
          "the weights of one network");
    }
  }
  ~InUse() { session_.busy.store(false, std::memory_order_release); }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;

 private:
  Session& session_;
};

std::string streams_text(int64_t streams) {
  return std::to_string(streams) + (streams == 1 ? " stream" : " streams");
}

// --- time steps ---

// The unit of a session's time steps, for people.
std::string unit_text(const Session& session) {
  const double unit = network_of("network", session.network).time_unit();
  if (unit == 1.0) return "seconds";
  char text[64];
  std::snprintf(text, sizeof text, "units of %.9g s", unit);
  return text;
}

// What the repr says of it: nothing of seconds.
std::string unit_remark(const Session& session) {
  const std::string text = unit_text(session);
  return text == "seconds" ? "" : ", time steps in " + text;
}

[[noreturn]] void fail_time(const Session& session, const char* name, const std::string& found) {
  throw py::value_error(std::string(name) +
                        ": expected finite time steps, not negative and at most " + kLargest +
                        ", in " + unit_text(session) + ", got " + found);
}

// Written so that a NaN fails. What is no float32 is no infinity, but too large for one.
bool is_time(double value) {
  return value >= 0.0 && value <= static_cast<double>(std::numeric_limits<float>::max());
}

// A number, or an array of them.
class TimeSteps {
 public:
  // Null stands for 1.
  TimeSteps(const Session& session, const char* name, PyObject* object) {
    if (object == nullptr) return;
    if (PyFloat_CheckExact(object)) {
      set(session, name, PyFloat_AS_DOUBLE(object), object);
    } else if (is_number(object)) {
      const double value = PyFloat_AsDouble(object);
      if (value == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) throw py::error_already_set();
        PyErr_Clear();
        fail_time(session, name, "an integer of more than 300 digits");
      }
      set(session, name, value, object);
    } else {
      array_ =
          is_plain(object) ? py::reinterpret_borrow<py::object>(object) : convert(name, object);
      const ArrayView view(array_.ptr());
      if (view.dimensions == 0) {
        set(session, name, *view.data, object);
        array_ = py::object();
        return;
      }
      const int64_t count = view.size();
      for (int64_t k = 0; k < count; ++k) {
        if (!is_time(view.data[k])) fail_time(session, name, given_text(object, k));
      }
    }
  }
  const float* one() const { return &value_; }
  bool is_array() const { return static_cast<bool>(array_); }
  ArrayView view() const { return ArrayView(array_.ptr()); }

 private:
  float value_ = 1.0f;
  py::object array_;

  static bool is_number(PyObject* object) {
    static PyObject* const float32_scalar =
        numpy().PyArray_TypeObjectFromType_(py::detail::npy_api::NPY_FLOAT_);
    return PyFloat_Check(object) || PyLong_Check(object) ||
           reinterpret_cast<PyObject*>(Py_TYPE(object)) == float32_scalar;
  }
  void set(const Session& session, const char* name, double value, PyObject* object) {
    if (!is_time(value)) fail_time(session, name, given_text(object, 0));
    value_ = static_cast<float>(value);
  }
};

// --- steps ---

// Whether so many values share memory with an array.
template <typename V>
bool overlap(const V* from, int64_t count, const ArrayView& array) {
  const auto begin = reinterpret_cast<uintptr_t>(from);
  const auto other = reinterpret_cast<uintptr_t>(array.data);
  return begin < other + array.size() * sizeof(float) && other < begin + count * sizeof(V);
}

// Rows of x that a step reads, `steps` of them one after another, and what belongs to them.
struct Steps {
  int64_t steps = 1;
  const float* x = nullptr;
  const float* dt = nullptr;
  int64_t dt_step = 0;    // from one step's dt to the next's
  int64_t dt_stride = 0;  // from one stream's to the next's
  // Whether all streams, or each of them, begin a step anew; null: none does.
  const bool* resets = nullptr;
  int64_t resets_step = 0;  // from one step's to the next's
  bool resets_each = false;
  float* y = nullptr;

  // Whether all of them ran; not so when a signal handler raised.
  bool run(Session& session) const {
    const InUse in_use(session);
    const bool unlock =
        session.cycles > kWorthUnlocking || steps * session.cycles > kWorthUnlocking;
    const int64_t most = 1 + kBetweenSignals / (session.cycles + 1);
    for (int64_t t = 0; t < steps;) {
      if (t > 0 && PyErr_CheckSignals() != 0) return false;
      const Unlocked unlocked(unlock);
      const int64_t end = steps - t > most ? t + most : steps;
      for (; t < end; ++t) {
        if (resets != nullptr) begin(session, resets + t * resets_step);
        session.cpp->step(x + t * session.streams * session.inputs, dt + t * dt_step, dt_stride,
                          y + t * session.streams * session.outputs);
      }
    }
    return true;
  }

 private:
  void begin(Session& session, const bool* anew) const {
    if (!resets_each) {
      if (*anew) session.cpp->reset();
    } else if (std::find(anew, anew + session.streams, true) != anew + session.streams) {
      session.cpp->reset(anew);
    }
  }
};

void take_resets(const Session& self, const char* name, const Flags& resets, bool sequence,
                 Steps& steps) {
  const auto has_shape = [&](Shape shape) {
    if (!resets.is_array()) return false;
    return sequence ? resets.view().has_shape_after(steps.steps, shape)
                    : resets.view().has_shape(shape);
  };
  const bool each = has_shape({self.streams});
  if (!each && !(sequence ? has_shape({}) : !resets.is_array())) {
    const std::string streams = std::to_string(self.streams);
    throw py::value_error(
        std::string(name) + ": expected " +
        (sequence ? "shape [T] or [T, " + streams + "], T = " + std::to_string(steps.steps)
                  : "a bool or shape [" + streams + "]") +
        ", got " + (resets.is_array() ? resets.view().shape_text() : "one bool"));
  }
  steps.resets = resets.data();
  steps.resets_each = each;
  if (sequence) steps.resets_step = each ? self.streams : 1;
}

PyObject* finish(Session& self, Steps steps, const ArrayView& x, const TimeSteps& dt,
                 const Flags& resets, py::object out) {
  // What the outputs would overwrite before it is read.
  std::vector<float> x_copy, dt_copy;
  std::unique_ptr<bool[]> resets_copy;
  const ArrayView y(out.ptr());
  steps.x = x.data;
  steps.y = y.data;
  // Rows may take the place of rows, as long as both are of one size.
  const bool in_place = x.data == y.data && self.inputs == self.outputs;
  if (!in_place && overlap(x.data, x.size(), y)) {
    x_copy.assign(x.data, x.data + x.size());
    steps.x = x_copy.data();
  }
  if (dt.is_array()) {
    const ArrayView times = dt.view();
    if (overlap(times.data, times.size(), y)) {
      dt_copy.assign(times.data, times.data + times.size());
      steps.dt = dt_copy.data();
    }
  }
  if (resets.is_array()) {
    const int64_t count = resets.view().size();
    if (overlap(steps.resets, count, y)) {
      resets_copy.reset(new bool[static_cast<size_t>(count)]);
      std::copy_n(steps.resets, count, resets_copy.get());
      steps.resets = resets_copy.get();
    }
  }
  if (!steps.run(self)) return nullptr;
  return out.release().ptr();
}

// One time step, or a sequence of them: x [T, S, I], where `sequence` is set, else [S, I]; without
// S for one stream.
PyObject* advance(PyObject* object, PyObject* const* arguments, Py_ssize_t count,
                  PyObject* keywords, const Signature<4>& signature, bool sequence) {
  return guarded([&]() -> PyObject* {
    Session& self = self_of(object);
    PyObject* values[4] = {};
    signature.parse(arguments, count, keywords, values);
    const char *const x_name = signature.names[0], *const dt_name = signature.names[1];
    const char* const resets_name = signature.names[3];
    const Input input(x_name, values[0]);
    const ArrayView& x = input.view;
    Steps steps;
    if (sequence) steps.steps = x.dimensions > 0 ? x.shape[0] : 0;
    const auto has_shape = [&](const ArrayView& array, Shape shape) {
      return sequence ? array.has_shape_after(steps.steps, shape) : array.has_shape(shape);
    };
    if (!has_shape(x, {self.streams, self.inputs}) &&
        !(self.streams == 1 && has_shape(x, {self.inputs}))) {
      const std::string streams = std::to_string(self.streams);
      const std::string inputs = std::to_string(self.inputs), before = sequence ? "T, " : "";
      throw py::value_error(std::string(x_name) + ": expected shape [" + before +
                            (self.streams == 1 ? inputs + "] or [" + before + "1, " + inputs
                                               : streams + ", " + inputs) +
                            "] for " + streams_text(self.streams) + ", got " + x.shape_text());
    }
    check_finite(x_name, input);
    const TimeSteps dt(self, dt_name, sequence && values[1] == Py_None ? nullptr : values[1]);
    steps.dt = dt.one();
    if (dt.is_array()) {
      const ArrayView view = dt.view();
      const bool each = has_shape(view, {self.streams});
      if (!each && !(sequence && has_shape(view, {}))) {
        const std::string streams = std::to_string(self.streams);
        throw py::value_error(
            std::string(dt_name) + ": expected a number" +
            (sequence ? ", shape [T] or [T, " + streams + "], T = " + std::to_string(steps.steps)
                      : " or shape [" + streams + "]") +
            ", got " + view.shape_text());
      }
      steps.dt = view.data;
      if (sequence) steps.dt_step = each ? self.streams : 1;
      steps.dt_stride = each ? 1 : 0;
    }
    const Flags resets(resets_name, values[3]);
    if (resets) take_resets(self, resets_name, resets, sequence, steps);
    return finish(self, steps, x, dt, resets, output_array(values[2], x, self.outputs));
  });
}

constexpr Signature<4> kStep = {"step", {"x", "dt", "out", "reset"}, 1};
constexpr Signature<4> kRun = {"run", {"xs", "timespans", "out", "resets"}, 1};

PyObject* step(PyObject* object, PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  return advance(object, arguments, count, keywords, kStep, false);
}
PyObject* run(PyObject* object, PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  return advance(object, arguments, count, keywords, kRun, true);
}

// --- state ---

PyObject* get_state(PyObject* object, PyObject*) {
  return guarded([&]() -> PyObject* {
    Session& self = self_of(object);
    const Py_intptr_t shape[2] = {self.streams, self.state_size};
    py::object state = new_array(2, shape);
    const InUse in_use(self);
    self.cpp->get_state(ArrayView(state.ptr()).data);
    return state.release().ptr();
  });
}

PyObject* set_state(PyObject* object, PyObject* state) {
  return guarded([&]() -> PyObject* {
    Session& self = self_of(object);
    const Input input("state", state);
    const ArrayView& view = input.view;
    if (!view.has_shape({self.streams, self.state_size}) &&
        !(self.streams == 1 && view.has_shape({self.state_size}))) {
      throw py::value_error("state: expected shape [" + std::to_string(self.streams) + ", " +
                            std::to_string(self.state_size) + "] (streams, state_size), got " +
                            view.shape_text());
    }
    check_finite("state", input);
    const InUse in_use(self);
    self.cpp->set_state(view.data);
    Py_RETURN_NONE;
  });
}

constexpr Signature<1> kReset = {"reset", {"streams"}, 0};

PyObject* reset(PyObject* object, PyObject* const* arguments, Py_ssize_t count,
                PyObject* keywords) {
  return guarded([&]() -> PyObject* {
    Session& self = self_of(object);
    PyObject* values[1] = {};
    kReset.parse(arguments, count, keywords, values);
    if (values[0] == nullptr || values[0] == Py_None) {
      const InUse in_use(self);
      self.cpp->reset();
      Py_RETURN_NONE;
    }
    const auto chosen = std::make_unique<bool[]>(static_cast<size_t>(self.streams));
    const auto add = [&](py::handle index) {
      // A bool is an index to Python, but a list of them would be meant as a mask.
      if (PyBool_Check(index.ptr()) || !PyIndex_Check(index.ptr())) {
        throw py::type_error(std::string("streams: expected an index or indices, got ") +
                             Py_TYPE(index.ptr())->tp_name);
      }
      const Py_ssize_t value = PyNumber_AsSsize_t(index.ptr(), PyExc_IndexError);
      if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
      if (value < -self.streams || value >= self.streams) {
        throw py::index_error("streams: expected indices of " + streams_text(self.streams) +
                              ", got " + std::to_string(value));
      }
      chosen[static_cast<size_t>(value < 0 ? value + self.streams : value)] = true;
    };
    // Arrays are both.
    if (PyIndex_Check(values[0]) && !PySequence_Check(values[0])) {
      add(values[0]);
    } else {
      for (const py::handle index : py::iter(values[0])) add(index);
    }
    const InUse in_use(self);
    self.cpp->reset(chosen.get());
    Py_RETURN_NONE;
  });
}

// --- the type ---

PyObject* create(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  return guarded([&]() -> PyObject* {
    static const char* names[] = {"network", "streams", nullptr};
    PyObject* network = nullptr;
    Py_ssize_t streams = 1;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O|n:Session", const_cast<char**>(names),
                                     &network, &streams)) {
      return nullptr;
    }
    const cpu::StreamNetwork& prepared = network_of("network", network).network();
    constexpr int64_t most = int64_t{1} << 24;
    if (streams < 1 || streams > most) {
      throw py::value_error("streams: expected 1 to " + std::to_string(most) + ", got " +
                            std::to_string(streams));
    }
    std::unique_ptr<cpu::StreamSession> cpp(prepared.make_session(streams));
    PyObject* const object = type->tp_alloc(type, 0);
    if (object == nullptr) return nullptr;
    Session& self = self_of(object);
    Py_INCREF(network);
    self.network = network;
    self.cpp = cpp.release();
    self.inputs = prepared.inputs();
    self.outputs = prepared.outputs();
    self.state_size = prepared.state_size();
    self.streams = streams;
    self.cycles = prepared.cycles(streams);
    new (&self.busy) std::atomic<bool>(false);
    return object;
  });
}

void destroy(PyObject* object) {
  Session& self = self_of(object);
  delete self.cpp;
  Py_XDECREF(self.network);
  PyTypeObject* const type = Py_TYPE(object);
  type->tp_free(object);
  Py_DECREF(type);
}

PyObject* represent(PyObject* object) {
  return guarded([&]() -> PyObject* {
    const Session& self = self_of(object);
    const std::string text = "Session(" + std::to_string(self.inputs) + " inputs, " +
                             std::to_string(self.outputs) + " outputs, " +
                             std::to_string(self.state_size) + " state values, " +
                             streams_text(self.streams) + unit_remark(self) + ")";
    return py::str(text).release().ptr();
  });
}

template <int64_t Session::* member>
PyObject* size_of(PyObject* object, void*) {
  return PyLong_FromLongLong(self_of(object).*member);
}
PyObject* get_time_unit(PyObject* object, void*) {
  return guarded([&]() -> PyObject* {
    return PyFloat_FromDouble(network_of("network", self_of(object).network).time_unit());
  });
}
PyObject* get_network(PyObject* object, void*) {
  Py_INCREF(self_of(object).network);
  return self_of(object).network;
}

PyMethodDef methods[] = {{"step", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&step)),
                          METH_FASTCALL | METH_KEYWORDS, kStepText},
                         {"run", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&run)),
                          METH_FASTCALL | METH_KEYWORDS, kRunText},
                         {"reset", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&reset)),
                          METH_FASTCALL | METH_KEYWORDS, kResetText},
                         {"get_state", &get_state, METH_NOARGS, kGetStateText},
                         {"set_state", &set_state, METH_O, kSetStateText},
                         {nullptr, nullptr, 0, nullptr}};

PyGetSetDef properties[] = {
    {"network", &get_network, nullptr, "The network, with its weights.", nullptr},
    {"streams", &size_of<&Session::streams>, nullptr, "Number of streams, S.", nullptr},
    {"input_size", &size_of<&Session::inputs>, nullptr, "Number of inputs of a stream, I.",
     nullptr},
    {"output_size", &size_of<&Session::outputs>, nullptr, "Number of outputs of a stream, M.",
     nullptr},
    {"state_size", &size_of<&Session::state_size>, nullptr, "Numbers that a stream carries.",
     nullptr},
    {"time_unit", &get_time_unit, nullptr, "Seconds that one unit of a time step is.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(&create)},
                       {Py_tp_dealloc, reinterpret_cast<void*>(&destroy)},
                       {Py_tp_repr, reinterpret_cast<void*>(&represent)},
                       {Py_tp_methods, methods},
                       {Py_tp_getset, properties},
                       {0, nullptr}};

PyType_Spec spec = {"fastltc._runtime.Session", sizeof(Session), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};

}  // namespace

void add_session(py::module_& module) {
  const auto type = py::reinterpret_steal<py::object>(PyType_FromSpec(&spec));
  if (!type) throw py::error_already_set();
  module.attr("Session") = type;
}

}  // namespace fastltc::runtime
