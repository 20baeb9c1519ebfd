// CommandBuffer and MPSState.
#include <pybind11/pybind11.h>

#include "bindings/arguments.hpp"
#include "bindings/errors.hpp"
#include "bindings/kernel_handles.hpp"
#include "bindings/module.hpp"
#include "core/error.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

using BufferPointer = std::shared_ptr<CommandBuffer>;

void commit(CommandBuffer& buffer) {
  const py::gil_scoped_release release;  // the work may run here, and handlers take the GIL
  buffer.commit();
}

/// Waits in slices, so that an interrupt from the keyboard is answered.
void wait(CommandBuffer& buffer, py::object timeout) {
  constexpr double kSlice = 0.1;
  double left = -1;
  if (!timeout.is_none()) {
    left = to_real("timeout", timeout);
    if (!(left >= 0))
      throw ValueError(refusal("timeout", "be at least 0 seconds or None", describe(timeout)));
  }
  for (;;) {
    const bool last = left >= 0 && left <= kSlice;
    {
      const py::gil_scoped_release release;
      if (last || buffer.finished_within(kSlice))
        return buffer.wait(last ? std::optional(left) : std::nullopt);
    }
    if (left >= 0) left -= kSlice;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

void add_completed_handler(const BufferPointer& buffer, py::object handler) {
  if (PyCallable_Check(handler.ptr()) == 0)
    throw TypeError(refusal("handler", "be callable", describe(handler)));
  // The buffer is passed on without being owned: it would otherwise own itself through its handler.
  const std::weak_ptr<CommandBuffer> weak = buffer;
  buffer->on_completed([held = hold(handler), weak] {
    if (is_exiting()) return;
    const py::gil_scoped_acquire gil;
    try {
      py::reinterpret_borrow<py::object>(static_cast<PyObject*>(held.get()))(weak.lock());
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("a completed handler of a CommandBuffer");
    }
  });
}

void leave(const BufferPointer& buffer, py::object type) {
  if (!type.is_none()) return buffer->discard();
  if (buffer->status() < CommandBufferStatus::committed) commit(*buffer);
  wait(*buffer, py::none());
}

/// A read-only property of a state that a forward encode has filled.
void define_value(py::class_<LossState, std::shared_ptr<LossState>>& type, const char* name,
                  double LossParameters::* field) {
  type.def_property_readonly(
      name,
      [name, field](const LossState& state) {
        if (!state.values)
          throw StateError(std::string(name) +
                           " must be captured by a forward encode before it is read");
        return (*state.values).*field;
      },
      "Value at the time of the forward encode. RuntimeError before it.");
}

}  // namespace

void register_command_buffers(py::module_& m) {
  py::class_<CommandBuffer, BufferPointer> type(
      m, "CommandBuffer",
      "Calls to run together. As a context manager, leaving the block commits and waits; an "
      "exception\n"
      "inside it discards the buffer.");
  type.def_property_readonly(
      "status", [](const CommandBuffer& b) { return member(b.status()); }, "CommandBufferStatus.");
  type.def_property_readonly(
      "label", [](const CommandBuffer& b) { return to_optional(b.label()); },
      "Label given at creation, or None.");
  type.def_property_readonly("device", &CommandBuffer::device, "The Device of the buffer.");
  type.def_property_readonly(
      "error", [](const CommandBuffer& b) { return python_exception(b.error()); },
      "The DeviceError of a failed buffer, else None.");
  type.def_property_readonly(
      "gpu_start_time", [](const CommandBuffer& b) { return b.times().first; },
      "Begin of the work in seconds of a monotonic clock; 0.0 until finished.");
  type.def_property_readonly(
      "gpu_end_time", [](const CommandBuffer& b) { return b.times().second; },
      "End of the work, likewise.");
  type.def_property_readonly(
      "objc_pointer", [](const CommandBuffer& b) { return to_pointer(b.native_handle()); },
      "The id<MTLCommandBuffer> as an integer, borrowed; None on the CPU engine.");
  type.def("enqueue", &CommandBuffer::enqueue, py::call_guard<py::gil_scoped_release>(),
           "Reserves the buffer's place in the queue's order. RuntimeError once committed.");
  type.def("commit", &commit, "Hands the buffer to the device. RuntimeError the second time.");
  type.def("wait_until_completed", &wait, py::arg("timeout") = py::none(),
           "Waits until the work is done and all handlers have returned.\n\n"
           "Raises DeviceError where the work failed, TimeoutError after `timeout` seconds, "
           "RuntimeError where the buffer was\n"
           "never committed or inside its own handler.");
  type.def("add_completed_handler", &add_completed_handler, py::arg("handler"),
           "Calls handler(buffer) once after the work, before wait_until_completed returns. "
           "RuntimeError once committed.\n"
           "An exception in it goes to sys.unraisablehook.");
  type.def("__enter__", [](py::object self) { return self; });
  type.def("__exit__", [](const BufferPointer& b, py::object exception, py::object, py::object) {
    leave(b, exception);
  });
  type.def("__repr__", [](const CommandBuffer& b) {
    return "<CommandBuffer" + (b.label().empty() ? "" : " '" + b.label() + "'") + " " +
           py::cast<std::string>(member(b.status()).attr("name")) + " on '" + b.device()->name() +
           "'>";
  });

  py::class_<LossState, std::shared_ptr<LossState>> state(
      m, "MPSState", "What a forward encode hands to the gradient: four values at encode time.");
  define_value(state, "weight", &LossParameters::weight);
  define_value(state, "label_smoothing", &LossParameters::label_smoothing);
  define_value(state, "epsilon", &LossParameters::epsilon);
  define_value(state, "delta", &LossParameters::delta);
  state.def_property_readonly(
      "device", [](const LossState& s) { return s.device; }, "The Device of the state.");
  state.def_property(
      "label", [](const LossState& s) { return to_optional(s.label); },
      [](LossState& s, py::object label) { s.label = to_label(label).value_or(""); },
      "A name for debugging, or None.");
  state.def("__repr__", [](const LossState& s) {
    if (!s.values) return std::string("<MPSState, not filled>");
    const LossParameters& v = *s.values;
    const auto number = [](double x) { return py::cast<std::string>(py::repr(py::float_(x))); };
    return "<MPSState weight=" + number(v.weight) +
           " label_smoothing=" + number(v.label_smoothing) + " epsilon=" + number(v.epsilon) +
           " delta=" + number(v.delta) + ">";
  });
}

}  // namespace mpsnn_loss::bindings
