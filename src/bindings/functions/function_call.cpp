#include "bindings/functions/function_call.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <utility>

#include "bindings/arguments.hpp"
#include "bindings/arrays.hpp"
#include "bindings/compute.hpp"
#include "bindings/functions/output.hpp"
#include "bindings/functions/properties.hpp"
#include "core/array_call.hpp"
#include "core/divisor.hpp"
#include "core/error.hpp"
#include "devices.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

/// One call of one of the functions: holds the arrays from reading them to returning the result.
class FunctionCall {
 public:
  FunctionCall(const FunctionArguments& arguments, Work work)
      : arguments_(arguments), work_(work) {}

  PyObject* run() {
    read_arguments();
    Engine& engine = choose_engine();
    const Computation computation(std::move(request_), [this](Request& request) {
      add_outputs(request);
      convert_operands(request);
    });
    const bool is_cpu = &engine == &cpu_device()->engine();
    compute(computation, is_cpu, [&](Waiting waiting) { engine.compute(computation, waiting); });
    return take_result().release().ptr();
  }

  double run_divisor() {
    read_arguments();
    require_divisor("reduction");
    const Computation computation(std::move(request_),
                                  [this](Request& request) { convert_operands(request); });
    PerImage found(0.0);
    compute(computation, true, [&](Waiting) {
      const DefaultFloatingPoint environment;
      found = divisors(computation);
    });
    return found[0];
  }

 private:
  /// An array of the caller that is an operand.
  struct Input {
    HostArray* array;
    std::optional<Operand> Request::* operand;  // null: the predictions
    Covers covers;
    Format format;
    Underflow underflow;
    enum { in_place, converted, packed } where;
  };

  bool wants_loss() const { return work_ == Work::loss || work_ == Work::loss_and_gradient; }

  void read_arguments() {
    take_arguments();
    check_unchanged(predictions_, labels_, weights_, sample_weight_, class_weight_,
                    source_gradient_, loss_.array(), gradient_.array(), hessian_.array());
    // From here on no code of others runs, and addresses hold.
    folding_.emplace(predictions_.view(), axis_);
    is_empty_ = is_empty(axes());
    if (!given(arguments_.number_of_classes))
      request_.descriptor.number_of_classes = std::max<std::int64_t>(1, folding_->channels());
    if (request_.divisor) require_divisor("divisor");
    admit(nullptr, predictions_, Covers::everything, format_);
    read_weights();
    read_labels();
    read_source_gradient();
    for (Output* output : {&gradient_, &hessian_, &loss_}) {
      if (output->kind == Output::Kind::like_predictions) output->admit(*folding_);
    }
    place_inputs();
  }

  /// Everything that may call code of others, and what needs no second look.
  void take_arguments() {
    request_.work = work_;
    request_.by_functions = true;
    request_.descriptor = read_descriptor(arguments_);
    request_.wrt = read_wrt(arguments_.wrt);
    if (given(arguments_.ignore_index))
      ignored_ = to_integer("ignore_index", arguments_.ignore_index);
    if (arguments_.axis != nullptr) axis_ = to_integer("axis", arguments_.axis);
    if (given(arguments_.divisor)) request_.divisor = to_divisor(arguments_.divisor);
    if (given(arguments_.device)) device_ = to_named_device("device", arguments_.device);
    take_source_gradient();
    predictions_.take("predictions", arguments_.predictions);
    labels_.take("labels", arguments_.labels);
    if (given(arguments_.weights)) weights_.take("weights", arguments_.weights);
    if (given(arguments_.sample_weight))
      sample_weight_.take("sample_weight", arguments_.sample_weight);
    if (given(arguments_.class_weight)) class_weight_.take("class_weight", arguments_.class_weight);
    using enum Output::Kind;
    if (wants_loss()) loss_.kind = request_.descriptor.reduces() ? reduced : like_predictions;
    if (work_ != Work::loss) gradient_.kind = like_predictions;
    if (work_ == Work::gradient_and_hessian) hessian_.kind = like_predictions;
    if (given(arguments_.out))
      (work_ == Work::loss ? loss_ : gradient_).take("out", arguments_.out);
    if (given(arguments_.loss_out)) loss_.take("loss_out", arguments_.loss_out);
    if (given(arguments_.hessian_out)) hessian_.take("hessian_out", arguments_.hessian_out);
    format_ = format_of_predictions(predictions_.type());
  }

  void take_source_gradient() {
    PyObject* const value = arguments_.source_gradient;
    if (!given(value)) return;
    if (is_scalar(value)) {
      request_.uniform_source_gradient = to_real("source_gradient", value);
      const MemoryRange memory = memory_of_scalar(value);
      if (memory.begin != memory.end) request_.elsewhere.push_back({"source_gradient", memory});
    } else {
      source_gradient_.take("source_gradient", value);
    }
  }

  std::span<const std::int64_t> axes() const { return predictions_.axes(); }
  const LossInfo& loss() const { return info(request_.descriptor.loss_type); }

  /// What it is that has no divisor: the reduction, or the argument in its place.
  void require_divisor(const char* argument) const {
    const ReductionInfo& reduction = info(request_.descriptor.reduction_type);
    if (reduction.divides) return;
    const std::string words =
        std::string("the reduction \"") + reduction.name + "\" has no divisor";
    throw ValueError(std::string(argument) == "divisor"
                         ? "divisor must be None, as " + words
                         : refusal("reduction", "divide", '"' + std::string(reduction.name) + '"'));
  }

  /// No destination may lie in the caller's memory that is read without being an operand.
  void keep_apart(const HostArray& array) {
    const StridedArray memory = array.strided();
    const MemoryRange range = memory_of(memory);
    if (range.begin != range.end)
      request_.elsewhere.push_back({array.view().name, range, memory, false});
  }

  /// The format in which an operand takes part: its own, or what computes with the predictions.
  Format operand_format(const HostArray& array) const {
    const auto own = storage_format(array.type());
    if (own && array.has_whole_strides(*own) && is_double(*own) == is_double(format_)) return *own;
    return info(format_).computed_in;
  }

  /// The strides of an array that lies in place, or else where it is converted to, for each axis of
  /// predictions.
  std::span<const std::int64_t> strides_of(const Input& input) {
    const auto own_axes = input.array->axes();
    const auto own = input.array->strided().strides;
    const std::int64_t size = info(input.format).size;
    std::array<std::int64_t, Folding::kMostAxes> contiguous;
    set_contiguous_strides(own_axes, 1, contiguous.data());
    for (std::size_t i = 0; i < folding_->rank(); ++i) {
      const auto axis = folding_->own_axis(input.covers, own_axes.size(), i);
      const bool broadcasts = !axis || own_axes[*axis] == 1;
      strides_[i] = broadcasts                       ? 0
                    : input.where == Input::in_place ? own[*axis] / size
                                                     : contiguous[*axis];
    }
    return {strides_.data(), folding_->rank()};
  }

  void admit(std::optional<Operand> Request::* operand, HostArray& array, Covers covers,
             Format format, Underflow underflow = Underflow::to_zero) {
    Input& input = inputs_[input_count_++];
    input = {&array,    operand,
             covers,    format,
             underflow, array.has_whole_strides(format) ? Input::in_place : Input::converted};
    if (!is_empty_ && !folding_->admit(strides_of(input))) input.where = Input::packed;
  }

  void read_weights() {
    if (weights_.is_taken()) {
      require_broadcast(weights_.view(), *folding_, loss());
      admit(&Request::weights, weights_, Covers::everything, operand_format(weights_),
            Underflow::to_smallest);
    }
    if (sample_weight_.is_taken()) {
      const Covers covers = judge_sample_weight(sample_weight_.view(), *folding_);
      admit(&Request::sample_weights, sample_weight_, covers, operand_format(sample_weight_),
            Underflow::to_smallest);
    }
    if (class_weight_.is_taken()) {
      require_class_weight(class_weight_.view(), *folding_, loss());
      admit(&Request::class_weights, class_weight_, Covers::channels, operand_format(class_weight_),
            Underflow::to_smallest);
    }
  }

  void read_labels() {
    const LabelKind kind = judge_labels(labels_.view(), labels_.type(), *folding_, loss());
    has_class_indices_ = kind == LabelKind::class_indices;
    if (has_class_indices_) {
      if (request_.wrt == Wrt::labels)
        throw ValueError(
            refusal("wrt", "be 'predictions' where the labels are class indices", "'labels'"));
      request_.class_indices = ClassIndices{.ignored = ignored_};
      return keep_apart(labels_);
    }
    if (ignored_)
      throw ValueError("ignore_index must be None where the labels are not class indices");
    if (request_.wrt == Wrt::labels && loss().weighs_by_labels && !request_.divisor &&
        request_.descriptor.reduction_type == ReductionType::mean_by_weights) {
      throw ValueError(
          "divisor must be given where wrt is 'labels', as that of mean_by_weights depends on "
          "the labels of " +
          std::string(loss().name));
    }
    admit(&Request::labels, labels_, Covers::everything, operand_format(labels_));
  }

  void read_source_gradient() {
    if (!source_gradient_.is_taken()) return;
    const ArrayView view = source_gradient_.view();
    if (view.axes.empty()) {
      convert(source_gradient_.strided(), Format::float64, Underflow::to_zero,
              reinterpret_cast<std::byte*>(&request_.uniform_source_gradient));
      return keep_apart(source_gradient_);
    }
    const Covers covers = judge_source_gradient(request_.descriptor, view, *folding_);
    admit(&Request::source_gradients, source_gradient_, covers, operand_format(source_gradient_));
  }

  /// Once it is known how all axes fold.
  void place_inputs() {
    Shape full = folding_->shape();
    if (is_empty_) {
      // No image wants a loss of its own.
      if (!wants_loss() || request_.descriptor.reduces_across_batch()) full.images = 1;
      request_.predictions = make_operand("predictions", {full, format_}, &nothing_, false);
      if (!has_class_indices_) request_.labels = request_.predictions;
      return;
    }
    check_shape("predictions", {full, format_});
    for (std::size_t i = 0; i < input_count_; ++i) place(inputs_[i], full);
  }

  void place(const Input& input, const Shape& full) {
    const char* const name = input.array->view().name;
    const auto strides = folding_->fold(strides_of(input));
    const bool is_full =
        input.operand == nullptr || input.operand == &Request::labels ||
        (input.operand == &Request::source_gradients && input.covers == Covers::everything);
    Shape shape = full;
    if (!is_full) {
      shape = {strides[0] == 0 ? 1 : full.images, strides[1] == 0 ? 1 : full.height,
               strides[2] == 0 ? 1 : full.width, strides[3] == 0 ? 1 : full.channels};
      if (input.where == Input::packed) {
        shape.height = full.height;
        shape.width = full.width;
      }
      if (input.operand == &Request::source_gradients) shape.images = full.images;
    }
    const bool in_place = input.where == Input::in_place;
    Operand made =
        make_operand(name, {shape, input.format}, in_place ? input.array->data() : nullptr, false);
    if (input.where != Input::packed) made.strides = strides;
    if (input.operand == nullptr) {
      request_.predictions = made;
    } else {
      request_.*input.operand = made;
    }
    if (!in_place) keep_apart(*input.array);
  }

  /// Nothing is read before the whole call but for overlaps is known to be valid.
  void convert_operands(Request& request) {
    for (std::size_t i = 0; i < input_count_ && !is_empty_; ++i) {
      const Input& input = inputs_[i];
      if (input.where == Input::in_place) continue;
      Operand& operand = input.operand == nullptr ? request.predictions : *(request.*input.operand);
      operand.data =
          input.where == Input::packed
              ? pack(input)
              : input.array->converted(input.format, input.array->strided(), input.underflow);
    }
    if (!has_class_indices_ || is_empty_) return;
    ClassIndices& indices = *request.class_indices;
    indices.data = labels_.as_int64(folding_->channels());
    check_class_indices(labels_.view(), indices.data, folding_->channels(), indices.ignored);
  }

  /// Channels last, and expanded along the pixels where any of those are there.
  std::byte* pack(const Input& input) const {
    const auto own = input.array->strided();
    const auto order = folding_->packed_order();
    std::array<std::int64_t, Folding::kMostAxes> axes, strides;
    for (std::size_t k = 0; k < folding_->rank(); ++k) {
      const std::size_t i = order[k];
      const auto axis = folding_->own_axis(input.covers, own.axes.size(), i);
      const bool broadcasts = !axis || own.axes[*axis] == 1;
      const bool is_pixel = k > 0 && k + 1 < folding_->rank();
      axes[k] = broadcasts && !is_pixel ? 1 : folding_->axes()[i];
      strides[k] = broadcasts ? 0 : own.strides[*axis];
    }
    const std::size_t rank = folding_->rank();
    return input.array->converted(
        input.format,
        {own.data, own.type, own.swapped, {axes.data(), rank}, {strides.data(), rank}},
        input.underflow);
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

  void add_outputs(Request& request) {
    const Format wide = info(format_).computed_in, of_losses = info(format_).of_losses;
    const char* const name_of_loss = work_ == Work::loss ? "out" : "loss_out";
    const LossDescriptor& descriptor = request.descriptor;
    if (loss_.kind == Output::Kind::reduced) {
      request.loss_is_one_value = descriptor.reduce_across_batch;
      const std::int64_t images =
          request.loss_is_one_value ? 1 : request.predictions.shape().images;
      loss_.place_reduced(request.loss, name_of_loss, loss_axes(descriptor, *folding_), images,
                          of_losses);
    }
    const auto place = [&](Output& output, auto& operand, const char* name, Format format,
                           Format or_wide) {
      if (output.kind == Output::Kind::like_predictions)
        output.place_like_predictions(request, operand, name, *folding_, format, or_wide);
    };
    place(loss_, request.loss, name_of_loss, of_losses, of_losses);
    place(gradient_, request.gradient, "out", format_, wide);
    place(hessian_, request.hessian, "hessian_out", format_, wide);
  }

  py::object take_result() {
    switch (work_) {
      case Work::loss: return loss_.finish();
      case Work::loss_and_gradient: return py::make_tuple(loss_.finish(), gradient_.finish());
      case Work::gradient_and_hessian: return py::make_tuple(gradient_.finish(), hessian_.finish());
      default: return gradient_.finish();
    }
  }

  const FunctionArguments& arguments_;
  const Work work_;
  Request request_;
  std::int64_t axis_ = -1;
  std::optional<std::int64_t> ignored_;
  std::shared_ptr<Device> device_;   // null: of the functions
  Format format_ = Format::float32;  // of the predictions, as they are computed with
  bool is_empty_ = false;            // they have no elements
  HostArray predictions_, labels_, weights_, sample_weight_, class_weight_, source_gradient_;
  Output loss_, gradient_, hessian_;
  std::optional<Folding> folding_;
  bool has_class_indices_ = false;
  std::array<Input, 6> inputs_;
  std::size_t input_count_ = 0;
  std::array<std::int64_t, Folding::kMostAxes> strides_;  // of the input that is looked at
  std::byte nothing_{};                                   // where predictions without elements lie
};

}  // namespace

PyObject* call_function(const FunctionArguments& arguments, Work work) {
  return FunctionCall(arguments, work).run();
}

PyObject* call_reduction_divisor(const FunctionArguments& arguments) {
  return PyFloat_FromDouble(FunctionCall(arguments, Work::loss).run_divisor());
}

}  // namespace mpsnn_loss::bindings
