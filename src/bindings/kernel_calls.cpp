// Encoding a kernel into a command buffer, and calling it directly.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/arrays.hpp"
#include "bindings/errors.hpp"
#include "bindings/gil.hpp"
#include "bindings/instances.hpp"
#include "bindings/kernel_handles.hpp"
#include "bindings/module.hpp"
#include "bindings/owners.hpp"
#include "core/error.hpp"
#include "core/loss_call.hpp"
#include "devices.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

bool given(py::handle argument) { return argument.ptr() != nullptr && !argument.is_none(); }

std::vector<std::shared_ptr<LossState>> to_states(const char* name, py::handle value) {
  std::vector<std::shared_ptr<LossState>> states;
  if (!given(value)) return states;
  if (is_instance<LossState>(value)) return {py::cast<std::shared_ptr<LossState>>(value)};
  if (PySequence_Check(value.ptr()) == 0 || py::isinstance<py::str>(value)) {
    throw TypeError(refusal(name, "be a sequence of MPSState or None", describe(value)));
  }
  for (const py::handle item : py::tuple(py::reinterpret_borrow<py::object>(value))) {
    if (!is_instance<LossState>(item)) {
      throw TypeError(refusal(std::string(name) + "[" + std::to_string(states.size()) + "]",
                              "be an MPSState", describe(item)));
    }
    states.push_back(py::cast<std::shared_ptr<LossState>>(item));
  }
  if (states.empty()) throw ValueError(refusal(name, "hold at least 1 state", "0"));
  return states;
}

ResultAllocator to_allocator(py::handle value) {
  constexpr const char* kExpectation = "be None, 'image' or 'temporary_image'";
  if (PyUnicode_Check(value.ptr()) == 0)
    throw TypeError(refusal("allocator", kExpectation, describe(value)));
  const std::string text = py::cast<std::string>(value);
  if (text == "image") return ResultAllocator::image;
  if (text == "temporary_image") return ResultAllocator::temporary_image;
  throw ValueError(refusal("allocator", kExpectation, describe(value)));
}

void record(py::handle object, CommandBuffer& buffer, const LossCall& call) {
  if (buffer.device() == cpu_device()) {
    buffer.encode(call);
  } else {
    // A full queue of a GPU waits here for buffers whose handlers may need the GIL.
    const WithoutGil released;
    buffer.encode(call);
  }
  attach_call(object.ptr(), *call);
}

/// A request with the kernel's properties captured, and nothing else.
LossRequest begin_request(const std::shared_ptr<Kernel>& held) {
  const KernelCapture captured = held->capture();
  LossRequest request;
  request.kernel = held;
  request.descriptor = captured.descriptor;
  request.wrt = captured.compute_label_gradients ? Wrt::labels : Wrt::predictions;
  switch (held->kind()) {
    case KernelKind::forward_loss: request.work = Work::loss; break;
    case KernelKind::loss_gradient: request.work = Work::gradient; break;
    case KernelKind::initial_gradient: request.work = Work::initial_gradient; break;
  }
  return request;
}

/// The shape and format of what a request writes.
BatchDescriptor output_descriptor(const LossRequest& request) {
  const BatchDescriptor& predictions = request.predictions.descriptor;
  if (request.work == Work::loss)
    return {loss_shape(request.descriptor, predictions.shape), loss_format(predictions.format)};
  return {predictions.shape, gradient_format(request)};
}

/// What a kernel is encoded with; null where there is no such argument.
struct EncodeArguments {
  PyObject *command_buffer, *source_gradients, *source_images, *labels, *weights;
  PyObject *source_states, *destination_states, *destination, *allocator;
};

std::shared_ptr<ImageBatch> encode(const std::shared_ptr<Kernel>& kernel,
                                   const EncodeArguments& a) {
  const auto& device = kernel->device();
  auto& buffer = to_object<CommandBuffer>("command_buffer", "a CommandBuffer", a.command_buffer);
  if (buffer.device() != device) {
    throw StateError(refusal("command_buffer", "be on the device of the kernel, " + device->name(),
                             buffer.device()->name()));
  }
  buffer.check_encodable();
  LossRequest request = begin_request(kernel);
  request.predictions =
      make_operand("source_images", to_images("source_images", a.source_images, device));
  if (request.work != Work::initial_gradient)
    request.labels = make_operand("labels", to_images("labels", a.labels, device));
  if (request.work == Work::gradient) {
    request.source_gradients =
        make_operand("source_gradients", to_images("source_gradients", a.source_gradients, device));
  }
  if (given(a.weights))
    request.weights = make_operand("weights", to_images("weights", a.weights, device));
  request.source_states = to_states("source_states", a.source_states);
  request.destination_states = to_states("destination_states", a.destination_states);
  const bool is_loss = request.work == Work::loss;
  const char* const name = is_loss ? "destination_images" : "destination_gradients";
  if (given(a.allocator)) {
    const ResultAllocator allocator = to_allocator(a.allocator);
    if (given(a.destination))
      throw ValueError(
          refusal("allocator", std::string("be None beside ") + name, describe(a.allocator)));
    const LossCall call(std::move(request));
    const WithoutGil released;
    return buffer.encode(call, allocator);
  }
  if (given(a.destination)) {
    auto destination = to_images(name, a.destination, device);
    (is_loss ? request.loss : request.gradient) = make_operand(name, destination);
    record(a.command_buffer, buffer, LossCall(std::move(request)));
    return destination;
  }
  // A destination is made last, once everything else is known to fit.
  const BatchDescriptor output = output_descriptor(request);
  LossCall call(std::move(request));
  auto destination = device->make_images(output);
  call.add_output(make_operand(name, destination));
  record(a.command_buffer, buffer, call);
  return destination;
}

/// A direct call: arrays (or batches) in, array out.
class KernelCall {
 public:
  KernelCall(const std::shared_ptr<Kernel>& kernel, PyObject* predictions, PyObject* labels,
             PyObject* source_gradient, PyObject* weights, PyObject* out)
      : kernel_(kernel),
        predictions_(predictions),
        labels_(labels),
        source_gradient_(source_gradient),
        weights_(weights),
        out_(out) {}

  PyObject* run() {
    LossRequest request = begin_request(kernel_);
    read(request.predictions, "predictions", predictions_);
    read(request.labels, "labels", labels_);
    if (given(weights_)) read(request.weights, "weights", weights_);
    if (given(source_gradient_)) {
      if (is_scalar(source_gradient_)) {
        request.source_gradient = to_real("source_gradient", source_gradient_);
        request.also_read.emplace_back("source_gradient", memory_of(source_gradient_));
      } else {
        read(request.source_gradients, "source_gradient", source_gradient_);
      }
    }
    const BatchDescriptor output = output_descriptor(request);
    py::object result = destination(request, output);
    compute(*kernel_->device(), LossCall(std::move(request)));
    return result.release().ptr();
  }

 private:
  /// Host memory of an argument: that of a plain array directly, else that of its images.
  void read(Operand& operand, const char* name, py::handle value) {
    HostArray& array = arrays_[used_++];
    if (array.take(name, value.ptr())) {
      const auto axes = array.axes();
      if (axes.size() == 2 || axes.size() == 4) {
        const bool flat = axes.size() == 2;
        const BatchDescriptor d{
            {axes[0], flat ? 1 : axes[1], flat ? 1 : axes[2], axes[flat ? 1 : 3]}, array.format()};
        check_extents(name, d);
        flat_ = flat_ || (used_ == 1 && flat);
        operand = make_operand(name, d, array.data(), array.writable());
        return;
      }
    }
    const auto images = to_images(name, value, kernel_->device());
    images->check_readable();
    operand = make_operand(name, images);
  }

  py::object destination(LossRequest& request, const BatchDescriptor& output) {
    Operand& operand = request.work == Work::loss ? request.loss : request.gradient;
    if (given(out_)) {
      HostArray& array = arrays_[used_++];
      array.take_destination("out", out_, output.format);
      const auto full = output.shape.axes();
      const std::array<std::int64_t, 2> rows{full[0], full[3]};
      if (flat_) {
        require_axes(array.view("out"), rows);
      } else {
        require_axes(array.view("out"), full);
      }
      operand = make_operand("out", output, array.data(), true);
      return py::reinterpret_borrow<py::object>(out_);
    }
    const auto full = output.shape.axes();
    const std::array<std::int64_t, 2> rows{full[0], full[3]};
    py::array fresh = flat_ ? make_array(rows, output.format) : make_array(full, output.format);
    operand = make_operand("out", output, fresh.mutable_data(), true);
    return fresh;
  }

  const std::shared_ptr<Kernel>& kernel_;
  const py::handle predictions_, labels_, source_gradient_, weights_, out_;
  std::array<HostArray, 5> arrays_;
  std::size_t used_ = 0;
  bool flat_ = false;  // predictions are [N, C], and so is the result
};

/// The contents of a kernel that is called.
template <class Handle>
const std::shared_ptr<Kernel>& kernel_of(PyObject* self) {
  const auto* handle = contents<Handle>(self);
  if (handle == nullptr) throw TypeError("the kernel must be made by calling its class");
  return handle->kernel;
}

}  // namespace

PyObject* call_forward_loss(PyObject* self, PyObject* const* arguments, std::size_t given,
                            PyObject* keywords) {
  static Signature<4> signature{
      "MPSNNForwardLoss", {"predictions", "labels", "weights", "out"}, 2, 4};
  return translated([&] {
    const auto a = sort_arguments(signature, arguments,
                                  static_cast<std::size_t>(PyVectorcall_NARGS(given)), keywords);
    return KernelCall(kernel_of<ForwardLoss>(self), a[0], a[1], nullptr, a[2], a[3]).run();
  });
}

PyObject* call_loss_gradient(PyObject* self, PyObject* const* arguments, std::size_t given,
                             PyObject* keywords) {
  static Signature<5> signature{
      "MPSNNLossGradient", {"predictions", "labels", "source_gradient", "weights", "out"}, 2, 5};
  return translated([&] {
    const auto a = sort_arguments(signature, arguments,
                                  static_cast<std::size_t>(PyVectorcall_NARGS(given)), keywords);
    return KernelCall(kernel_of<LossGradient>(self), a[0], a[1], a[2], a[3], a[4]).run();
  });
}

namespace {

PyObject* encode_loss(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                      PyObject* keywords) {
  static Signature<7> signature{"encode_batch",
                                {"command_buffer", "source_images", "labels", "weights",
                                 "destination_states", "destination_images", "allocator"},
                                3,
                                4};
  return translated([&] {
    const auto a = sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords);
    const auto results = encode(kernel_of<ForwardLoss>(self),
                                {a[0], nullptr, a[1], a[2], a[3], nullptr, a[4], a[5], a[6]});
    return py::cast(results).release().ptr();
  });
}

PyObject* encode_gradient(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                          PyObject* keywords) {
  static Signature<8> signature{"encode_batch",
                                {"command_buffer", "source_gradients", "source_images", "labels",
                                 "weights", "source_states", "destination_gradients", "allocator"},
                                4,
                                7};
  return translated([&] {
    const auto a = sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords);
    const auto results = encode(kernel_of<LossGradient>(self),
                                {a[0], a[1], a[2], a[3], a[4], a[5], nullptr, a[6], a[7]});
    return py::cast(results).release().ptr();
  });
}

PyObject* encode_initial_gradient(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                                  PyObject* keywords) {
  static Signature<3> signature{
      "encode_batch", {"command_buffer", "source_images", "allocator"}, 2, 2};
  return translated([&] {
    const auto a = sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords);
    const auto results =
        encode(kernel_of<InitialGradient>(self),
               {a[0], nullptr, a[1], nullptr, nullptr, nullptr, nullptr, nullptr, a[2]});
    return py::cast(results).release().ptr();
  });
}

#define ALLOCATOR_DOC                                                                   \
  "allocator: None encodes into images made by this package, or given. 'image' and "    \
  "'temporary_image' have the kernel\n"                                                 \
  "return images of its own (Metal only; RuntimeError elsewhere), whatever "            \
  "destination_image_allocator is. Temporary ones\n"                                    \
  "can be read by later kernels of the same command buffer alone; reading them raises " \
  "RuntimeError.\n\n"                                                                   \
  "Raises before anything is encoded."

PyMethodDef encode_methods[] = {
    {"encode_batch", as_method(encode_loss), METH_FASTCALL | METH_KEYWORDS,
     "encode_batch($self, command_buffer, source_images, labels, weights=None, *, "
     "destination_states=None, destination_images=None, allocator=None)\n--\n\n"
     "Encodes the loss of source_images (predictions) and returns its images: of the size of the "
     "predictions, or N images\n"
     "1x1x1 after a reduction, float32 for float16 and float32. destination_states (1 or N) "
     "capture "
     "weight, label_smoothing,\n"
     "epsilon and delta.\n\n" ALLOCATOR_DOC},
    {"encode_batch", as_method(encode_gradient), METH_FASTCALL | METH_KEYWORDS,
     "encode_batch($self, command_buffer, source_gradients, source_images, labels, weights=None, "
     "source_states=None, destination_gradients=None, *, allocator=None)\n--\n\n"
     "Encodes the gradient and returns its images, which are (a view of) destination_gradients "
     "where given.\n\n"
     "source_gradients: N images, 1x1x1 or (reduction none) of the size of source_images. "
     "source_states (1 or N) replace the\n"
     "kernel's weight, label_smoothing, epsilon and delta.\n\n" ALLOCATOR_DOC},
    {"encode_batch", as_method(encode_initial_gradient), METH_FASTCALL | METH_KEYWORDS,
     "encode_batch($self, command_buffer, source_images, *, allocator=None)\n--\n\n"
     "Encodes ones of the size and format of source_images and returns their "
     "images.\n\n" ALLOCATOR_DOC},
};

}  // namespace

void add_encode_methods(py::module_& m) {
  const KernelKind kinds[] = {ForwardLoss::kind, LossGradient::kind, InitialGradient::kind};
  for (std::size_t i = 0; i < std::size(kinds); ++i) {
    const py::object type = m.attr(class_name(kinds[i]));
    auto* const method =
        PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &encode_methods[i]);
    if (method == nullptr) throw py::error_already_set();
    type.attr(encode_methods[i].ml_name) = py::reinterpret_steal<py::object>(method);
  }
}

}  // namespace mpsnn_loss::bindings
