// Encoding a kernel into a command buffer, and calling it directly.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/arrays.hpp"
#include "bindings/errors.hpp"
#include "bindings/gil.hpp"
#include "bindings/image_arguments.hpp"
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
  for_each_item(name, "a sequence of MPSState or None", value,
                [&](py::handle item, const std::string& item_name) {
                  if (!is_instance<LossState>(item))
                    throw TypeError(refusal(item_name, "be an MPSState", describe(item)));
                  states.push_back(py::cast<std::shared_ptr<LossState>>(item));
                });
  if (states.empty()) throw ValueError(refusal(name, "hold at least 1 state", "0"));
  return states;
}

ResultAllocator to_allocator(py::handle value) {
  constexpr const char* kExpectation = "be None, 'image' or 'temporary_image'";
  if (PyUnicode_Check(value.ptr()) == 0)
    throw TypeError(refusal("allocator", kExpectation, describe(value)));
  const auto is = [&](const char* text) {
    return PyUnicode_CompareWithASCIIString(value.ptr(), text) == 0;
  };
  if (is("image")) return ResultAllocator::image;
  if (is("temporary_image")) return ResultAllocator::temporary_image;
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

/// What a kernel is encoded with; null where there is no such argument.
struct EncodeArguments {
  PyObject *command_buffer, *source_gradients, *source_images, *labels, *weights;
  PyObject *source_states, *destination_states;
  const char* destination_name;
  PyObject *destination, *allocator;
};

/// The image arguments of an encode, taken.
class EncodeImages {
 public:
  explicit EncodeImages(const EncodeArguments& a) {
    take(&LossRequest::predictions, "source_images", a.source_images);
    take(&LossRequest::labels, "labels", a.labels);
    take(&LossRequest::source_gradients, "source_gradients", a.source_gradients);
    if (given(a.weights)) take(&LossRequest::weights, "weights", a.weights);
    if (given(a.destination)) destination_.emplace(a.destination_name, a.destination);
  }
  void check_unchanged() const {
    for (const auto& [operand, argument] : taken_) argument.check_unchanged();
    if (destination_) destination_->check_unchanged();
  }
  void move_to(LossRequest& request, const std::shared_ptr<Device>& device) {
    for (auto& [operand, argument] : taken_)
      request.*operand = make_operand(argument.name(), argument.images(device));
  }
  std::shared_ptr<ImageBatch> destination(const std::shared_ptr<Device>& device) {
    return destination_->images(device);
  }

 private:
  void take(Operand LossRequest::* operand, const char* name, PyObject* value) {
    if (value != nullptr) taken_.emplace_back(operand, ImageArgument(name, value));
  }

  std::vector<std::pair<Operand LossRequest::*, ImageArgument>> taken_;
  std::optional<ImageArgument> destination_;
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
  EncodeImages images(a);  // code of others may run here, and no more after it
  const auto source_states = to_states("source_states", a.source_states);
  const auto destination_states = to_states("destination_states", a.destination_states);
  images.check_unchanged();
  LossRequest request = begin_request(kernel);
  request.source_states = source_states;
  request.destination_states = destination_states;
  images.move_to(request, device);
  const bool is_loss = request.work == Work::loss;
  const char* const name = a.destination_name;
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
    auto destination = images.destination(device);
    (is_loss ? request.loss : request.gradient) = make_operand(name, destination);
    record(a.command_buffer, buffer, LossCall(std::move(request)));
    return destination;
  }
  // A destination is made last, once everything else is known to fit.
  const BatchDescriptor output = result_descriptor(request);
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
    std::optional<double> source_gradient;
    if (given(source_gradient_) && is_scalar(source_gradient_)) {
      source_gradient = to_real("source_gradient", source_gradient_);
    } else if (given(source_gradient_)) {
      take(kGradients, "source_gradient", source_gradient_);
    }
    take(kPredictions, "predictions", predictions_);
    take(kLabels, "labels", labels_);
    if (given(weights_)) take(kWeights, "weights", weights_);
    if (given(out_)) arrays_[kOut].take_destination("out", out_);
    check_unchanged(arrays_[kPredictions], arrays_[kLabels], arrays_[kWeights], arrays_[kGradients],
                    arrays_[kOut]);
    // From here on no code of others runs, and addresses hold.
    LossRequest request = begin_request(kernel_);
    place(request.predictions, kPredictions, "predictions");
    place(request.labels, kLabels, "labels");
    place(request.weights, kWeights, "weights");
    place(request.source_gradients, kGradients, "source_gradient");
    if (source_gradient) {
      request.source_gradient = *source_gradient;
      request.also_read.emplace_back("source_gradient", memory_of_scalar(source_gradient_));
    }
    py::object result = destination(request, result_descriptor(request));
    compute(*kernel_->device(), LossCall(std::move(request)));
    return result.release().ptr();
  }

 private:
  enum Argument : std::size_t { kPredictions, kLabels, kWeights, kGradients, kOut, kArguments };

  /// A plain array that can be read as it is directly, anything else as images.
  void take(Argument which, const char* name, py::handle value) {
    HostArray& array = arrays_[which];
    if (!is_instance<ImageBatch>(value) && array.take_memory(name, value)) {
      forms_[which] = to_batch(name, array.axes(), array.require_in_place());
      return;
    }
    images_[which] = to_images(name, value, kernel_->device());
    images_[which]->check_readable();
  }

  void place(Operand& operand, Argument which, const char* name) {
    const HostArray& array = arrays_[which];
    if (array.is_taken()) {
      operand = make_operand(name, forms_[which], array.data(), array.writable());
    } else if (images_[which] != nullptr) {
      operand = make_operand(name, images_[which]);
    }
  }

  py::object destination(LossRequest& request, const BatchDescriptor& output) {
    Operand& operand = request.work == Work::loss ? request.loss : request.gradient;
    const auto full = output.shape.axes();
    const std::array<std::int64_t, 2> rows{full[0], full[3]};
    const bool is_flat = arrays_[kPredictions].axes().size() == 2;  // and so is the result
    const auto axes =
        is_flat ? std::span<const std::int64_t>(rows) : std::span<const std::int64_t>(full);
    if (given(out_)) {
      arrays_[kOut].require_destination(output.format);
      require_axes(arrays_[kOut].view(), axes);
      operand = make_operand("out", output, arrays_[kOut].data(), true);
      return py::reinterpret_borrow<py::object>(out_);
    }
    py::array fresh = make_array(axes, output.format);
    operand = make_operand("out", output, fresh.mutable_data(), true);
    return fresh;
  }

  const std::shared_ptr<Kernel>& kernel_;
  const py::handle predictions_, labels_, source_gradient_, weights_, out_;
  std::array<HostArray, kArguments> arrays_;
  std::array<BatchDescriptor, kArguments> forms_;  // of the arrays
  std::array<std::shared_ptr<ImageBatch>, kArguments> images_;
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
    const auto results =
        encode(kernel_of<ForwardLoss>(self),
               {a[0], nullptr, a[1], a[2], a[3], nullptr, a[4], "destination_images", a[5], a[6]});
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
    const auto results =
        encode(kernel_of<LossGradient>(self),
               {a[0], a[1], a[2], a[3], a[4], a[5], nullptr, "destination_gradients", a[6], a[7]});
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
               {a[0], nullptr, a[1], nullptr, nullptr, nullptr, nullptr, "", nullptr, a[2]});
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
