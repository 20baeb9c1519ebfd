#include "bindings/functions/function_call.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/arrays.hpp"
#include "bindings/compute.hpp"
#include "core/array_call.hpp"
#include "core/error.hpp"
#include "devices.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

LossDescriptor read_descriptor(const FunctionArguments& a) {
  LossDescriptor d;
  d.loss_type = to_any_loss_type("loss_type", a.loss_type);
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
  check(d, "reduction");
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
class FunctionCall {
 public:
  FunctionCall(const FunctionArguments& arguments, Work work)
      : arguments_(arguments), work_(work) {}

  PyObject* run() {
    take_arguments();
    check_unchanged(predictions_, labels_, weights_, source_gradient_, loss_, gradient_);
    // From here on no code of others runs, and addresses hold.
    read_weights();
    if (!given(arguments_.number_of_classes))
      request_.descriptor.number_of_classes = std::max<std::int64_t>(1, axes().back());
    read_labels();
    read_source_gradient();
    Engine& engine = choose_engine();
    const Computation computation(std::move(request_), [this](Request& request) {
      if (work_ != Work::gradient) add_loss(request);
      if (work_ != Work::loss) add_gradient(request);
      convert_operands(request);
    });
    const bool is_cpu = &engine == &cpu_device()->engine();
    compute(computation, is_cpu, [&](Waiting waiting) { engine.compute(computation, waiting); });
    return take_result().release().ptr();
  }

 private:
  /// An operand whose elements have yet to be converted.
  struct Conversion {
    HostArray* array;
    std::optional<Operand> Request::* operand;  // null: the predictions
    std::span<const std::int64_t> axes;
    Underflow underflow;
  };

  /// Everything that may call code of others, and what needs no second look.
  void take_arguments() {
    request_.work = work_;
    request_.gradient_like_predictions = true;
    request_.descriptor = read_descriptor(arguments_);
    request_.wrt = read_wrt(arguments_.wrt);
    if (given(arguments_.ignore_index))
      ignored_ = to_integer("ignore_index", arguments_.ignore_index);
    if (given(arguments_.device)) device_ = to_device("device", arguments_.device);
    take_source_gradient();
    predictions_.take("predictions", arguments_.predictions);
    labels_.take("labels", arguments_.labels);
    if (given(arguments_.weights)) weights_.take("weights", arguments_.weights);
    if (given(arguments_.out))
      (work_ == Work::loss ? loss_ : gradient_).take_destination("out", arguments_.out);
    if (given(arguments_.loss_out)) loss_.take_destination("loss_out", arguments_.loss_out);
    format_ = format_of_predictions();
    is_empty_ = is_empty(axes());
  }

  void take_source_gradient() {
    PyObject* const value = arguments_.source_gradient;
    if (!given(value)) return;
    if (is_scalar(value)) {
      request_.uniform_source_gradient = to_real("source_gradient", value);
      keep_apart("source_gradient", memory_of_scalar(value));
    } else {
      source_gradient_.take("source_gradient", value);
    }
  }

  Format format_of_predictions() const {
    const ElementType type = predictions_.type();
    if (is_integer(type) || type == ElementType::boolean) return Format::float64;
    if (const auto format = storage_format(type)) return *format;
    throw TypeError(refusal("predictions", "have dtype " + names_of_formats(), name_of(type)));
  }

  std::span<const std::int64_t> axes() const { return predictions_.axes(); }
  const LossInfo& loss() const { return info(request_.descriptor.loss_type); }

  /// No destination may lie in the caller's memory that is read without being an operand.
  void keep_apart(const char* name, const MemoryRange& memory) {
    if (memory.begin != memory.end) request_.also_read.emplace_back(name, memory);
  }

  /// The format in which an operand takes part: its own, or what computes with the predictions.
  Format operand_format(const HostArray& array) const {
    const auto own = storage_format(array.type());
    if (own && array.is_in_place() && is_double(*own) == is_double(format_)) return *own;
    return info(format_).computed_in;
  }

  /// The array as an operand: in place, or to be converted once everything is found valid, perhaps
  /// expanded to other axes.
  void add(std::optional<Operand> Request::* operand, HostArray& array, const BatchDescriptor& form,
           Underflow underflow = Underflow::to_zero, std::span<const std::int64_t> expanded = {}) {
    const char* const name = array.view().name;
    const bool in_place = array.is_in_place(form.format) && expanded.empty();
    const Operand made = make_operand(name, form, in_place ? array.data() : nullptr, false);
    if (operand == nullptr) {
      request_.predictions = made;
    } else {
      request_.*operand = made;
    }
    if (in_place) return;
    keep_apart(name, array.memory());
    conversions_[conversion_count_++] = {&array, operand,
                                         expanded.empty() ? array.axes() : expanded, underflow};
  }

  /// Weights decide how the axes fold, so predictions are folded here.
  void read_weights() {
    const bool has_weights = weights_.is_taken();
    const ArrayView weights = has_weights ? weights_.view() : ArrayView{};
    Folded folded = fold(predictions_.view(), format_, has_weights ? &weights : nullptr, loss());
    if (is_empty_ && (work_ == Work::gradient || request_.descriptor.reduces_across_batch()))
      folded.predictions.images = 1;  // no image wants a loss of its own
    if (is_empty_) {
      request_.predictions =
          make_operand("predictions", {folded.predictions, format_}, &nothing_, false);
      return;
    }
    add(nullptr, predictions_, {folded.predictions, format_});
    if (!has_weights) return;
    const BatchDescriptor form{folded.weights, operand_format(weights_)};
    if (folded.weights_fit) return add(&Request::weights, weights_, form, Underflow::to_smallest);
    expanded_.assign(axes().begin(), axes().end());
    expanded_.front() = folded.weights.images;
    expanded_.back() = folded.weights.channels;
    add(&Request::weights, weights_, form, Underflow::to_smallest, expanded_);
  }

  void read_labels() {
    const ArrayView view = labels_.view();
    const LabelKind kind = judge_labels(view, labels_.type(), axes(), loss());
    has_class_indices_ = kind == LabelKind::class_indices;
    if (has_class_indices_) {
      if (request_.wrt == Wrt::labels)
        throw ValueError(
            refusal("wrt", "be 'predictions' where the labels are class indices", "'labels'"));
      request_.class_indices = ClassIndices{.ignored = ignored_};
      return keep_apart("labels", labels_.memory());
    }
    if (ignored_)
      throw ValueError("ignore_index must be None where the labels are not class indices");
    if (is_empty_) {
      request_.labels = request_.predictions;
    } else {
      add(&Request::labels, labels_, {request_.predictions.shape(), operand_format(labels_)});
    }
  }

  void read_source_gradient() {
    if (!source_gradient_.is_taken()) return;
    const ArrayView view = source_gradient_.view();
    if (view.axes.empty()) {
      convert(source_gradient_.strided(), Format::float64, Underflow::to_zero,
              reinterpret_cast<std::byte*>(&request_.uniform_source_gradient));
      return keep_apart("source_gradient", source_gradient_.memory());
    }
    const BatchDescriptor form{source_gradient_shape(request_, view, axes()),
                               operand_format(source_gradient_)};
    if (!is_empty_) add(&Request::source_gradients, source_gradient_, form);
  }

  /// Nothing is read before the whole call but for overlaps is known to be valid.
  void convert_operands(Request& request) {
    for (std::size_t i = 0; i < conversion_count_; ++i) {
      const Conversion& c = conversions_[i];
      Operand& operand = c.operand == nullptr ? request.predictions : *(request.*c.operand);
      operand.data = c.array->converted(operand.descriptor.format, c.axes, c.underflow);
    }
    if (!has_class_indices_ || is_empty_) return;
    ClassIndices& indices = *request.class_indices;
    indices.data = labels_.as_int64(axes().back());
    check_class_indices(labels_.view(), indices.data, axes().back(), indices.ignored);
  }

  Engine& choose_engine() const {
    const auto& device = device_ != nullptr ? device_ : device_of_functions();
    Engine& engine = device->engine();
    if (device == cpu_device()) return engine;  // does everything
    const Need need{.loss = request_.descriptor,
                    .format = format_,
                    .shape = request_.predictions.shape(),
                    .work = work_};
    const std::string why = engine.supports(need);
    if (!why.empty()) throw ValueError(refusal("device", "support the call", why));
    return engine;
  }

  void add_loss(Request& request) {
    const LossDescriptor& descriptor = request.descriptor;
    const auto shape = loss_axes(descriptor, axes());
    const Format loss_dtype = info(format_).of_losses;
    const bool own = work_ == Work::loss;
    PyObject* const destination = own ? arguments_.out : arguments_.loss_out;
    const char* const name = own ? "out" : "loss_out";
    const BatchDescriptor folded{descriptor.reduces_across_batch()
                                     ? Shape{}
                                     : loss_shape(descriptor, request.predictions.shape()),
                                 loss_dtype};
    request.loss_is_one_value = descriptor.reduces_across_batch();
    if (given(destination)) {
      loss_.require_destination(loss_dtype);
      require_axes(loss_.view(), shape);
      loss_result_ = py::reinterpret_borrow<py::object>(destination);
      request.loss = make_operand(name, folded, loss_.data(), true);
    } else if (shape.empty()) {
      request.loss = make_operand(name, folded, &scalar_, true);
    } else {
      py::array fresh = make_array(shape, loss_dtype);
      request.loss = make_operand(name, folded, fresh.mutable_data(), true);
      loss_result_ = std::move(fresh);
    }
  }

  void add_gradient(Request& request) {
    const BatchDescriptor folded{request.predictions.shape(), format_};
    if (given(arguments_.out)) {
      gradient_.require_destination(format_);
      require_axes(gradient_.view(), axes());
      gradient_result_ = py::reinterpret_borrow<py::object>(arguments_.out);
      request.gradient = make_operand("out", folded, gradient_.data(), true);
    } else {
      py::array fresh = make_array(axes(), format_);
      request.gradient = make_operand("out", folded, fresh.mutable_data(), true);
      gradient_result_ = std::move(fresh);
    }
  }

  py::object take_result() {
    if (work_ != Work::gradient && !loss_result_)
      loss_result_ = make_scalar(&scalar_, info(format_).of_losses);
    if (work_ == Work::loss) return std::move(loss_result_);
    if (work_ == Work::gradient) return std::move(gradient_result_);
    return py::make_tuple(std::move(loss_result_), std::move(gradient_result_));
  }

  const FunctionArguments& arguments_;
  const Work work_;
  Request request_;
  std::optional<std::int64_t> ignored_;
  std::shared_ptr<Device> device_;   // null: of the functions
  Format format_ = Format::float32;  // of the predictions, as they are computed with
  bool is_empty_ = false;            // they have no elements
  HostArray predictions_, labels_, weights_, source_gradient_, loss_, gradient_;
  bool has_class_indices_ = false;
  std::array<Conversion, 4> conversions_;
  std::size_t conversion_count_ = 0;
  std::vector<std::int64_t> expanded_;  // axes of weights that do not fold
  py::object loss_result_, gradient_result_;
  double scalar_ = 0;    // room for a loss of either format
  std::byte nothing_{};  // where predictions without elements lie
};

}  // namespace

PyObject* call_function(const FunctionArguments& arguments, Work work) {
  return FunctionCall(arguments, work).run();
}

}  // namespace mpsnn_loss::bindings
