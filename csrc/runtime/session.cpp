// The Python type of a session, by Python's own C interface: a step takes less than a microsecond,
// of which the general dispatch of pybind11 would be the larger part.
//
// Arrays that are float32, C-contiguous and of the right shape are read where they are; whatever
// else numpy makes real numbers of is converted first, unless it says more than its numbers (a
// mask, a unit). Everything is checked before the state changes.
#include "runtime/session.h"

#include <pybind11/numpy.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "cpu/stream.h"
#include "runtime/network.h"
#include "runtime/unlocked.h"

namespace py = pybind11;

namespace fastltc::runtime {

namespace {

using Shape = std::initializer_list<int64_t>;

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

// Runs a method's body; what it throws becomes Python's exception.
template <typename Body>
PyObject* guarded(Body body) {
  try {
    return body();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::type_error& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
  } catch (const py::value_error& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const py::index_error& error) {
    PyErr_SetString(PyExc_IndexError, error.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// --- arguments ---

// The names of a method's arguments, which is also their order, and how many must be there.
template <size_t n>
struct Signature {
  const char* method;
  const char* names[n];
  size_t required;

  // Writes borrowed references, null for what was not given.
  void parse(PyObject* const* given, Py_ssize_t count, PyObject* keywords,
             PyObject* (&values)[n]) const {
    if (count > static_cast<Py_ssize_t>(n)) {
      throw py::type_error(std::string(method) + "() takes at most " + std::to_string(n) +
                           " arguments, got " + std::to_string(count));
    }
    for (Py_ssize_t k = 0; k < count; ++k) values[k] = given[k];
    const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
    for (Py_ssize_t k = 0; k < named; ++k) {
      PyObject* const keyword = PyTuple_GET_ITEM(keywords, k);
      size_t at = 0;
      while (at < n && PyUnicode_CompareWithASCIIString(keyword, names[at]) != 0) ++at;
      const std::string name = py::cast<std::string>(py::handle(keyword));
      if (at == n) {
        throw py::type_error(std::string(method) + "() has no argument '" + name + "'");
      }
      if (values[at] != nullptr) {
        throw py::type_error(std::string(method) + "() got '" + name + "' twice");
      }
      values[at] = given[count + k];
    }
    for (size_t k = 0; k < required; ++k) {
      if (values[k] == nullptr) {
        throw py::type_error(std::string(method) + "() lacks the argument '" + names[k] + "'");
      }
    }
  }
};

// --- arrays ---

const py::detail::npy_api& numpy() { return py::detail::npy_api::get(); }

// The one descriptor of native float32.
PyObject* float32() {
  static PyObject* const descriptor =
      numpy().PyArray_DescrFromType_(py::detail::npy_api::NPY_FLOAT_);
  return descriptor;
}

struct ArrayView {
  float* data = nullptr;
  int dimensions = 0;
  const Py_intptr_t* shape = nullptr;

  explicit ArrayView(PyObject* array) {
    const py::detail::PyArray_Proxy* const proxy = py::detail::array_proxy(array);
    data = reinterpret_cast<float*>(proxy->data);
    dimensions = proxy->nd;
    shape = proxy->dimensions;
  }
  bool has_shape(Shape wanted) const {
    if (dimensions != static_cast<int>(wanted.size())) return false;
    const Py_intptr_t* at = shape;
    for (const int64_t size : wanted) {
      if (*at++ != size) return false;
    }
    return true;
  }
  int64_t size() const {
    int64_t total = 1;
    for (int k = 0; k < dimensions; ++k) total *= shape[k];
    return total;
  }
  std::string shape_text() const {
    std::string text = "[";
    for (int k = 0; k < dimensions; ++k) text += (k ? ", " : "") + std::to_string(shape[k]);
    return text + "]";
  }
};

// Of an array, whether its memory is that of a plain one.
bool has_plain_memory(PyObject* array) {
  constexpr int wanted =
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const py::detail::PyArray_Proxy* const proxy = py::detail::array_proxy(array);
  return proxy->descr == float32() && (proxy->flags & wanted) == wanted;
}

// Not so for subclasses, which may mean something else than their numbers.
bool is_array(PyObject* object) { return Py_TYPE(object) == numpy().PyArray_Type_; }
bool is_plain(PyObject* object) { return is_array(object) && has_plain_memory(object); }

// Throws where a class says more than its numbers, which would be lost: masked arrays, quantities
// with a unit; also in lists.
void refuse_more_than_numbers(const char* name, py::handle object) {
  if (is_array(object.ptr())) return;
  for (const char* part : {"mask", "unit", "units"}) {
    // pandas has a method of that name.
    const py::object attribute = py::getattr(py::type::handle_of(object), part, py::none());
    if (PyObject_TypeCheck(attribute.ptr(), &PyProperty_Type)) {
      throw py::type_error(std::string(name) + ": expected numbers alone, got " +
                           Py_TYPE(object.ptr())->tp_name + ", whose " + part +
                           " would be ignored; pass an array of plain numbers");
    }
  }
  if (!PyList_Check(object.ptr()) && !PyTuple_Check(object.ptr())) return;
  for (const py::handle item : py::reinterpret_borrow<py::sequence>(object)) {
    if (!PyFloat_CheckExact(item.ptr()) && !PyLong_CheckExact(item.ptr())) {
      refuse_more_than_numbers(name, item);
    }
  }
}

// Whatever numpy makes real numbers of, as a plain array.
py::object convert(const char* name, PyObject* object) {
  const auto from_any = [](PyObject* from, PyObject* descriptor, int flags) {
    Py_XINCREF(descriptor);  // which the call takes
    return py::reinterpret_steal<py::object>(
        numpy().PyArray_FromAny_(from, descriptor, 0, 0, flags, nullptr));
  };
  const py::object array = from_any(object, nullptr, 0);
  if (!array) throw py::error_already_set();
  const auto dtype = py::reinterpret_borrow<py::array>(array).dtype();
  if (std::strchr("biuf", dtype.kind()) == nullptr) {
    throw py::type_error(std::string(name) + ": expected real numbers, got " +
                         Py_TYPE(object)->tp_name + " of dtype " +
                         py::str(dtype).cast<std::string>());
  }
  // Both: what is no array may give one that is masked. Only here, where lists are known to end.
  refuse_more_than_numbers(name, array);
  refuse_more_than_numbers(name, object);
  py::object result = from_any(
      array.ptr(), float32(),
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_ |
          py::detail::npy_api::NPY_ARRAY_ENSUREARRAY_ | py::detail::npy_api::NPY_ARRAY_FORCECAST_);
  if (!result) throw py::error_already_set();
  return result;
}

// An array to read: the argument itself where it is plain, else a copy that lives as long as this.
class Input {
 public:
  Input(const char* name, PyObject* object)
      : copy_(is_plain(object) ? py::object() : convert(name, object)),
        view(copy_ ? copy_.ptr() : object),
        given(object) {}

 private:
  py::object copy_;

 public:
  ArrayView view;
  PyObject* given;  // the argument
};

constexpr const char* kLargest = "3.40282e+38";  // of a float, for people

// A number of an argument as it was given: converted to float32, a finite one may be infinite.
std::string given_text(PyObject* object, int64_t at) {
  const py::object array = py::module_::import("numpy").attr("asarray")(py::handle(object));
  return py::str(array.attr("reshape")(-1)[py::int_(at)]).cast<std::string>();
}

void check_finite(const char* name, const Input& input) {
  const ArrayView& array = input.view;
  const int64_t count = array.size();
  if (cpu::all_finite(array.data, count)) return;
  int64_t at = 0;
  while (std::isfinite(array.data[at])) ++at;
  std::string index;
  int64_t rest = at;
  for (int k = array.dimensions - 1; k >= 0; --k) {
    index = std::to_string(rest % array.shape[k]) + (index.empty() ? "" : ", ") + index;
    rest /= array.shape[k];
  }
  const std::string found = given_text(input.given, at);
  const bool large = found.find_first_of("0123456789") != std::string::npos;
  throw py::value_error(std::string(name) + ": expected finite numbers" +
                        (large ? std::string(" of at most ") + kLargest : "") + ", got " + found +
                        " at [" + index + "]");
}

py::object new_array(const ArrayView& like, int64_t last) {
  constexpr int most = 3;
  Py_intptr_t shape[most];
  for (int k = 0; k < like.dimensions; ++k) shape[k] = like.shape[k];
  shape[like.dimensions - 1] = last;
  Py_INCREF(float32());  // which the call takes
  PyObject* const array = numpy().PyArray_NewFromDescr_(
      numpy().PyArray_Type_, float32(), like.dimensions, shape, nullptr, nullptr, 0, nullptr);
  if (array == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(array);
}

// `out`, or a new array: of the shape of `like`, but for its last dimension.
py::object output_array(PyObject* out, const ArrayView& like, int64_t last) {
  if (out == nullptr || out == Py_None) return new_array(like, last);
  if (!numpy().PyArray_Check_(out)) {
    throw py::type_error(std::string("out: expected a numpy array, got ") + Py_TYPE(out)->tp_name);
  }
  if (!is_array(out)) refuse_more_than_numbers("out", out);
  if (!has_plain_memory(out)) {
    const auto dtype = py::reinterpret_borrow<py::array>(out).dtype();
    if (!dtype.is(py::handle(float32()))) {
      throw py::type_error("out: expected dtype float32, got " +
                           py::str(dtype).cast<std::string>());
    }
    throw py::value_error("out: expected a C-contiguous array");
  }
  const ArrayView view(out);
  bool fits = view.dimensions == like.dimensions && view.shape[view.dimensions - 1] == last;
  for (int k = 0; fits && k + 1 < like.dimensions; ++k) fits = view.shape[k] == like.shape[k];
  if (!fits) {
    std::string wanted;
    for (int k = 0; k + 1 < like.dimensions; ++k) wanted += std::to_string(like.shape[k]) + ", ";
    throw py::value_error("out: expected shape [" + wanted + std::to_string(last) + "], got " +
                          view.shape_text());
  }
  if (!(py::detail::array_proxy(out)->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_)) {
    throw py::value_error("out: expected a writeable array");
  }
  return py::reinterpret_borrow<py::object>(out);
}

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

bool overlap(const float* x, int64_t x_size, const float* y, int64_t y_size) {
  return x < y + y_size && y < x + x_size;
}

// Rows of x that a step reads, `steps` of them one after another, and what belongs to them.
struct Steps {
  int64_t steps = 1;
  const float* x = nullptr;
  const float* dt = nullptr;
  int64_t dt_step = 0;    // from one step's dt to the next's
  int64_t dt_stride = 0;  // from one stream's to the next's
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
        session.cpp->step(x + t * session.streams * session.inputs, dt + t * dt_step, dt_stride,
                          y + t * session.streams * session.outputs);
      }
    }
    return true;
  }
};

PyObject* finish(Session& self, Steps steps, const ArrayView& x, const TimeSteps& dt,
                 py::object out) {
  // What the outputs would overwrite before it is read.
  std::vector<float> x_copy, dt_copy;
  const ArrayView y(out.ptr());
  steps.x = x.data;
  steps.y = y.data;
  // Rows may take the place of rows, as long as both are of one size.
  const bool in_place = x.data == y.data && self.inputs == self.outputs;
  if (!in_place && overlap(x.data, x.size(), y.data, y.size())) {
    x_copy.assign(x.data, x.data + x.size());
    steps.x = x_copy.data();
  }
  if (dt.is_array()) {
    const ArrayView times = dt.view();
    if (overlap(times.data, times.size(), y.data, y.size())) {
      dt_copy.assign(times.data, times.data + times.size());
      steps.dt = dt_copy.data();
    }
  }
  if (!steps.run(self)) return nullptr;
  return out.release().ptr();
}

constexpr Signature<3> kStep = {"step", {"x", "dt", "out"}, 1};

PyObject* step(PyObject* object, PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  return guarded([&]() -> PyObject* {
    Session& self = self_of(object);
    PyObject* values[3] = {};
    kStep.parse(arguments, count, keywords, values);
    const Input input("x", values[0]);
    const ArrayView& x = input.view;
    if (!x.has_shape({self.streams, self.inputs}) &&
        !(self.streams == 1 && x.has_shape({self.inputs}))) {
      const std::string inputs = std::to_string(self.inputs);
      throw py::value_error("x: expected shape [" +
                            (self.streams == 1
                                 ? inputs + "] or [1, " + inputs + "]"
                                 : std::to_string(self.streams) + ", " + inputs + "]") +
                            " for " + streams_text(self.streams) + ", got " + x.shape_text());
    }
    check_finite("x", input);
    const TimeSteps dt(self, "dt", values[1]);
    Steps steps;
    steps.dt = dt.one();
    if (dt.is_array()) {
      const ArrayView view = dt.view();
      if (!view.has_shape({self.streams})) {
        throw py::value_error("dt: expected a number or shape [" + std::to_string(self.streams) +
                              "], got " + view.shape_text());
      }
      steps.dt = view.data;
      steps.dt_stride = 1;
    }
    return finish(self, steps, x, dt, output_array(values[2], x, self.outputs));
  });
}

constexpr Signature<3> kRun = {"run", {"xs", "timespans", "out"}, 1};

PyObject* run(PyObject* object, PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  return guarded([&]() -> PyObject* {
    Session& self = self_of(object);
    PyObject* values[3] = {};
    kRun.parse(arguments, count, keywords, values);
    const Input input("xs", values[0]);
    const ArrayView& x = input.view;
    Steps steps;
    steps.steps = x.dimensions > 0 ? x.shape[0] : 0;
    if (!x.has_shape({steps.steps, self.streams, self.inputs}) &&
        !(self.streams == 1 && x.has_shape({steps.steps, self.inputs}))) {
      const std::string inputs = std::to_string(self.inputs);
      throw py::value_error("xs: expected shape [T, " +
                            (self.streams == 1
                                 ? inputs + "] or [T, 1, " + inputs + "]"
                                 : std::to_string(self.streams) + ", " + inputs + "]") +
                            " for " + streams_text(self.streams) + ", got " + x.shape_text());
    }
    check_finite("xs", input);
    const TimeSteps dt(self, "timespans", values[1] == Py_None ? nullptr : values[1]);
    steps.dt = dt.one();
    if (dt.is_array()) {
      const ArrayView view = dt.view();
      const bool each = view.has_shape({steps.steps, self.streams});
      if (!each && !view.has_shape({steps.steps})) {
        throw py::value_error(
            "timespans: expected a number, shape [T] or [T, " + std::to_string(self.streams) +
            "], T = " + std::to_string(steps.steps) + ", got " + view.shape_text());
      }
      steps.dt = view.data;
      steps.dt_step = each ? self.streams : 1;
      steps.dt_stride = each ? 1 : 0;
    }
    return finish(self, steps, x, dt, output_array(values[2], x, self.outputs));
  });
}

// --- state ---

py::object new_matrix(int64_t rows, int64_t columns) {
  Py_intptr_t shape[2] = {rows, columns};
  Py_INCREF(float32());
  PyObject* const array = numpy().PyArray_NewFromDescr_(numpy().PyArray_Type_, float32(), 2, shape,
                                                        nullptr, nullptr, 0, nullptr);
  if (array == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(array);
}

PyObject* get_state(PyObject* object, PyObject*) {
  return guarded([&]() -> PyObject* {
    Session& self = self_of(object);
    py::object state = new_matrix(self.streams, self.state_size);
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
    std::vector<int64_t> chosen;
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
      chosen.push_back(value < 0 ? value + self.streams : value);
    };
    // Arrays are both.
    if (PyIndex_Check(values[0]) && !PySequence_Check(values[0])) {
      add(values[0]);
    } else {
      for (const py::handle index : py::iter(values[0])) add(index);
    }
    const size_t width = static_cast<size_t>(self.state_size);
    std::vector<float> state(static_cast<size_t>(self.streams) * width);
    const InUse in_use(self);
    self.cpp->get_state(state.data());
    for (const int64_t stream : chosen) {
      std::memset(state.data() + static_cast<size_t>(stream) * width, 0, width * sizeof(float));
    }
    self.cpp->set_state(state.data());
    Py_RETURN_NONE;
  });
}

// --- the type ---

// Shown by help(); the first line of each tells Python the signature.
constexpr const char* kStepText =
    R"(step($self, x, dt=1.0, out=None)
--

Run one time step of every stream.

Args:
    x: observations, ``[S, I]``, or ``[I]`` for one stream; finite. float32, C-contiguous arrays
        are read in place, whatever else numpy makes real numbers of is converted first.
    dt: time since the last step in units of ``time_unit`` seconds, finite, not negative: a number,
        or one for each stream, ``[S]``.
    out: float32, C-contiguous array of the shape of the result, to write it to. It may share
        memory with ``x`` and ``dt``.

Returns:
    Outputs, float32, ``[S, M]``, or ``[M]`` for an ``x`` of ``[I]``; ``out`` if it is given.

Raises:
    ValueError: if a shape is wrong, or a number is not finite or a time step negative. The state
        is then as it was before.
    TypeError: if an argument holds no real numbers, or more than numbers (a masked array, one with
        a unit), or ``out`` is no array of float32.
    RuntimeError: if another thread is using the session.)";

constexpr const char* kRunText =
    R"(run($self, xs, timespans=None, out=None)
--

Run a sequence of time steps; the state carries over from and to other calls.

The same as calling ``step`` for each ``xs[t]``, without the way through Python in between.
Ctrl-C ends it between two steps, with the state where it then is.

Args:
    xs: observations, ``[T, S, I]``, or ``[T, I]`` for one stream; finite; T may be 0.
    timespans: time since the step before in units of ``time_unit`` seconds, finite, not negative:
        a number, ``[T]`` or ``[T, S]``; 1 by default.
    out: float32, C-contiguous array of the shape of the result, to write it to. It may share
        memory with ``xs`` and ``timespans``.

Returns:
    Outputs, float32, ``[T, S, M]``, or ``[T, M]`` for ``xs`` of ``[T, I]``; ``out`` if it is given.

Raises:
    As ``step``; everything is checked before the first step.)";

constexpr const char* kResetText =
    R"(reset($self, streams=None)
--

Set the state to zeros.

Args:
    streams: index or indices of the streams to reset; all by default.

Raises:
    IndexError: if there is no such stream.
    TypeError: if an index is no integer.)";

constexpr const char* kGetStateText =
    R"(get_state($self)
--

Return a copy of the state, float32, ``[S, state_size]``.

For each recurrent layer, in order, its h ``[N]`` (of an LTC the membrane potentials) and, with
mixed memory, the c ``[N]`` of its memory cell.)";

constexpr const char* kSetStateText =
    R"(set_state($self, state)
--

Set the state.

Args:
    state: as ``get_state`` returns it, ``[S, state_size]``, or ``[state_size]`` for one stream;
        finite.

Raises:
    ValueError: if its shape is wrong or a number is not finite; the state is then as it was.)";

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
