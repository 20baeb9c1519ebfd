#include "bindings/functions/function_call.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include "bindings/arguments.hpp"
#include "bindings/arrays.hpp"
#include "bindings/compute.hpp"
#include "bindings/functions/input.hpp"
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
    Engine* engine = nullptr;
    const Computation computation(
        [&](Request& request) {
          read_arguments(request);
          engine = &choose_engine();
        },
        [this](Request& request) {
          add_outputs(request);
          convert_operands(request);
        });
    const bool is_cpu = engine == &cpu_device()->engine();
    compute(computation, is_cpu, [&](Waiting waiting) { engine->compute(computation, waiting); });
    return take_result().release().ptr();
  }

  double run_divisor() {
    const Computation computation(
        [this](Request& request) {
          read_arguments(request);
          require_divisor("reduction");
        },
        [this](Request& request) { convert_operands(request); });
    PerImage found(0.0);
    compute(computation, true, [&](Waiting) {
      const DefaultFloatingPoint environment;
      found = divisors(computation);
    });
    return found[0];
  }

 private:
  bool wants_loss() const { return work_ == Work::loss || work_ == Work::loss_and_gradient; }

  void read_arguments(Request& request) {
    request_ = &request;
    take_arguments();
    check_unchanged({&predictions_, &labels_, if_there(weights_), if_there(sample_weight_),
                     if_there(class_weight_), if_there(source_gradient_), array_of(loss_),
                     array_of(gradient_), array_of(hessian_)});
    // From here on no code of others runs, and addresses hold.
    folding_.emplace(predictions_.view().name, axes(), axis_);
    if (!given(arguments_.number_of_classes))
      request_->descriptor.number_of_classes = std::max<std::int64_t>(1, folding_->channels());
    if (request_->divisor) require_divisor("divisor");
    admit(nullptr, predictions_, Covers::everything, format_);
    read_weights();
    read_labels();
    read_source_gradient();
    for (auto* output : {&gradient_, &hessian_, &loss_}) {
      if (*output && (*output)->kind == Output::Kind::like_predictions) (*output)->admit(*folding_);
    }
    place_inputs();
  }

  /// Everything that may call code of others, and what needs no second look.
  void take_arguments() {
    request_->work = work_;
    request_->by_functions = true;
    request_->descriptor = read_descriptor(arguments_);
    request_->wrt = read_wrt(arguments_.wrt);
    if (given(arguments_.ignore_index))
      ignored_ = to_integer("ignore_index", arguments_.ignore_index);
    if (arguments_.axis != nullptr) axis_ = to_integer("axis", arguments_.axis);
    if (given(arguments_.divisor)) request_->divisor = to_divisor(arguments_.divisor);
    if (given(arguments_.device)) device_ = to_named_device("device", arguments_.device);
    take_source_gradient();
    predictions_.take("predictions", arguments_.predictions);
    labels_.take("labels", arguments_.labels);
    const auto take = [](std::optional<HostArray>& array, const char* name, PyObject* value) {
      if (given(value)) array.emplace().take(name, value);
    };
    take(weights_, "weights", arguments_.weights);
    take(sample_weight_, "sample_weight", arguments_.sample_weight);
    take(class_weight_, "class_weight", arguments_.class_weight);
    using enum Output::Kind;
    if (wants_loss()) loss_.emplace(request_->descriptor.reduces() ? reduced : like_predictions);
    if (work_ != Work::loss) gradient_.emplace(like_predictions);
    if (work_ == Work::gradient_and_hessian) hessian_.emplace(like_predictions);
    if (given(arguments_.out))
      (work_ == Work::loss ? loss_ : gradient_)->take("out", arguments_.out);
    if (given(arguments_.loss_out)) loss_->take("loss_out", arguments_.loss_out);
    if (given(arguments_.hessian_out)) hessian_->take("hessian_out", arguments_.hessian_out);
    format_ = format_of_predictions(predictions_.type());
  }

  void take_source_gradient() {
    PyObject* const value = arguments_.source_gradient;
    if (!given(value)) return;
    if (is_scalar(value)) {
      request_->uniform_source_gradient = to_real("source_gradient", value);
      const MemoryRange memory = memory_of_scalar(value);
      if (memory.begin != memory.end) request_->elsewhere.push_back({"source_gradient", memory});
    } else {
      source_gradient_.emplace().take("source_gradient", value);
    }
  }

  static const HostArray* array_of(const std::optional<Output>& output) {
    return output ? &output->array() : nullptr;
  }
  std::span<const std::int64_t> axes() const { return predictions_.axes(); }
  const LossInfo& loss() const { return info(request_->descriptor.loss_type); }

  /// What it is that has no divisor: the reduction, or the argument in its place.
  void require_divisor(const char* argument) const {
    const ReductionInfo& reduction = info(request_->descriptor.reduction_type);
    if (reduction.divides) return;
    const std::string words =
        std::string("the reduction \"") + reduction.name + "\" has no divisor";
    throw ValueError(std::string(argument) == "divisor"
                         ? "divisor must be None, as " + words
                         : refusal("reduction", "divide", '"' + std::string(reduction.name) + '"'));
  }

  /// The format in which an operand takes part: its own, or what computes with the predictions.
  Format operand_format(const HostArray& array) const {
    const auto own = storage_format(array.type());
    if (own && array.has_whole_strides(*own) && is_double(*own) == is_double(format_)) return *own;
    return info(format_).computed_in;
  }

  void admit(std::optional<Operand> Request::* operand, HostArray& array, Covers covers,
             Format format, Underflow underflow = Underflow::to_zero) {
    inputs_[input_count_++].admit(*folding_, operand, array, covers, format, underflow);
  }

  void read_weights() {
    if (weights_) {
      require_broadcast(weights_->view(), *folding_, loss());
      admit(&Request::weights, *weights_, Covers::everything, operand_format(*weights_),
            Underflow::to_smallest);
    }
    if (sample_weight_) {
      const Covers covers = judge_sample_weight(sample_weight_->view(), *folding_);
      admit(&Request::sample_weights, *sample_weight_, covers, operand_format(*sample_weight_),
            Underflow::to_smallest);
    }
    if (class_weight_) {
      require_class_weight(class_weight_->view(), *folding_, loss());
      admit(&Request::class_weights, *class_weight_, Covers::channels,
            operand_format(*class_weight_), Underflow::to_smallest);
    }
  }

  void read_labels() {
    const LabelKind kind = judge_labels(labels_.view(), labels_.type(), *folding_, loss());
    has_class_indices_ = kind == LabelKind::class_indices;
    if (has_class_indices_) {
      if (request_->wrt == Wrt::labels)
        throw ValueError(
            refusal("wrt", "be 'predictions' where the labels are class indices", "'labels'"));
      request_->class_indices = ClassIndices{.ignored = ignored_};
      return keep_apart(*request_, labels_);
    }
    if (ignored_)
      throw ValueError("ignore_index must be None where the labels are not class indices");
    if (request_->wrt == Wrt::labels && loss().weighs_by_labels && !request_->divisor &&
        request_->descriptor.reduction_type == ReductionType::mean_by_weights) {
      throw ValueError(
          "divisor must be given where wrt is 'labels', as that of mean_by_weights depends on "
          "the labels of " +
          std::string(loss().name));
    }
    admit(&Request::labels, labels_, Covers::everything, operand_format(labels_));
  }

  void read_source_gradient() {
    if (!source_gradient_) return;
    const ArrayView view = source_gradient_->view();
    if (view.axes.empty()) {
      convert(source_gradient_->strided(), Format::float64, Underflow::to_zero,
              reinterpret_cast<std::byte*>(&request_->uniform_source_gradient));
      return keep_apart(*request_, *source_gradient_);
    }
    const Covers covers = judge_source_gradient(request_->descriptor, view, *folding_);
    admit(&Request::source_gradients, *source_gradient_, covers, operand_format(*source_gradient_));
  }

  /// Once it is known how all axes fold.
  void place_inputs() {
    Shape full = folding_->shape();
    if (folding_->is_empty()) {
      // No image wants a loss of its own.
      if (!wants_loss() || request_->descriptor.reduces_across_batch()) full.images = 1;
      request_->predictions.place("predictions", {full, format_}, &nothing_, false);
      if (!has_class_indices_) request_->labels = request_->predictions;
      return;
    }
    check_shape("predictions", {full, format_});
    for (std::size_t i = 0; i < input_count_; ++i) inputs_[i].place(*request_, *folding_, full);
  }

  /// Nothing is read before the whole call but for overlaps is known to be valid.
  void convert_operands(Request& request) {
    if (folding_->is_empty()) return;
    for (std::size_t i = 0; i < input_count_; ++i) inputs_[i].convert(request, *folding_);
    if (!has_class_indices_) return;
    ClassIndices& indices = *request.class_indices;
    indices.data = labels_.as_int64(folding_->channels());
    check_class_indices(labels_.view(), indices.data, folding_->channels(), indices.ignored);
  }

  Engine& choose_engine() const {
    const auto& device = device_ != nullptr ? device_ : device_of_functions();
    Engine& engine = device->engine();
    if (device == cpu_device()) return engine;  // does everything
    const Need need{.loss = request_->descriptor,
                    .format = format_,
                    .shape = request_->predictions.shape(),
                    .work = work_};
    const std::string why = engine.supports(need);
    if (!why.empty()) throw ValueError(refusal("device", "support the call", why));
    return engine;
  }

  void add_outputs(Request& request) {
    const Format wide = info(format_).computed_in, of_losses = info(format_).of_losses;
    const char* const name_of_loss = work_ == Work::loss ? "out" : "loss_out";
    const LossDescriptor& descriptor = request.descriptor;
    if (loss_ && loss_->kind == Output::Kind::reduced) {
      request.loss_is_one_value = descriptor.reduce_across_batch;
      const std::int64_t images =
          request.loss_is_one_value ? 1 : request.predictions.shape().images;
      loss_->place_reduced(request.loss, name_of_loss, loss_axes(descriptor, *folding_), images,
                           of_losses);
    }
    const auto place = [&](std::optional<Output>& output, auto& operand, const char* name,
                           Format format, Format or_wide) {
      if (output && output->kind == Output::Kind::like_predictions)
        output->place_like_predictions(request, operand, name, *folding_, format, or_wide);
    };
    place(loss_, request.loss, name_of_loss, of_losses, of_losses);
    place(gradient_, request.gradient, "out", format_, wide);
    place(hessian_, request.hessian, "hessian_out", format_, wide);
  }

  py::object take_result() {
    switch (work_) {
      case Work::loss: return loss_->finish();
      case Work::loss_and_gradient: return py::make_tuple(loss_->finish(), gradient_->finish());
      case Work::gradient_and_hessian:
        return py::make_tuple(gradient_->finish(), hessian_->finish());
      default: return gradient_->finish();
    }
  }

  const FunctionArguments& arguments_;
  const Work work_;
  Request* request_ = nullptr;  // of the computation
  std::int64_t axis_ = -1;
  std::optional<std::int64_t> ignored_;
  std::shared_ptr<Device> device_;   // null: of the functions
  Format format_ = Format::float32;  // of the predictions, as they are computed with
  HostArray predictions_, labels_;
  std::optional<HostArray> weights_, sample_weight_, class_weight_, source_gradient_;
  std::optional<Output> loss_, gradient_, hessian_;
  std::optional<Folding> folding_;
  bool has_class_indices_ = false;
  std::array<Input, 6> inputs_;
  std::size_t input_count_ = 0;
  std::byte nothing_{};  // where predictions without elements lie
};

}  // namespace

PyObject* call_function(const FunctionArguments& arguments, Work work) {
  return FunctionCall(arguments, work).run();
}

PyObject* call_reduction_divisor(const FunctionArguments& arguments) {
  return PyFloat_FromDouble(FunctionCall(arguments, Work::loss).run_divisor());
}

}  // namespace mpsnn_loss::bindings
