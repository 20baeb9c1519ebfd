#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "bindings/arguments.hpp"
#include "bindings/arrays.hpp"
#include "bindings/errors.hpp"
#include "bindings/gil.hpp"
#include "bindings/module.hpp"
#include "core/array_call.hpp"
#include "core/error.hpp"
#include "core/loss_call.hpp"
#include "devices.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

/// The arguments of the three functions; each takes a part of them.
struct Arguments {
  PyObject *predictions, *labels, *loss_type, *reduction, *weights, *weight, *label_smoothing,
      *number_of_classes;
  PyObject *epsilon, *delta, *reduce_across_batch, *ignore_index, *source_gradient, *wrt, *out,
      *loss_out, *device;
};

bool given(PyObject* argument) { return argument != nullptr && argument != Py_None; }

LossDescriptor read_descriptor(const Arguments& a) {
  LossDescriptor d;
  d.loss_type = to_loss_type("loss_type", a.loss_type);
  d.reduction_type =
      a.reduction != nullptr ? to_reduction_type("reduction", a.reduction) : ReductionType::mean;
  d.reduce_across_batch =
      a.reduce_across_batch == nullptr || to_bool("reduce_across_batch", a.reduce_across_batch);
  if (a.weight != nullptr) d.parameters.weight = to_real("weight", a.weight);
  if (a.label_smoothing != nullptr)
    d.parameters.label_smoothing = to_real("label_smoothing", a.label_smoothing);
  if (a.epsilon != nullptr) d.parameters.epsilon = to_real("epsilon", a.epsilon);
  if (a.delta != nullptr) d.parameters.delta = to_real("delta", a.delta);
  if (given(a.number_of_classes))
    d.number_of_classes = to_integer("number_of_classes", a.number_of_classes);
  check(d);
  return d;
}

Wrt read_wrt(PyObject* wrt) {
  if (wrt == nullptr) return Wrt::predictions;
  if (PyUnicode_Check(wrt) == 0)
    throw TypeError(refusal("wrt", "be 'predictions' or 'labels'", describe(wrt)));
  if (PyUnicode_CompareWithASCIIString(wrt, "predictions") == 0) return Wrt::predictions;
  if (PyUnicode_CompareWithASCIIString(wrt, "labels") == 0) return Wrt::labels;
  throw ValueError(refusal("wrt", "be 'predictions' or 'labels'", describe(wrt)));
}

/// One call of one of the functions: holds the arrays from reading them to returning the result.
class ArrayCall {
 public:
  ArrayCall(const Arguments& arguments, Work work) : arguments_(arguments), work_(work) {}

  PyObject* run() {
    request_.work = work_;
    request_.gradient_like_predictions = true;
    request_.descriptor = read_descriptor(arguments_);
    request_.wrt = read_wrt(arguments_.wrt);
    if (given(arguments_.ignore_index))
      ignored_ = to_integer("ignore_index", arguments_.ignore_index);
    predictions_.take_predictions("predictions", arguments_.predictions);
    read_weights();
    if (!given(arguments_.number_of_classes)) {
      request_.descriptor.number_of_classes =
          std::max<std::int64_t>(1, request_.predictions.shape().channels);
    }
    read_labels();
    read_source_gradient();
    Device& device = choose_device();
    if (work_ != Work::gradient) prepare_loss();
    if (work_ != Work::loss) prepare_gradient();
    compute(device, LossCall(std::move(request_)));
    py::object result = take_result();
    return result.release().ptr();
  }

 private:
  std::span<const std::int64_t> axes() const { return predictions_.axes(); }
  Format format() const { return predictions_.format(); }

  /// No destination may lie in the caller's memory that was converted into an operand.
  void keep_apart(const char* name, const MemoryRange& memory) {
    if (memory.begin != memory.end) request_.also_read.emplace_back(name, memory);
  }

  /// Weights decide how the axes fold, so predictions are folded here.
  void read_weights() {
    const LossInfo& loss = info(request_.descriptor.loss_type);
    const ArrayView predictions = predictions_.view("predictions");
    std::optional<ArrayView> weights;
    if (given(arguments_.weights)) {
      weights_.take_operand("weights", arguments_.weights, format());
      weights = weights_.view("weights");
    }
    Layout layout = fold(predictions, weights ? &*weights : nullptr, loss);
    if (weights && !layout.weights_fit)
      weights_.take_operand("weights", arguments_.weights, format(), axes());
    request_.predictions =
        make_operand("predictions", {layout.predictions, format()}, predictions_.data(), false);
    keep_apart("predictions", predictions_.origin());
    keep_apart("weights", weights_.origin());
    if (weights)
      request_.weights =
          make_operand("weights", {layout.weights, weights_.format()}, weights_.data(), false);
  }

  void read_labels() {
    const LossInfo& loss = info(request_.descriptor.loss_type);
    const auto pixel_axes = axes().first(axes().size() - 1);
    if (loss.takes_class_indices) {
      if (labels_.take_class_indices("labels", arguments_.labels, pixel_axes.size(), axes().back()))
        return read_class_indices(pixel_axes);
    }
    if (ignored_) {
      throw ValueError("ignore_index must be None where the labels are not class indices");
    }
    labels_.take_operand("labels", arguments_.labels, format());
    keep_apart("labels", labels_.origin());
    require_axes(labels_.view("labels"), axes());
    request_.labels = make_operand("labels", {request_.predictions.shape(), labels_.format()},
                                   labels_.data(), false);
  }

  void read_class_indices(std::span<const std::int64_t> pixel_axes) {
    if (request_.wrt == Wrt::labels)
      throw ValueError(
          refusal("wrt", "be 'predictions' where the labels are class indices", "'labels'"));
    const ArrayView view = labels_.view("labels");
    require_axes(view, pixel_axes);
    keep_apart("labels", labels_.origin());
    keep_apart("labels", labels_.memory());
    ClassIndices& indices = request_.class_indices;
    indices.ignored = ignored_;
    static constexpr std::int64_t kNothing = 0;
    indices.data =
        labels_.count() > 0 ? static_cast<const std::int64_t*>(labels_.data()) : &kNothing;
    check_class_indices(view, indices.data, axes().back(), indices.ignored);
  }

  void read_source_gradient() {
    if (!given(arguments_.source_gradient)) return;
    if (is_scalar(arguments_.source_gradient)) {
      request_.source_gradient = to_real("source_gradient", arguments_.source_gradient);
      keep_apart("source_gradient", memory_of(arguments_.source_gradient));
      return;
    }
    source_gradient_.take_operand("source_gradient", arguments_.source_gradient, format());
    keep_apart("source_gradient", source_gradient_.origin());
    const ArrayView view = source_gradient_.view("source_gradient");
    set_source_gradient(request_, view, axes());
  }

  Device& choose_device() const {
    if (given(arguments_.device)) {
      const auto& device = to_device("device", arguments_.device);
      for (const std::string& reason :
           {device->supports(format()), device->supports(request_.descriptor),
            device->supports_arrays(request_.descriptor, request_.predictions.shape())}) {
        if (!reason.empty()) throw ValueError(refusal("device", "support the call", reason));
      }
      return *device;
    }
    if (request_.predictions.shape().elements() < kDeviceCrossover) return *cpu_device();
    const auto& device = default_device();
    const bool supported =
        device->supports(format()).empty() && device->supports(request_.descriptor).empty() &&
        device->supports_arrays(request_.descriptor, request_.predictions.shape()).empty();
    return *(supported ? device : cpu_device());
  }

  void prepare_loss() {
    const LossDescriptor& descriptor = request_.descriptor;
    const auto shape = loss_axes(descriptor, axes());
    const Format loss_dtype = loss_format(format());
    const bool own = work_ == Work::loss;
    PyObject* const destination = own ? arguments_.out : arguments_.loss_out;
    const char* const name = own ? "out" : "loss_out";
    const BatchDescriptor folded{descriptor.reduces_across_batch()
                                     ? Shape{}
                                     : loss_shape(descriptor, request_.predictions.shape()),
                                 loss_dtype};
    request_.loss_is_one_value = descriptor.reduces_across_batch();
    if (given(destination)) {
      loss_.take_destination(name, destination, loss_dtype);
      require_axes(loss_.view(name), shape);
      loss_result_ = py::reinterpret_borrow<py::object>(destination);
      request_.loss = make_operand(name, folded, loss_.data(), true);
    } else if (shape.empty()) {
      request_.loss = make_operand(name, folded, &scalar_, true);
    } else {
      py::array fresh = make_array(shape, loss_dtype);
      request_.loss = make_operand(name, folded, fresh.mutable_data(), true);
      loss_result_ = std::move(fresh);
    }
  }

  void prepare_gradient() {
    const BatchDescriptor folded{request_.predictions.shape(), format()};
    if (given(arguments_.out)) {
      gradient_.take_destination("out", arguments_.out, format());
      require_axes(gradient_.view("out"), axes());
      gradient_result_ = py::reinterpret_borrow<py::object>(arguments_.out);
      request_.gradient = make_operand("out", folded, gradient_.data(), true);
    } else {
      py::array fresh = make_array(axes(), format());
      request_.gradient = make_operand("out", folded, fresh.mutable_data(), true);
      gradient_result_ = std::move(fresh);
    }
  }

  py::object take_result() {
    if (work_ != Work::gradient && !loss_result_) {
      const Format loss_dtype = loss_format(format());
      loss_result_ = make_scalar(
          loss_dtype == Format::float32 ? static_cast<double>(scalar_.single) : scalar_.real,
          loss_dtype);
    }
    if (work_ == Work::loss) return std::move(loss_result_);
    if (work_ == Work::gradient) return std::move(gradient_result_);
    return py::make_tuple(std::move(loss_result_), std::move(gradient_result_));
  }

  const Arguments& arguments_;
  const Work work_;
  LossRequest request_;
  std::optional<std::int64_t> ignored_;
  HostArray predictions_, labels_, weights_, source_gradient_, loss_, gradient_;
  py::object loss_result_, gradient_result_;
  union {
    float single;
    double real;
  } scalar_{.real = 0};
};

PyObject* loss(PyObject*, PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  static Signature<14> signature{"loss",
                                 {"predictions", "labels", "loss_type", "reduction", "weights",
                                  "weight", "label_smoothing", "number_of_classes", "epsilon",
                                  "delta", "reduce_across_batch", "ignore_index", "out", "device"},
                                 3,
                                 3};
  return translated([&] {
    const auto a = sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords);
    return ArrayCall({a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11],
                      nullptr, nullptr, a[12], nullptr, a[13]},
                     Work::loss)
        .run();
  });
}

PyObject* loss_gradient(PyObject*, PyObject* const* arguments, Py_ssize_t count,
                        PyObject* keywords) {
  static Signature<16> signature{
      "loss_gradient",
      {"predictions", "labels", "loss_type", "reduction", "weights", "weight", "label_smoothing",
       "number_of_classes", "epsilon", "delta", "reduce_across_batch", "ignore_index",
       "source_gradient", "wrt", "out", "device"},
      3,
      3};
  return translated([&] {
    const auto a = sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords);
    return ArrayCall({a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11],
                      a[12], a[13], a[14], nullptr, a[15]},
                     Work::gradient)
        .run();
  });
}

PyObject* loss_and_gradient(PyObject*, PyObject* const* arguments, Py_ssize_t count,
                            PyObject* keywords) {
  static Signature<17> signature{
      "loss_and_gradient",
      {"predictions", "labels", "loss_type", "reduction", "weights", "weight", "label_smoothing",
       "number_of_classes", "epsilon", "delta", "reduce_across_batch", "ignore_index",
       "source_gradient", "wrt", "out", "loss_out", "device"},
      3,
      3};
  return translated([&] {
    const auto a = sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords);
    return ArrayCall({a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11],
                      a[12], a[13], a[14], a[15], a[16]},
                     Work::loss_and_gradient)
        .run();
  });
}

#define SHARED_PARAMETERS                                                                     \
  "reduction='mean', weights=None, weight=1.0, label_smoothing=0.0, number_of_classes=None, " \
  "epsilon=1e-07, delta=1.0, "                                                                \
  "reduce_across_batch=True, ignore_index=None, "
#define SHARED_DOC                                                                                \
  "predictions : array [C], [N, C] or [N, ..., C] of float16, float32 or float64 (integers and "  \
  "bools become float64).\n"                                                                      \
  "    The last axis is the feature channels, the first (from rank 2 on) the batch, all between " \
  "are pixels.\n"                                                                                 \
  "labels : array of the shape of predictions; or integers of shape predictions.shape[:-1], "     \
  "class indices in [0, C),\n"                                                                    \
  "    for softmax_cross_entropy and categorical_cross_entropy.\n"                                \
  "loss_type : MPSCNNLossType, its lower-case name or its raw value.\n"                           \
  "reduction : MPSCNNReductionType, its lower-case name or its raw value.\n"                      \
  "weights : array that broadcasts to predictions. An element of weight 0 contributes exactly "   \
  "0.\n"                                                                                          \
  "weight : finite factor ω of everything.\n"                                                     \
  "label_smoothing : s in [0, 1], of the softmax and sigmoid losses.\n"                           \
  "number_of_classes : K of the softmax smoothing; None means the size of the last axis.\n"       \
  "epsilon, delta : constants of the log loss (>= 0) and of the Huber loss (> 0).\n"              \
  "reduce_across_batch : reduce over the batch too, instead of per image.\n"                      \
  "ignore_index : class index whose pixels weigh nothing.\n"
#define SHARED_ERRORS                                                                         \
  "Raises ValueError for a wrong shape, range or name, TypeError for a wrong type or dtype, " \
  "before anything is\n"                                                                      \
  "written. The formulas are those of the table of losses in the README, after MPSCNNLoss.h.\n"

PyMethodDef methods[] = {
    {"loss", as_method(loss), METH_FASTCALL | METH_KEYWORDS,
     "loss(predictions, labels, loss_type, *, " SHARED_PARAMETERS "out=None, device=None)\n--\n\n"
     "The loss of predictions against labels (MPSNNForwardLoss in one call).\n\n" SHARED_DOC
     "out : destination, C-contiguous and writable, of exactly the shape and dtype of the result.\n"
     "device : Device; None chooses.\n\n"
     "Returns an array like predictions for reduction 'none', else a NumPy scalar, or an array [N] "
     "where\n"
     "reduce_across_batch is False. Losses of float16 are float32.\n\n" SHARED_ERRORS},
    {"loss_gradient", as_method(loss_gradient), METH_FASTCALL | METH_KEYWORDS,
     "loss_gradient(predictions, labels, loss_type, *, " SHARED_PARAMETERS
     "source_gradient=None, wrt='predictions', out=None, device=None)\n--\n\n"
     "The gradient of the loss (MPSNNLossGradient in one call).\n\n" SHARED_DOC
     "source_gradient : dL/d(loss), 1 where None: a scalar; or [N] where reduced per image; or an "
     "array like\n"
     "    predictions for reduction 'none'.\n"
     "wrt : 'predictions' or 'labels'.\n"
     "out : destination, C-contiguous and writable, of the shape and dtype of predictions.\n"
     "device : Device; None chooses.\n\n"
     "Returns an array of the shape and dtype of predictions.\n\n" SHARED_ERRORS},
    {"loss_and_gradient", as_method(loss_and_gradient), METH_FASTCALL | METH_KEYWORDS,
     "loss_and_gradient(predictions, labels, loss_type, *, " SHARED_PARAMETERS
     "source_gradient=None, wrt='predictions', out=None, loss_out=None, device=None)\n--\n\n"
     "The loss and its gradient in one pass over the data.\n\n" SHARED_DOC
     "source_gradient : dL/d(loss), 1 where None, as for loss_gradient; the returned loss is not "
     "multiplied by it.\n"
     "wrt : 'predictions' or 'labels'.\n"
     "out, loss_out : destinations of the gradient and of the loss.\n"
     "device : Device; None chooses.\n\n"
     "Returns (loss, gradient), bit for bit what loss and loss_gradient return.\n\n" SHARED_ERRORS},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void compute(Device& device, const LossCall& call) {
  const bool is_short = call->predictions.shape().elements() < kLongCall;
  if (is_short && &device == cpu_device().get()) return device.compute(call);
  const WithoutGil released;
  device.compute(call);
}

void register_functions(py::module_& m) {
  for (PyMethodDef* method = methods; method->ml_name != nullptr; ++method) {
    PyObject* const function =
        PyCFunction_NewEx(method, nullptr, py::str("mpsnn_loss").release().ptr());
    if (function == nullptr) throw py::error_already_set();
    m.attr(method->ml_name) = py::reinterpret_steal<py::object>(function);
  }
}

}  // namespace mpsnn_loss::bindings
