// MPSKernel, MPSCNNKernel, MPSCNNBinaryKernel, and the three loss kernels.
#include <pybind11/pybind11.h>

#include "bindings/arguments.hpp"
#include "bindings/arrays.hpp"
#include "bindings/definitions.hpp"
#include "bindings/errors.hpp"
#include "bindings/instances.hpp"
#include "bindings/module.hpp"
#include "bindings/objects/descriptors.hpp"
#include "bindings/objects/image_arguments.hpp"
#include "bindings/objects/kernel_handles.hpp"
#include "core/error.hpp"
#include "devices.hpp"
#include "objects/archive.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

std::string description(const KernelHandle& handle) {
  const Kernel& kernel = *handle.kernel;
  std::string text = std::string("<") + class_name(kernel.kind());
  const KernelProperties p = kernel.properties();
  if (p.has_label) text += " '" + p.label + "'";
  if (kernel.kind() != KernelKind::initial_gradient) {
    const LossDescriptor d = kernel.descriptor();
    text +=
        std::string(" ") + info(d.loss_type).name + ", reduction " + info(d.reduction_type).name;
  }
  return text + " on '" + kernel.device()->name() + "'>";
}

/// One line per property.
std::string debug_description(const KernelHandle& handle) {
  const Kernel& kernel = *handle.kernel;
  const LossDescriptor d = kernel.descriptor();
  const KernelProperties p = kernel.properties();
  std::string text = description(handle);
  const auto line = [&text](const char* name, const std::string& value) {
    text += std::string("\n    ") + name + ": " + value;
  };
  if (kernel.kind() != KernelKind::initial_gradient) {
    line("loss_type", info(d.loss_type).name);
    line("reduction_type", info(d.reduction_type).name);
    line("reduce_across_batch", d.reduce_across_batch ? "True" : "False");
    line("number_of_classes", std::to_string(d.number_of_classes));
    for (const auto& [name, field, check, help] : kLossParameters)
      line(name, number_text(d.parameters.*field));
  }
  if (kernel.kind() == KernelKind::loss_gradient)
    line("compute_label_gradients", p.compute_label_gradients ? "True" : "False");
  line("label", p.has_label ? "'" + p.label + "'" : "None");
  line("options", std::to_string(p.options));
  const auto rows = inherited_properties(kernel.kind());
  for (std::size_t i = 0; i < rows.size(); ++i)
    line(rows[i].name, to_string(rows[i].form, kernel.inherited(i)));
  return text;
}

template <class Handle>
Handle copy_kernel(const Handle& handle, py::handle device) {
  const auto& target = device.is_none() ? handle.kernel->device() : to_device("device", device);
  Handle copy;
  copy.kernel = handle.kernel->copy(target);
  return copy;
}

template <class Handle>
Handle from_bytes(py::handle data, py::handle device) {
  const auto& target = to_device("device", device);
  const HeldBytes bytes("data", data);
  Handle handle;
  handle.kernel = unarchive(bytes.get(), Handle::kind, target);
  return handle;
}

/// Pickle: the portable archive, read on the same kind of device where there is one.
template <class Handle>
Handle unpickle(py::tuple state) {
  if (state.size() != 2)
    throw ValueError(refusal("state", "have 2 entries", std::to_string(state.size())));
  const py::object kind = state[1];
  if (PyUnicode_Check(kind.ptr()) == 0)
    throw TypeError(refusal("state[1]", "be the kind of a device", describe(kind)));
  return from_bytes<Handle>(state[0], py::cast(device_of_kind(to_text(kind))));
}

constexpr const char* kCallOfForwardLoss =
    R"(__call__($self, predictions, labels, weights=None, out=None)
--

Encodes, commits and waits in one call. Returns an array of the rank of its arguments: like predictions, or one value
per image.)";
constexpr const char* kCallOfLossGradient =
    R"(__call__($self, predictions, labels, source_gradient=None, weights=None, out=None)
--

Encodes, commits and waits in one call; source_gradient 1 where None. Returns an array of the shape of its arguments.)";

/// The constructor of a class whose base has none.
void setup_constructible(PyHeapTypeObject* heap) {
  set_apart(heap);
  heap->ht_type.tp_new = py::detail::pybind11_object_new;
}

/// Where an instance of a class of kernels keeps the function that calls it (PEP 590).
vectorcallfunc& call_slot(PyObject* self) {
  return *reinterpret_cast<vectorcallfunc*>(reinterpret_cast<char*>(self) +
                                            Py_TYPE(self)->tp_vectorcall_offset);
}

template <vectorcallfunc call>
PyObject* call_fast(PyObject* self, PyObject* const* arguments, std::size_t given,
                    PyObject* keywords);

/// The call with a tuple and a dictionary, which is __call__ too.
template <vectorcallfunc call>
PyObject* call_slowly(PyObject* self, PyObject* arguments, PyObject* named) {
  call_slot(self) = call_fast<call>;  // Python allocates instances of subclasses by itself
  return translated([&] {
    const KeywordsApart apart(arguments, named);
    return call(self, apart.values(), apart.given(), apart.names());
  });
}

/// The call as most make it, with neither. Python before 3.12 makes it even where __call__ was
/// replaced.
template <vectorcallfunc call>
PyObject* call_fast(PyObject* self, PyObject* const* arguments, std::size_t given,
                    PyObject* keywords) {
  const ternaryfunc current = Py_TYPE(self)->tp_call;
  if (current == call_slowly<call>) return call(self, arguments, given, keywords);
  return translated([&] {
    const auto count = static_cast<std::size_t>(PyVectorcall_NARGS(given));
    py::tuple values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = py::handle(arguments[i]);
    py::dict named;
    if (keywords != nullptr) {
      for (const py::handle name : py::reinterpret_borrow<py::tuple>(keywords))
        named[name] = py::handle(arguments[count + py::len(named)]);
    }
    return current(self, values.ptr(), named.ptr());
  });
}

/// __call__ as a method, for its parameters alone: the slot stays, as Python itself would put one
/// that knows of none (METH_COEXIST).
template <vectorcallfunc call>
PyObject* call_method(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                      PyObject* keywords) {
  return call(self, arguments, static_cast<std::size_t>(count), keywords);
}
template <vectorcallfunc call>
PyMethodDef methods_of_callable[] = {
    {"__call__", as_method(call_method<call>), METH_FASTCALL | METH_KEYWORDS | METH_COEXIST,
     call == call_forward_loss ? kCallOfForwardLoss : kCallOfLossGradient},
    {nullptr, nullptr, 0, nullptr}};

template <vectorcallfunc call>
void setup_callable(PyHeapTypeObject* heap) {
  PyTypeObject& type = heap->ht_type;
  setup_constructible(heap);
  type.tp_methods = methods_of_callable<call>;
  type.tp_vectorcall_offset = type.tp_basicsize;
  type.tp_basicsize += static_cast<Py_ssize_t>(sizeof(vectorcallfunc));
  type.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
  type.tp_alloc = [](PyTypeObject* actual, Py_ssize_t items) {
    PyObject* const self = PyType_GenericAlloc(actual, items);
    if (self != nullptr) call_slot(self) = call_fast<call>;
    return self;
  };
  type.tp_call = call_slowly<call>;
}

template <class Handle, class Base>
py::class_<Handle, Base> define_kernel(py::module_& m, const char* doc,
                                       void (*setup)(PyHeapTypeObject*)) {
  py::class_<Handle, Base> type(m, class_name(Handle::kind), py::custom_type_setup(setup), doc);
  refuse_empty_instances(type);
  add_method<copy_kernel<Handle>>(type,
                                  R"(copy($self, device=None)
--

A kernel of this class on `device` (None: the same) with every property of this one (NSCopying).)");
  type.def(
      "__copy__", [](const Handle& handle) { return copy_kernel(handle, py::none()); },
      kCopySignature);
  type.def(
      "__deepcopy__",
      [](const Handle& handle, py::dict) { return copy_kernel(handle, py::none()); },
      kDeepcopySignature);
  add_method<[](const Handle& handle) { return py::bytes(archive(*handle.kernel)); }>(
      type,
      R"(to_bytes($self)
--

The portable archive of the kernel as bytes: every property, versioned, with a checksum (layout in
src/objects/archive.hpp).)");
  add_function<from_bytes<Handle>>(type,
                                   R"(from_bytes(data, device)
--

A kernel from an archive (init?(coder:device:)). Raises ValueError for anything truncated, altered, of another
class or of another version. Executes nothing.)");
  type.def(py::pickle(
      [](const Handle& handle) {
        return py::make_tuple(py::bytes(archive(*handle.kernel)), handle.kernel->device()->kind());
      },
      &unpickle<Handle>));
  return type;
}

template <class Handle, class Base, vectorcallfunc call>
py::class_<Handle, Base> define_loss_kernel(py::module_& m, const char* doc) {
  auto type = define_kernel<Handle, Base>(m, doc, setup_callable<call>);
  add_constructor<[](py::handle device, py::handle loss_descriptor) {
    const auto& target = to_device("device", device);
    const auto& descriptor =
        to_object<LossDescriptor>("loss_descriptor", "an MPSCNNLossDescriptor", loss_descriptor);
    Handle handle;
    handle.kernel = target->make_kernel(Handle::kind, descriptor);
    warn_of_one_class(descriptor);
    return handle;
  }>(type,
     "Copies the descriptor. Raises ValueError where the loss does not accept the reduction.");
  const auto define_fixed = [&type](const char* name, auto get, const char* doc_text) {
    type.def_property_readonly(
        name, [get](const Handle& handle) { return get(handle.kernel->descriptor()); }, doc_text);
  };
  define_fixed(
      "loss_type", [](const LossDescriptor& d) { return member(d.loss_type); },
      "MPSCNNLossType of the descriptor; read-only.");
  define_fixed(
      "reduction_type", [](const LossDescriptor& d) { return member(d.reduction_type); },
      "MPSCNNReductionType of the descriptor; read-only.");
  define_fixed(
      "reduce_across_batch", [](const LossDescriptor& d) { return d.reduce_across_batch; },
      "Whether a reduction runs over the batch too; read-only.");
  define_fixed(
      "number_of_classes", [](const LossDescriptor& d) { return d.number_of_classes; },
      "K of the softmax label smoothing; read-only.");
  for (const LossParameterInfo& parameter : kLossParameters) {
    type.def_property(
        parameter.name,
        [&parameter](const Handle& handle) {
          return handle.kernel->descriptor().parameters.*parameter.field;
        },
        [&parameter](Handle& handle, py::object value) {
          const double real = to_parameter(parameter, value);
          handle.kernel->update([&](KernelProperties& p) { p.parameters.*parameter.field = real; });
          if (parameter.field == &LossParameters::label_smoothing)
            warn_of_one_class(handle.kernel->descriptor());
        },
        (parameter.help + std::string("; captured at encode.")).c_str());
  }
  return type;
}

void register_base(py::module_& m) {
  const auto without_constructor = py::custom_type_setup(refuse_new_instances);
  py::class_<KernelHandle> base(
      m, "MPSKernel", without_constructor,
      "MPSKernel()\n--\n\nWhat all kernels share. Kernels compare and hash by identity.");
  refuse_empty_instances(base);
  base.def_property_readonly(
      "device", [](const KernelHandle& h) { return h.kernel->device(); },
      "The Device of the kernel.");
  base.def_property(
      "label",
      [](const KernelHandle& h) -> py::object {
        const KernelProperties p = h.kernel->properties();
        if (!p.has_label) return py::none();
        return py::str(p.label);
      },
      [](KernelHandle& h, py::object value) {
        const auto label = to_label(value);
        h.kernel->update([&](KernelProperties& p) {
          p.label = label.value_or("");
          p.has_label = label.has_value();
        });
      },
      "A name for debugging, or None.");
  base.def_property(
      "options",
      [](const KernelHandle& h) { return member(kKernelOptions, h.kernel->properties().options); },
      [](KernelHandle& h, py::object value) {
        const std::uint64_t options = to_member_value(kKernelOptions, "options", value);
        h.kernel->update([&](KernelProperties& p) { p.options = options; });
      },
      "MPSKernelOptions; the CPU engine ignores them.");
  base.def_property_readonly("debug_description", &debug_description,
                             "Class, device and every property, one per line.");
  base.def("__repr__", &description, kReprSignature);

  py::class_<CNNKernel, KernelHandle> unary(
      m, "MPSCNNKernel", without_constructor,
      "MPSCNNKernel()\n--\n\nWhat kernels with one source image inherit.");
  refuse_empty_instances(unary);
  define_inherited_properties(unary, KernelKind::forward_loss);
  py::class_<CNNBinaryKernel, KernelHandle> binary(
      m, "MPSCNNBinaryKernel", without_constructor,
      "MPSCNNBinaryKernel()\n--\n\nWhat kernels with two source images inherit.");
  refuse_empty_instances(binary);
  define_inherited_properties(binary, KernelKind::loss_gradient);
}

}  // namespace

void register_kernels(py::module_& m) {
  register_base(m);
  auto forward = define_loss_kernel<ForwardLoss, CNNKernel, call_forward_loss>(
      m,
      R"(MPSNNForwardLoss(device, loss_descriptor)
--

The loss of a batch of images. Calling the kernel takes arrays, and waits for the result.)");
  add_method<[](const ForwardLoss& self, py::handle source_images) {
    const auto images = to_images("source_images", source_images, self.kernel->device());
    py::list states;
    for (std::int64_t i = 0; i < images->shape().images; ++i)
      states.append(self.kernel->make_state());
    return states;
  }>(forward,
     R"(result_state_batch($self, source_images)
--

A list of one MPSState per image, to be filled by an encode.)");
  auto gradient = define_loss_kernel<LossGradient, CNNBinaryKernel, call_loss_gradient>(
      m,
      R"(MPSNNLossGradient(device, loss_descriptor)
--

The gradient of MPSNNForwardLoss with respect to the predictions, or to the labels.
Calling the kernel takes arrays, and waits for the result.)");
  gradient.def_property(
      "compute_label_gradients",
      [](const LossGradient& h) { return h.kernel->properties().compute_label_gradients; },
      [](LossGradient& h, py::object value) {
        const bool labels = to_bool("compute_label_gradients", value);
        h.kernel->update([&](KernelProperties& p) { p.compute_label_gradients = labels; });
      },
      "False: gradient for the predictions; True: for the labels. Captured at encode.");
  auto initial = define_kernel<InitialGradient, CNNKernel>(m,
                                                           R"(MPSNNInitialGradient(device)
--

Images of ones, of the size of its source: the gradient that a backward pass begins with.)",
                                                           setup_constructible);
  add_constructor<[](py::handle device) {
    InitialGradient handle;
    handle.kernel = to_device("device", device)->make_kernel(InitialGradient::kind, {});
    return handle;
  }>(initial, "");
  add_encode_methods(m);
}

}  // namespace mpsnn_loss::bindings
