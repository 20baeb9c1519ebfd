// Device, CommandQueue, and what is asked of the package as a whole.
#include "devices.hpp"

#include <pybind11/stl.h>

#include "bindings/arguments.hpp"
#include "bindings/arrays.hpp"
#include "bindings/definitions.hpp"
#include "bindings/errors.hpp"
#include "bindings/instances.hpp"
#include "bindings/module.hpp"
#include "bindings/objects/kernel_handles.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

[[noreturn]] void refuse_question(py::handle x) {
  throw TypeError(refusal("x", "be a descriptor, a kernel or a dtype", describe(x)));
}

/// The dtype that NumPy's own ways of writing one name, or that an object says it has.
py::object dtype_of(py::handle x) {
  const py::object dtype = py::module_::import("numpy").attr("dtype");
  const bool is_written = PyUnicode_Check(x.ptr()) != 0 || PyBytes_Check(x.ptr()) != 0 ||
                          PyType_Check(x.ptr()) != 0 || PyList_Check(x.ptr()) != 0 ||
                          PyTuple_Check(x.ptr()) != 0 || PyDict_Check(x.ptr()) != 0;
  if (!is_written) {
    py::object own =
        is_numpy_dtype(x) ? py::reinterpret_borrow<py::object>(x) : find_attribute(x, "dtype");
    if (!own || !is_numpy_dtype(own)) refuse_question(x);
    return own;
  }
  try {
    return dtype(x);
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError) && !error.matches(PyExc_ValueError)) throw;
    refuse_question(x);
  }
}

/// Why a dtype cannot be stored on the device; empty where it can.
std::string unsupported_dtype(const Device& device, py::handle x) {
  const py::object dtype = dtype_of(x);
  if (const auto format = storage_format_of(dtype))
    return device.engine().supports({.format = *format});
  return device.kind() + (": " + to_text(py::str(dtype))) +
         " is not a storage format; float16, float32 and float64 in native byte order are";
}

py::tuple supports(const Device& device, py::handle x) {
  std::string reason;
  if (is_instance<LossDescriptor>(x)) {
    const auto& descriptor = py::cast<const LossDescriptor&>(x);
    try {
      check(descriptor);
      reason = device.engine().supports({.loss = descriptor});
    } catch (const ValueError& refused) {
      reason = refused.what();
    }
  } else if (is_instance<KernelHandle>(x)) {
    const LossDescriptor descriptor = py::cast<const KernelHandle&>(x).kernel->descriptor();
    reason = device.engine().supports({.loss = descriptor});
  } else {
    reason = unsupported_dtype(device, x);
  }
  return py::make_tuple(reason.empty(), reason);
}

py::dict build_info() {
  const BuildFacts facts = build_facts();
  py::dict info;
  info["version"] = MPSNN_LOSS_VERSION;
  info["compiler"] = facts.compiler;
  info["instruction_sets"] = facts.instruction_sets;
  info["instruction_set_in_use"] = facts.instruction_set_in_use;
  info["metal"] = facts.metal;
  info["threads"] = num_threads();
  return info;
}

std::shared_ptr<CommandBuffer> make_command_buffer(py::handle self, py::handle label) {
  return contents<Queue>(self.ptr())->make_command_buffer(to_label(label).value_or(""));
}

void register_device(py::module_& m) {
  py::class_<Device, std::shared_ptr<Device>> type(m, "Device",
                                                   py::custom_type_setup(refuse_new_instances),
                                                   R"(Device()
--

What computes: the CPU engine, or a Metal device. Compares by identity.)");
  add_method<supports>(type,
                       R"(supports($self, x)
--

Whether the device can work with x, a descriptor, a kernel or a dtype.

Returns (True, "") or (False, one sentence why not). Raises TypeError for anything else.)");
  add_method<[](Device& device, py::handle label) {
    return device.make_queue(to_label(label).value_or(""));
  }>(type, "make_command_queue($self, label=None)\n--\n\nA new CommandQueue.");
  type.def_property_readonly("name", &Device::name, "Name of the device.")
      .def_property_readonly("kind", &Device::kind, "\"cpu\" or \"metal\".")
      .def(
          "__repr__",
          [](const Device& device) {
            return "<Device '" + device.name() + "' (" + device.kind() + ")>";
          },
          kReprSignature);
}

void register_queue(py::module_& m) {
  py::class_<Queue, std::shared_ptr<Queue>> queues(m, "CommandQueue",
                                                   py::custom_type_setup(refuse_new_instances),
                                                   R"(CommandQueue()
--

Runs command buffers in the order in which they were enqueued or committed. After a fork, a queue of the CPU engine
that was running a buffer is of no more use in the child (RuntimeError).)");
  queues.def_property_readonly("device", &Queue::device, "The Device of the queue.")
      .def_property_readonly(
          "label", [](const Queue& queue) { return to_optional(queue.label()); },
          "Label given at creation, or None.")
      .def(
          "__repr__",
          [](const Queue& queue) {
            return "<CommandQueue" + (queue.label().empty() ? "" : " '" + queue.label() + "'") +
                   " on '" + queue.device()->name() + "'>";
          },
          kReprSignature);
  add_method<make_command_buffer>(queues,
                                  R"(make_command_buffer($self, label=None)
--

A new CommandBuffer; many may be open at once.)");
}

}  // namespace

void register_devices(py::module_& m) {
  register_device(m);
  register_queue(m);
  add_function<[] { return devices(); }>(m,
                                         R"(devices()
--

Every usable Device, best first, as a list; the CPU engine is always the last one.)");
  add_function<[] { return default_device(); }>(m,
                                                R"(default_device()
--

The first of devices(), or the one that the environment variable MPSNN_LOSS_DEVICE names ("cpu", "metal" or a
device name). Raises ValueError where that names none.)");
  add_function<[] { return cpu_device(); }>(
      m, "cpu_device()\n--\n\nThe Device that is the CPU engine.");
  add_function<[] { return num_threads(); }>(m,
                                             R"(get_num_threads()
--

How many threads the CPU engine may use, an int: what set_num_threads set, else the environment variable
MPSNN_LOSS_NUM_THREADS, else OMP_NUM_THREADS, else the smaller of affinity mask and cgroup quota.)");
  add_function<[](py::handle n) {
    set_num_threads(to_integer("n", n));
    return py::none();
  }>(m,
     R"(set_num_threads(n)
--

Sets how many threads the CPU engine may use (at least 1). Results do not depend on it.)");
  add_function<build_info>(m,
                           R"(build_info()
--

What was built, a dict: version, compiler, instruction_sets, instruction_set_in_use, metal, threads.)");
}

}  // namespace mpsnn_loss::bindings
