// From a call to plans: scales and divisors, the cut into chunks, and the end of the reductions.
#include "cpu/run.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

#include "core/divisor.hpp"
#include "core/element.hpp"
#include "core/floating_point.hpp"
#include "core/per_image.hpp"
#include "cpu/caches.hpp"
#include "cpu/instruction_sets.hpp"
#include "cpu/plan.hpp"
#include "cpu/thread_pool.hpp"

namespace mpsnn_loss::cpu {
namespace {

/// In place: a copy right after the writes would wait for them.
template <class End>
void set_end(End& end, const Operand& operand, const Shape& shape, std::int64_t first_image) {
  end.format = operand.descriptor.format;
  end.data = operand.image_data(operand.shape().images == 1 ? 0 : first_image);
  end.strides = operand.strides;
  if (shape.images == 1) end.strides[0] = 0;
}

/// The inputs and outputs that a plan has, each to be changed alike.
template <class F>
void for_each_end(Plan& plan, F change) {
  const auto if_there = [&](auto& end) {
    if (end.data != nullptr) change(end);
  };
  if_there(plan.predictions);
  if_there(plan.labels);
  if_there(plan.source_gradients);
  for (std::int64_t i = 0; i < plan.weight_count; ++i) if_there(plan.weights[i]);
  if_there(plan.gradient);
  if_there(plan.hessian);
  if_there(plan.loss);
}

/// Pixels in one column are a line as well, and loops go along lines.
void lay_columns_down(Plan& plan) {
  if (plan.shape.width > 1 || plan.shape.height == 1) return;
  std::swap(plan.shape.height, plan.shape.width);
  for_each_end(plan, [](auto& end) { std::swap(end.strides[1], end.strides[2]); });
}

/// Says how all of them lie in the batch.
void classify(Plan& plan) {
  const Shape& shape = plan.shape;
  const Strides dense = contiguous_strides(shape);
  for_each_end(plan, [&](auto& end) { end.dense = same_axes(end.strides, dense); });
  if (plan.weight_count == 0) return;
  const Strides one = contiguous_strides({shape.images, shape.height, shape.width, 1});
  for (std::int64_t i = 0; i < plan.weight_count; ++i)
    plan.weights[i].one_per_pixel = same_axes(plan.weights[i].strides, one);
}

/// Where elements are independent, any order of the axes computes the same: that in which the
/// result lies closest, so that arrays whose channels come first need not be transposed.
void order_axes(Plan& plan) {
  const Sink& result = plan.want_gradient ? plan.gradient : plan.loss;
  if (result.dense && plan.predictions.dense) return;
  auto axes = plan.shape.axes();
  const auto stride = [&](std::size_t axis) {
    return axes[axis] == 1 ? std::numeric_limits<std::int64_t>::max()
                           : std::abs(result.strides[axis]);
  };
  std::array<std::size_t, 4> order{0, 1, 2, 3};
  // Each image keeps its scale.
  std::sort(order.begin() + (plan.scale_per_image ? 1 : 0), order.end(),
            [&](std::size_t a, std::size_t b) {
              return stride(a) != stride(b) ? stride(a) > stride(b) : a < b;
            });
  const auto reorder = [&](auto& values) {
    const auto before = values;
    for (std::size_t i = 0; i < order.size(); ++i) values[i] = before[order[i]];
  };
  reorder(axes);
  plan.shape = {axes[0], axes[1], axes[2], axes[3]};
  for_each_end(plan, [&](auto& end) { reorder(end.strides); });
  classify(plan);
}

/// The cut into chunks: parts of large images, or groups of small ones.
void cut(Plan& plan, const Computation& call) {
  const Shape& shape = plan.shape;
  const bool by_pixel = info(plan.loss_type).couples_channels;
  plan.unit_elements = by_pixel ? shape.channels : 1;
  plan.image_units = by_pixel ? shape.pixels() : shape.image_elements();
  const std::int64_t images = shape.images;
  if (shape.elements() == 0) return;
  const std::int64_t of_chunk = std::clamp(shape.elements() / kChunks, kLeastInChunk, kMostInChunk);
  std::int64_t units = std::max<std::int64_t>(1, of_chunk / plan.unit_elements);
  const std::int64_t multiple = by_pixel && units >= kRowsOfLine ? kRowsOfLine : std::int64_t{1};
  units = units / multiple * multiple;
  if (images == 1 && plan.image_units <= units) {  // small calls are spared the divisions
    plan.chunk_units = plan.image_units;
    plan.chunks = 1;
  } else if (plan.image_units >= units || images == 1) {
    plan.chunks_per_image = (plan.image_units + units - 1) / units;
    plan.chunk_units = (plan.image_units + plan.chunks_per_image - 1) / plan.chunks_per_image;
    plan.chunk_units = (plan.chunk_units + multiple - 1) / multiple * multiple;
    plan.chunks_per_image = (plan.image_units + plan.chunk_units - 1) / plan.chunk_units;
    plan.chunks = images * plan.chunks_per_image;
  } else {
    const std::int64_t group = units / plan.image_units;
    plan.chunk_units = group * plan.image_units;
    plan.chunks = (images + group - 1) / group;
    plan.sums_per_image =
        plan.want_loss && call->descriptor.reduces() && !call->descriptor.reduce_across_batch;
  }
  if (copies_predictions(plan))
    plan.copy_scratch = plan.chunk_units * plan.unit_elements * std::int64_t{sizeof(double)};
}

/// True where float32 holds the value, and products with it stay in range: results, and what
/// softmax divides by the sum of its scaled exponentials. 0 and what is not finite pass.
bool fits_float(double value) {
  constexpr double kSmallest = 0x1p-80, kLargest = 0x1p60;
  const double size = std::abs(value);
  return !std::isfinite(value) || size == 0 || (size >= kSmallest && size <= kLargest);
}

void fill_image(const Operand& output, std::int64_t image, double value) {
  const Shape& shape = output.shape();
  [[maybe_unused]] const auto& [of_images, of_rows, of_columns, of_channels] = output.strides;
  const Format format = output.descriptor.format;
  for (std::int64_t row = 0; row < shape.height; ++row) {
    for (std::int64_t column = 0; column < shape.width; ++column) {
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        const std::int64_t place = row * of_rows + column * of_columns + c * of_channels;
        write_value(output.image_data(image) + place * info(format).size, format, value);
      }
    }
  }
}

/// One call in progress.
class Run {
 public:
  explicit Run(const Computation& call)
      : call_(call),
        request_(*call),
        shape_(call->predictions.shape()),
        across_(request_.descriptor.reduces_across_batch()),
        reduces_loss_(request_.loss && request_.descriptor.reduces()),
        divisors_(divisors(call)),
        losses_(reduces_loss_ && !across_ ? shape_.images : 1, 0.0) {}

  void execute() {
    if (is_one_piece()) {
      compute(0, shape_.images);
    } else {
      for (std::int64_t i = 0; i < shape_.images; ++i) compute(i, 1);
    }
    if (reduces_loss_) write_losses();
    clear_undivided();
  }

 private:
  /// All operands lie in one stretch of memory each, and one set of parameters holds for all
  /// images.
  bool is_one_piece() const {
    if (!request_.image_parameters.empty()) return false;
    if (request_.predictions.data == nullptr) return false;
    for (const auto* operand :
         {&request_.labels, &request_.weights, &request_.sample_weights, &request_.class_weights,
          &request_.source_gradients, &request_.loss, &request_.gradient, &request_.hessian}) {
      if (*operand && (*operand)->data == nullptr) return false;
    }
    return true;
  }

  const LossParameters& parameters(std::int64_t image) const {
    const auto& own = request_.image_parameters;
    return own.empty() ? request_.descriptor.parameters : own[static_cast<std::size_t>(image)];
  }

  /// g ω / D of an image; g only where it is one value per image.
  double gradient_scale(std::int64_t image) const {
    double g = request_.uniform_source_gradient;
    if (const auto& gradients = request_.source_gradients; gradients && !is_per_element(*gradients))
      g = read_value(gradients->image_data(across_ ? 0 : image), gradients->descriptor.format);
    const double d = divisors_[image];
    return d == 0 ? 0 : g * parameters(image).weight / d;
  }

  bool is_per_element(const Operand& gradients) const {
    return !request_.descriptor.reduces() && gradients.shape() == shape_;
  }

  /// One scale of the gradient holds for all images.
  bool has_one_scale() const {
    const auto& gradients = request_.source_gradients;
    return divisors_.is_one() && (!gradients || across_ || is_per_element(*gradients));
  }

  /// The precision of a result, and so its bits, must not depend on what else is asked for: losses
  /// and gradients that need different ones are computed one after the other.
  void compute(std::int64_t first, std::int64_t count) {
    Plan plan = make_plan(first, count);
    PerImage scales(plan.scale_per_image ? count : 1, 0.0);
    bool scales_fit = true;
    if (plan.want_gradient && count > 0) {
      for (std::int64_t i = 0; i < (scales.is_one() ? 1 : count); ++i) {
        scales[i] = gradient_scale(first + i);
        scales_fit = scales_fit && fits_float(scales[i]);
      }
    }
    plan.scale_per_image = !scales.is_one();  // which one image is, too
    plan.gradient_scales = scales.begin();
    const bool wide = plan.double_precision, wide_gradient = wide || !scales_fit;
    const bool wide_loss = wide || (plan.loss.data != nullptr && !fits_float(plan.loss_scale));
    if (plan.want_loss && plan.want_gradient && wide_loss != wide_gradient) {
      Plan loss_plan = plan;
      loss_plan.want_gradient = loss_plan.want_hessian = loss_plan.by_labels = false;
      loss_plan.gradient = loss_plan.hessian = {};  // or scratch would be stored over predictions
      loss_plan.double_precision = wide_loss;
      run_plan(loss_plan, first);
      plan.want_loss = plan.sums_per_image = false;
      plan.loss = {};  // or what stands in the scratch would be stored over it
    }
    plan.double_precision = plan.want_gradient ? wide_gradient : wide_loss;
    run_plan(plan, first);
  }

  Plan make_plan(std::int64_t first, std::int64_t count) const {
    const LossDescriptor& descriptor = request_.descriptor;
    const LossParameters& p = parameters(first);
    Plan plan;
    plan.loss_type = descriptor.loss_type;
    plan.want_loss = request_.loss.has_value();
    plan.want_gradient = request_.gradient.has_value();
    plan.by_labels = plan.want_gradient && request_.wrt == Wrt::labels;
    plan.want_hessian = request_.hessian.has_value();
    plan.shape = shape_;
    plan.shape.images = count;
    set_end(plan.predictions, request_.predictions, plan.shape, first);
    if (request_.labels) set_end(plan.labels, *request_.labels, plan.shape, first);
    request_.for_each_weights([&](const Operand& weights) {
      set_end(plan.weights[plan.weight_count++], weights, plan.shape, first);
    });
    if (request_.source_gradients && is_per_element(*request_.source_gradients)) {
      set_end(plan.source_gradients, *request_.source_gradients, plan.shape, first);
    }
    if (const auto& classes = request_.class_indices; classes && shape_.elements() > 0) {
      plan.class_indices = classes->data + first * shape_.pixels();
      plan.has_ignored_class = classes->ignored.has_value();
      plan.ignored_class = classes->ignored.value_or(0);
    }
    const Smoothing smoothing = info(plan.loss_type).smoothing;
    const double s = smoothing == Smoothing::none ? 0 : p.label_smoothing;
    const bool by_half = smoothing == Smoothing::one_half;
    plan.label_scale = 1 - s;
    if (s != 0)
      plan.label_offset = s / (by_half ? 2.0 : static_cast<double>(descriptor.number_of_classes));
    plan.epsilon = p.epsilon;
    plan.delta = p.delta;
    plan.loss_scale = p.weight;
    plan.double_precision = is_double(request_.predictions.descriptor.format) ||
                            !fits_float(plan.label_offset) || !fits_float(p.epsilon) ||
                            !fits_float(p.delta);
    if (plan.want_gradient) set_sink(plan.gradient, *request_.gradient, plan, first);
    if (plan.want_hessian) set_sink(plan.hessian, *request_.hessian, plan, first);
    if (plan.want_loss && !reduces_loss_) set_sink(plan.loss, *request_.loss, plan, first);
    lay_columns_down(plan);
    classify(plan);
    const LossInfo& loss = info(plan.loss_type);
    const bool sums_up = plan.want_loss && reduces_loss_;
    plan.scale_per_image = plan.want_gradient && !has_one_scale();
    if (!loss.couples_channels && !sums_up && plan.class_indices == nullptr &&
        shape_.elements() > 0)
      order_axes(plan);
    cut(plan, call_);
    return plan;
  }

  static void set_sink(Sink& sink, const Operand& output, Plan& plan, std::int64_t first) {
    set_end(sink, output, plan.shape, first);
    const bool in_place = sink.data == plan.predictions.data;  // whose lines are at hand
    plan.results_in_place = plan.results_in_place || in_place;
    sink.overwrites = in_place;
    // What is read and written together must not fit the last-level cache.
    sink.streams = !in_place && 3 * output.descriptor.bytes() > last_level_cache();
  }

  /// Runs the chunks and adds the sums of their losses to the images they belong to.
  void run_plan(Plan& plan, std::int64_t first) {
    const bool sums_up = plan.want_loss && plan.loss.data == nullptr;
    PerImage sums(!sums_up ? 1 : plan.sums_per_image ? plan.shape.images : plan.chunks, 0.0);
    plan.sums = sums.begin();
    const KernelSet& kernels = kernels_for(plan);
    const auto run_chunk = kernels.run_chunk;
    if (plan.chunks > 0) {
      parallel_for(plan.chunks, kernels.scratch_bytes(plan) + plan.copy_scratch,
                   [&plan, run_chunk](std::int64_t chunk, std::byte* scratch) {
                     run_chunk(plan, chunk, scratch);
                   });
    }
    if (!sums_up) return;
    if (plan.sums_per_image) {
      for (std::int64_t i = 0; i < plan.shape.images; ++i) add_loss(first + i, sums[i]);
      return;
    }
    const std::int64_t step = plan.chunks_per_image == 0 ? plan.chunks : plan.chunks_per_image;
    for (std::int64_t chunk = 0; chunk < plan.chunks; chunk += step) {
      CompensatedSum sum;
      for (std::int64_t i = 0; i < step; ++i) sum.add(sums[chunk + i]);
      add_loss(first + chunk / step, sum.total());
    }
  }

  /// Where D is 0 nothing has a gradient, whatever the values.
  void clear_undivided() const {
    if (!request_.gradient || shape_.elements() == 0) return;
    if (divisors_.is_one() && divisors_[0] != 0) return;  // of thousands of images, perhaps
    for (std::int64_t i = 0; i < shape_.images; ++i) {
      if (divisors_[i] != 0) continue;
      for (const auto* output : {&request_.gradient, &request_.hessian}) {
        if (*output) fill_image(**output, i, 0);
      }
    }
  }

  /// Ends the reduction: ω Σ / D per image, or across the batch into image 0 and zero into the
  /// others.
  void write_losses() {
    if (const double c = info(request_.descriptor.loss_type).pixel_constant; c != 0)
      add_pixel_weights(c);
    const Format format = request_.loss->descriptor.format;
    for (std::int64_t i = 0; i < request_.loss->shape().images; ++i) {
      const double value = !across_ ? divided(losses_[i], i)
                           : i == 0 ? divided(total_.total(), 0)
                                    : 0;
      write_value(request_.loss->image_data(i), format, value);
    }
  }

  /// What is the same for each pixel, times its weight.
  void add_pixel_weights(double constant) {
    if (across_ && !request_.has_weights()) {
      const std::int64_t pixels = shape_.channels == 0 ? 0 : shape_.images * shape_.pixels();
      return total_.add(constant * static_cast<double>(pixels));
    }
    for (std::int64_t i = 0; i < shape_.images; ++i)
      add_loss(i, constant * sum_of_pixel_weights(call_, i));
  }

  void add_loss(std::int64_t image, double sum) {
    if (across_) {
      total_.add(sum);
    } else {
      losses_[image] += sum;
    }
  }

  double divided(double sum, std::int64_t image) const {
    const double d = divisors_[image];
    return d != 0 ? parameters(image).weight * sum / d : loss_of_nothing(request_);
  }

  const Computation& call_;
  const Request& request_;
  const Shape shape_;
  const bool across_;        // a reduction runs over the batch too
  const bool reduces_loss_;  // a loss is wanted, and reduced
  const PerImage divisors_;
  PerImage losses_;       // Σ v ℓ of each image
  CompensatedSum total_;  // or of all
};

}  // namespace

void run(const Computation& call) {
  in_default_floating_point([&] {
    if (call->work == Work::initial_gradient) {
      const Operand& gradient = *call->gradient;
      for (std::int64_t i = 0; i < gradient.shape().images; ++i) fill_image(gradient, i, 1);
    } else {
      Run(call).execute();
    }
  });
}

}  // namespace mpsnn_loss::cpu
