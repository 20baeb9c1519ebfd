// Encoding a kernel into a command buffer, and calling it directly.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/arrays.hpp"
#include "bindings/compute.hpp"
#include "bindings/errors.hpp"
#include "bindings/instances.hpp"
#include "bindings/objects/image_arguments.hpp"
#include "bindings/objects/kernel_handles.hpp"
#include "bindings/objects/owners.hpp"
#include "core/array_call.hpp"
#include "core/error.hpp"
#include "devices.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

std::vector<std::shared_ptr<State>> to_states(const char* name, py::handle value) {
  std::vector<std::shared_ptr<State>> states;
  if (!given(value)) return states;
  if (is_instance<State>(value)) return {py::cast<std::shared_ptr<State>>(value)};
  for_each_item(name, "a sequence of MPSState or None", value,
                [&](py::handle item, const std::string& item_name) {
                  if (!is_instance<State>(item))
                    throw TypeError(refusal(item_name, "be an MPSState", describe(item)));
                  states.push_back(py::cast<std::shared_ptr<State>>(item));
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

/// What a kernel is encoded with; null where there is no such argument.
struct EncodeArguments {
  PyObject *command_buffer, *source_gradients, *source_images, *labels, *weights;
  PyObject *source_states, *destination_states;
  const char* destination_name;
  PyObject *destination, *allocator;
};

/// Image arguments that are taken, and made into images once all others are.
class EncodeImages {
 public:
  explicit EncodeImages(const EncodeArguments& a) {
    predictions_.emplace("source_images", a.source_images);
    if (a.labels != nullptr) labels_.emplace("labels", a.labels);
    if (a.source_gradients != nullptr)
      source_gradients_.emplace("source_gradients", a.source_gradients);
    if (given(a.weights)) weights_.emplace("weights", a.weights);
    if (given(a.destination)) results_.emplace(a.destination_name, a.destination);
  }
  bool may_have_run_code() const {
    bool may_have = false;
    for_each([&](const ImageArgument& argument) { may_have |= argument.may_have_run_code(); });
    return may_have;
  }
  void check_unchanged() const {
    for_each([](const ImageArgument& argument) { argument.check_unchanged(); });
  }
  void move_to(Encode& call) {
    const auto move = [&](std::optional<ImageArgument>& argument, auto& images) {
      if (argument) images = argument->images(call.kernel->device());
    };
    move(predictions_, call.predictions);
    move(labels_, call.labels);
    move(source_gradients_, call.source_gradients);
    move(weights_, call.weights);
    move(results_, call.results);
  }

 private:
  template <class F>
  void for_each(F f) const {
    for (const auto* argument :
         {&predictions_, &labels_, &source_gradients_, &weights_, &results_}) {
      if (*argument) f(**argument);
    }
  }

  std::optional<ImageArgument> predictions_, labels_, source_gradients_, weights_, results_;
};

std::shared_ptr<ImageBatch> encode(const std::shared_ptr<Kernel>& kernel,
                                   const EncodeArguments& a) {
  auto& buffer = to_object<CommandBuffer>("command_buffer", "a CommandBuffer", a.command_buffer);
  Encode call;
  call.kernel = kernel;
  check_devices(call, *buffer.device());
  buffer.check_encodable();
  EncodeImages images(a);  // code of others may run here, and no more after it
  call.source_states = to_states("source_states", a.source_states);
  call.destination_states = to_states("destination_states", a.destination_states);
  if (images.may_have_run_code() || given(a.source_states) || given(a.destination_states))
    images.check_unchanged();
  if (given(a.allocator)) call.allocator = to_allocator(a.allocator);
  images.move_to(call);
  std::optional<Encode> shown;
  if (lends_memory()) shown = call;
  std::shared_ptr<ImageBatch> results;
  if (buffer.device() == cpu_device()) {
    results = buffer.encode(std::move(call));
  } else {
    // A full queue of a GPU waits here for buffers whose handlers may need the GIL.
    const WithoutGil released;
    results = buffer.encode(std::move(call));
  }
  if (shown) {
    shown->results = results;
    attach_call(a.command_buffer, *shown);
  }
  return results;
}

/// A direct call: arrays (or batches) in, array out.
class KernelCall {
 public:
  KernelCall(const std::shared_ptr<Kernel>& kernel, PyObject* predictions, PyObject* labels,
             PyObject* source_gradient, PyObject* weights, PyObject* out)
      : kernel_(kernel),
        on_cpu_(kernel->device() == cpu_device()),
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
    check_unchanged({&arrays_[kPredictions], &arrays_[kLabels], &arrays_[kWeights],
                     &arrays_[kGradients], &arrays_[kOut]});
    // From here on no code of others runs, and addresses hold.
    const auto ask = [&](Request& request) {
      kernel_->fill(request);
      place(request.predictions, kPredictions, "predictions");
      place(request.labels, kLabels, "labels");
      place(request.weights, kWeights, "weights");
      place(request.source_gradients, kGradients, "source_gradient");
      if (!source_gradient) return;
      request.uniform_source_gradient = *source_gradient;
      request.elsewhere.push_back({"source_gradient", memory_of_scalar(source_gradient_)});
    };
    const Computation computation(ask, [this](Request& request) { complete(request); });
    compute(computation, on_cpu_, [&](Waiting waiting) { kernel_->run(computation, waiting); });
    return result_.release().ptr();
  }

 private:
  enum Argument : std::size_t { kPredictions, kLabels, kWeights, kGradients, kOut, kArguments };

  /// A plain array that can be read as it is directly, anything else as images.
  void take(Argument which, const char* name, py::handle value) {
    HostArray& array = arrays_[which];
    if (!is_instance<ImageBatch>(value) && array.take_memory(name, value)) {
      forms_[which] = to_batch(name, array.axes(), array.require_in_place());
      if (!on_cpu_) kernel_->device()->check_images(name, forms_[which]);  // that one has all
      return;
    }
    images_[which] = to_images(name, value, kernel_->device());
    check_device(name, "be on the device of the kernel, ", *kernel_->device(),
                 *images_[which]->device());
  }

  static Operand& made(Operand& operand) { return operand; }
  static Operand& made(std::optional<Operand>& operand) { return operand.emplace(); }

  template <class Place>  // an operand, perhaps an optional one
  void place(Place& operand, Argument which, const char* name) {
    const HostArray& array = arrays_[which];
    if (array.is_taken()) {
      made(operand).place(name, forms_[which], array.data(), array.writable());
    } else if (const auto& images = images_[which]; images != nullptr) {
      images->check_readable();
      operand = images->operand(name);
    }
  }

  /// A kernel is called on host memory, so images of a device are read first.
  void bring_to_host(Operand& operand, Argument which) {
    if (operand.on_host) return;
    auto& values = copies_.emplace_back(static_cast<std::size_t>(operand.descriptor.bytes()));
    images_[which]->download(0, operand.shape().images, values.data());
    operand.place(operand.name, operand.descriptor, values.data(), false);
  }

  void complete(Request& request) {
    add_result(request);
    bring_to_host(request.predictions, kPredictions);
    if (request.labels) bring_to_host(*request.labels, kLabels);
    if (request.weights) bring_to_host(*request.weights, kWeights);
    if (request.source_gradients) bring_to_host(*request.source_gradients, kGradients);
  }

  void add_result(Request& request) {
    const BatchDescriptor output = result_descriptor(request);
    const auto full = output.shape.axes();
    const std::array<std::int64_t, 2> rows{full[0], full[3]};
    const bool is_flat = arrays_[kPredictions].axes().size() == 2;  // and so is the result
    const auto axes =
        is_flat ? std::span<const std::int64_t>(rows) : std::span<const std::int64_t>(full);
    if (given(out_)) {
      arrays_[kOut].require_destination(output.format);
      require_axes(arrays_[kOut].view(), axes);
      request.result().emplace("out", output, arrays_[kOut].data(), true);
      result_ = py::reinterpret_borrow<py::object>(out_);
      return;
    }
    py::array fresh = make_array(axes, output.format);
    request.result().emplace("out", output, fresh.mutable_data(), true);
    result_ = std::move(fresh);
  }

  const std::shared_ptr<Kernel>& kernel_;
  const bool on_cpu_;
  const py::handle predictions_, labels_, source_gradient_, weights_, out_;
  std::array<HostArray, kArguments> arrays_;
  std::array<BatchDescriptor, kArguments> forms_;  // of the arrays
  std::array<std::shared_ptr<ImageBatch>, kArguments> images_;
  std::vector<std::vector<std::byte>> copies_;  // of images that are not on the host
  py::object result_;
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
        encode(kernel_of<ForwardLoss>(self), {a[0], nullptr, a[1], a[2], a[3], nullptr, a[4],
                                              name_of_results(ForwardLoss::kind), a[5], a[6]});
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
        encode(kernel_of<LossGradient>(self), {a[0], a[1], a[2], a[3], a[4], a[5], nullptr,
                                               name_of_results(LossGradient::kind), a[6], a[7]});
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

struct EncodeMethod {
  KernelKind kind;
  FastFunction call;
  const char* help;
};

/// The help of each, to which that of the allocator is added.
constexpr EncodeMethod kEncodeMethods[] = {
    {ForwardLoss::kind, encode_loss,
     R"(encode_batch($self, command_buffer, source_images, labels, weights=None, *, )"
     R"(destination_states=None, destination_images=None, allocator=None)
--

Encodes the loss of source_images (predictions) and returns it, an MPSImageBatch: of the size of the predictions, or N images
1x1x1 after a reduction, float32 for float16 and float32. destination_states (1 or N) capture weight, label_smoothing,
epsilon and delta.
)"},
    {LossGradient::kind, encode_gradient,
     R"(encode_batch($self, command_buffer, source_gradients, source_images, labels, weights=None, )"
     R"(source_states=None, destination_gradients=None, *, allocator=None)
--

Encodes the gradient and returns it, an MPSImageBatch, which is (a view of) destination_gradients where given.

source_gradients: N images, 1x1x1 or (reduction none) of the size of source_images. source_states (1 or N) replace the
kernel's weight, label_smoothing, epsilon and delta.
)"},
    {InitialGradient::kind, encode_initial_gradient,
     R"(encode_batch($self, command_buffer, source_images, *, allocator=None)
--

Encodes ones of the size and format of source_images and returns them, an MPSImageBatch.
)"}};

constexpr const char* kAllocatorHelp = R"(
allocator: None encodes into images made by this package, or given. 'image' and 'temporary_image' have the kernel
return images of its own (Metal only; RuntimeError elsewhere), whatever destination_image_allocator is. Temporary ones
can be read by later kernels of the same command buffer alone; reading them raises RuntimeError.

Raises before anything is encoded.)";

}  // namespace

void add_encode_methods(py::module_& m) {
  static std::array<std::string, std::size(kEncodeMethods)> helps;
  static std::array<PyMethodDef, std::size(kEncodeMethods)> methods;
  for (std::size_t i = 0; i < std::size(kEncodeMethods); ++i) {
    const EncodeMethod& row = kEncodeMethods[i];
    helps[i] = std::string(row.help) + kAllocatorHelp;
    methods[i] = {"encode_batch", as_method(row.call), METH_FASTCALL | METH_KEYWORDS,
                  helps[i].c_str()};
    add_method(m.attr(class_name(row.kind)), methods[i]);
  }
}

}  // namespace mpsnn_loss::bindings
