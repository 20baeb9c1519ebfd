// THE table of the parameters of the functions on arrays: their names and defaults, which function
// takes which, and their help. Signatures, the parser and docstrings follow from it; the stub is
// compared with it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "bindings/functions/function_call.hpp"

namespace mpsnn_loss::bindings {

/// The functions, as bits.
enum Function : unsigned {
  kLoss = 1,
  kGradient = 2,
  kBoth = 4,
  kHessian = 8,
  kDivisor = 16,
  kWithGradient = kGradient | kBoth | kHessian,
  kComputing = kLoss | kWithGradient,
  kEvery = kComputing | kDivisor,
};

struct Parameter {
  const char* name;
  PyObject* FunctionArguments::* place;  // where a call keeps its argument
  const char* initial;                   // its default, as Python writes it; null: it has none
  unsigned taken_by;
  const char* help;
};

/// In the order of signatures. Those without a default come first and may be positional.
inline constexpr auto kParameters = std::to_array<Parameter>({
    {"predictions", &FunctionArguments::predictions, nullptr, kEvery, R"(
predictions : array [C], [N, C] or [N, ..., C] of float16, bfloat16, float32 or float64 (integers and bools
    become float64). bfloat16 is that of ml_dtypes or of a tensor of PyTorch.
    `axis` holds the feature channels, the first of the others (from rank 2 on) the batch, all else are pixels.)"},
    {"labels", &FunctionArguments::labels, nullptr, kEvery, R"(
labels : array of the shape of predictions; or integers of that shape without `axis`, class indices in [0, C),
    for softmax_cross_entropy and categorical_cross_entropy. Those of hinge and log are 0 or 1, not -1 or 1.
    Labels, weights and source gradients that are wider than what is computed with (float32, or float64 for
    float64 predictions) are rounded to it first: pass float64 predictions where that matters.)"},
    {"loss_type", &FunctionArguments::loss_type, nullptr, kEvery, R"(
loss_type : MPSCNNLossType, its lower-case name or its raw value.)"},
    {"reduction", &FunctionArguments::reduction, "'mean'", kEvery, R"(
reduction : MPSCNNReductionType, its lower-case name or its raw value; or 'mean_by_weights', which divides by
    the sum of the weights (softmax and categorical: of weights times labels).)"},
    {"weights", &FunctionArguments::weights, "None", kEvery, R"(
weights : array that broadcasts to predictions. An element of weight 0 contributes exactly 0; a weight that
    is not 0 never rounds to 0.)"},
    {"weight", &FunctionArguments::weight, "1.0", kComputing, R"(
weight : finite factor ω of everything.)"},
    {"label_smoothing", &FunctionArguments::label_smoothing, "0.0", kComputing, R"(
label_smoothing : s in [0, 1], of the softmax and sigmoid losses alone.)"},
    {"number_of_classes", &FunctionArguments::number_of_classes, "None", kComputing, R"(
number_of_classes : K of the softmax smoothing; None means the extent of `axis`.)"},
    {"epsilon", &FunctionArguments::epsilon, "1e-07", kComputing, R"(
epsilon : constant of the log loss, finite and at least 0.)"},
    {"delta", &FunctionArguments::delta, "1.0", kComputing, R"(
delta : constant of the Huber loss, finite and greater than 0.)"},
    {"reduce_across_batch", &FunctionArguments::reduce_across_batch, "True", kComputing, R"(
reduce_across_batch : reduce over the batch too, instead of per image.)"},
    {"ignore_index", &FunctionArguments::ignore_index, "None", kEvery, R"(
ignore_index : class index whose pixels weigh nothing.)"},
    {"source_gradient", &FunctionArguments::source_gradient, "None", kWithGradient, R"(
source_gradient : dL/d(loss), 1 where None: a scalar; or [N] where reduced per image; or an array like
    predictions for reduction 'none'. A loss that is returned is not multiplied by it.)"},
    {"wrt", &FunctionArguments::wrt, "'predictions'", kGradient | kBoth, R"(
wrt : 'predictions' or 'labels'.)"},
    {"out", &FunctionArguments::out, "None", kLoss, R"(
out : destination, aligned and writable, of exactly the shape and dtype of the result.)"},
    {"out", &FunctionArguments::out, "None", kWithGradient, R"(
out : destination, aligned and writable, of the shape of predictions and of their dtype (for 16 bits float32 too),
    with any strides that do not overlap themselves. It may be the memory of predictions itself, and shares none
    with anything else. The gradient of a mean underflows in float16: take a float32 out, or scale it by
    source_gradient.)"},
    {"loss_out", &FunctionArguments::loss_out, "None", kBoth, R"(
loss_out : destination of the loss, of exactly its shape and dtype.)"},
    {"device", &FunctionArguments::device, "None", kComputing, R"(
device : Device, its name, 'cpu' or 'metal'; None is the CPU engine, or what MPSNN_LOSS_DEVICE names.)"},
    {"axis", &FunctionArguments::axis, "-1", kEvery, R"(
axis : that of the channels; negative ones count from the end.)"},
    {"sample_weight", &FunctionArguments::sample_weight, "None", kEvery, R"(
sample_weight : array [N], or of the shape of predictions without `axis`. All three kinds of weights multiply
    one another.)"},
    {"class_weight", &FunctionArguments::class_weight, "None", kEvery, R"(
class_weight : array [C].)"},
    {"divisor", &FunctionArguments::divisor, "None", kComputing, R"(
divisor : finite number in place of the reduction's own divisor (of each image where reduce_across_batch is
    False); 0 gives 0. See reduction_divisor.)"},
    {"hessian_out", &FunctionArguments::hessian_out, "None", kHessian, R"(
hessian_out : destination of the diagonal, like out; it shares memory with nothing.)"},
});

/// Those that a function takes.
template <Function function>
inline constexpr auto kTaken = [] {
  constexpr auto takes = [](const Parameter& p) { return (p.taken_by & function) != 0; };
  std::array<Parameter, std::ranges::count_if(kParameters, takes)> taken{};
  std::ranges::copy_if(kParameters, taken.begin(), takes);
  return taken;
}();

}  // namespace mpsnn_loss::bindings
