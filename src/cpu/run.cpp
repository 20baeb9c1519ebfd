// From a call to plans: scales and divisors, the cut into chunks, and the end of the reductions.
#include "cpu/run.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/divisor.hpp"
#include "core/element.hpp"
#include "cpu/instruction_sets.hpp"
#include "cpu/plan.hpp"
#include "cpu/thread_pool.hpp"

namespace mpsnn_loss::cpu {
namespace {

Source make_source(const Operand& operand, const Shape& full, std::int64_t first_image) {
  if (!operand) return {};
  const Shape& shape = operand.shape();
  Source source;
  source.format = operand.descriptor.format;
  source.data = operand.image_data(shape.images == 1 ? 0 : first_image);
  source.dense =
      shape == full || (shape.image_elements() == full.image_elements() && shape.images > 1);
  const std::int64_t axes[] = {shape.images, shape.height, shape.width, shape.channels};
  std::int64_t stride = 1;
  for (int i = 3; i >= 0; --i) {
    source.strides[i] = axes[i] == 1 ? 0 : stride;
    stride *= axes[i];
  }
  return source;
}

/// The cut into chunks: parts of large images, or groups of small ones.
void cut(Plan& plan, const LossCall& call) {
  const Shape& shape = plan.shape;
  const bool by_pixel = info(plan.loss_type).family == Family::channel;
  plan.unit_elements = by_pixel ? shape.channels : 1;
  plan.image_units = by_pixel ? shape.pixels() : shape.image_elements();
  const std::int64_t images = shape.images;
  if (shape.elements() == 0) return;
  const std::int64_t units = std::max<std::int64_t>(1, kChunkElements / plan.unit_elements);
  if (plan.image_units >= units || images == 1) {
    plan.chunks_per_image = (plan.image_units + units - 1) / units;
    plan.chunk_units = (plan.image_units + plan.chunks_per_image - 1) / plan.chunks_per_image;
    plan.chunks_per_image = (plan.image_units + plan.chunk_units - 1) / plan.chunk_units;
    plan.chunks = images * plan.chunks_per_image;
  } else {
    const std::int64_t group = units / plan.image_units;
    plan.chunk_units = group * plan.image_units;
    plan.chunks = (images + group - 1) / group;
    plan.sums_per_image =
        plan.want_loss && call->descriptor.reduces() && !call->descriptor.reduce_across_batch;
  }
}

/// One call in progress.
class Run {
 public:
  explicit Run(const LossCall& call)
      : call_(call),
        request_(*call),
        shape_(call->predictions.shape()),
        divisors_(divisors(call)) {}

  void execute() {
    const bool wants_loss = static_cast<bool>(request_.loss);
    if (wants_loss && request_.descriptor.reduces())
      losses_.assign(static_cast<std::size_t>(shape_.images), 0.0);
    if (is_one_piece()) {
      compute(0, shape_.images);
    } else {
      for (std::int64_t i = 0; i < shape_.images; ++i) compute(i, 1);
    }
    if (wants_loss && request_.descriptor.reduces()) write_losses();
  }

 private:
  /// All operands lie in one stretch of memory each, and one set of parameters holds for all
  /// images.
  bool is_one_piece() const {
    if (!call_.image_parameters().empty()) return false;
    const auto operands = {&request_.predictions,      &request_.labels, &request_.weights,
                           &request_.source_gradients, &request_.loss,   &request_.gradient};
    return std::all_of(operands.begin(), operands.end(),
                       [](const Operand* o) { return !*o || o->data != nullptr; });
  }

  const LossParameters& parameters(std::int64_t image) const {
    const auto& own = call_.image_parameters();
    return own.empty() ? request_.descriptor.parameters : own[static_cast<std::size_t>(image)];
  }

  double divisor(std::int64_t image) const {
    return divisors_.size() == 1 ? divisors_.front() : divisors_[static_cast<std::size_t>(image)];
  }

  /// g ω / D of an image; g only where it is one value per image.
  double gradient_scale(std::int64_t image) const {
    double g = request_.source_gradient;
    if (const Operand& gradients = request_.source_gradients;
        gradients && !is_per_element(gradients)) {
      const std::int64_t from = request_.descriptor.reduces_across_batch() ? 0 : image;
      g = read_value(gradients.image_data(from), gradients.descriptor.format);
    }
    const double d = divisor(image);
    return d == 0 ? 0 : g * parameters(image).weight / d;
  }

  bool is_per_element(const Operand& gradients) const {
    return !request_.descriptor.reduces() && gradients.shape() == shape_;
  }

  void compute(std::int64_t first, std::int64_t count) {
    Plan plan = make_plan(first, count);
    std::vector<double> scales;
    const bool one_scale = divisors_.size() == 1 && (!request_.source_gradients ||
                                                     request_.descriptor.reduces_across_batch() ||
                                                     is_per_element(request_.source_gradients));
    for (std::int64_t i = 0; i < (one_scale ? 1 : count); ++i)
      scales.push_back(count > 0 ? gradient_scale(first + i) : 0);
    plan.scale_per_image = scales.size() > 1;
    plan.gradient_scales = scales.data();
    // A scale outside float32's normal range would cost precision that the product may still have.
    const auto leaves_float = [](double scale) {
      return std::isfinite(scale) && scale != 0 && !std::isnormal(static_cast<float>(scale));
    };
    const bool promote = !plan.double_precision && plan.want_gradient &&
                         std::any_of(scales.begin(), scales.end(), leaves_float);
    if (!promote) return compute(plan, first);
    if (plan.want_loss) {
      Plan loss_plan = plan;
      loss_plan.want_gradient = loss_plan.by_labels = false;
      compute(loss_plan, first);
    }
    plan.want_loss = plan.sums_per_image = false;
    plan.loss = nullptr;
    plan.double_precision = true;
    compute(plan, first);
  }

  Plan make_plan(std::int64_t first, std::int64_t count) const {
    const LossDescriptor& descriptor = request_.descriptor;
    const LossParameters& p = parameters(first);
    Plan plan{};
    plan.loss_type = descriptor.loss_type;
    plan.want_loss = static_cast<bool>(request_.loss);
    plan.want_gradient = static_cast<bool>(request_.gradient);
    plan.by_labels = plan.want_gradient && request_.wrt == Wrt::labels;
    plan.double_precision = request_.predictions.descriptor.format == Format::float64;
    plan.shape = shape_;
    plan.shape.images = count;
    plan.predictions = make_source(request_.predictions, shape_, first);
    plan.labels = make_source(request_.labels, shape_, first);
    plan.weights = make_source(request_.weights, shape_, first);
    if (request_.source_gradients && is_per_element(request_.source_gradients)) {
      plan.source_gradients = make_source(request_.source_gradients, shape_, first);
    }
    if (const ClassIndices& classes = request_.class_indices) {
      plan.class_indices = classes.data + first * shape_.pixels();
      plan.has_ignored_class = classes.ignored.has_value();
      plan.ignored_class = classes.ignored.value_or(0);
    }
    const double s = info(plan.loss_type).smooths_labels ? p.label_smoothing : 0;
    const bool sigmoid = plan.loss_type == LossType::sigmoid_cross_entropy;
    plan.label_scale = 1 - s;
    plan.label_offset = s / (sigmoid ? 2.0 : static_cast<double>(descriptor.number_of_classes));
    plan.epsilon = p.epsilon;
    plan.delta = p.delta;
    plan.loss_scale = p.weight;
    if (plan.want_gradient) {
      plan.gradient = request_.gradient.image_data(first);
      plan.gradient_format = request_.gradient.descriptor.format;
    }
    if (plan.want_loss && !descriptor.reduces()) {
      plan.loss = request_.loss.image_data(first);
      plan.loss_format = request_.loss.descriptor.format;
    }
    cut(plan, call_);
    return plan;
  }

  /// Runs the chunks and adds the sums of their losses to the images they belong to.
  void compute(Plan& plan, std::int64_t first) {
    std::vector<double> sums;
    const bool sums_up = plan.want_loss && plan.loss == nullptr;
    if (sums_up)
      sums.assign(static_cast<std::size_t>(plan.sums_per_image ? plan.shape.images : plan.chunks),
                  0.0);
    plan.sums = sums.data();
    const auto run_chunk = active_instruction_set().run_chunk;
    parallel_for(plan.chunks, [&plan, run_chunk](std::int64_t chunk) { run_chunk(plan, chunk); });
    for (std::size_t i = 0; i < sums.size(); ++i) {
      std::int64_t image = static_cast<std::int64_t>(i);
      if (plan.chunks_per_image > 0) image /= plan.chunks_per_image;
      if (plan.chunks_per_image == 0 && !plan.sums_per_image) image = 0;  // across the batch
      losses_[static_cast<std::size_t>(first + image)] += sums[i];
    }
  }

  /// Ends the reduction: ω Σ / D per image, or across the batch into image 0 and zero into the
  /// others.
  void write_losses() {
    const bool across = request_.descriptor.reduces_across_batch();
    double total = 0;
    for (std::size_t i = 0; i < losses_.size(); ++i) {
      const auto image = static_cast<std::int64_t>(i);
      if (request_.descriptor.loss_type == LossType::cosine_distance)
        losses_[i] += sum_of_pixel_weights(call_, image);
      losses_[i] *= parameters(image).weight;
      total += losses_[i];
    }
    const auto divided = [&](double sum, std::int64_t image) {
      const double d = divisor(image);
      if (d != 0) return sum / d;
      return request_.descriptor.reduction_type == ReductionType::mean
                 ? std::numeric_limits<double>::quiet_NaN()
                 : 0.0;
    };
    const Format format = request_.loss.descriptor.format;
    for (std::int64_t i = 0; i < request_.loss.shape().images; ++i) {
      const double value = !across  ? divided(losses_[static_cast<std::size_t>(i)], i)
                           : i == 0 ? divided(total, 0)
                                    : 0.0;
      write_value(request_.loss.image_data(i), format, value);
    }
  }

  const LossCall& call_;
  const LossRequest& request_;
  const Shape shape_;
  const std::vector<double> divisors_;
  std::vector<double> losses_;  // weighted sums of each image, without ω
};

void fill_with_ones(const Operand& gradient) {
  for (std::int64_t i = 0; i < gradient.shape().images; ++i) {
    std::byte* const data = gradient.image_data(i);
    const Format format = gradient.descriptor.format;
    for (std::int64_t j = 0; j < gradient.shape().image_elements(); ++j)
      write_value(data + j * info(format).size, format, 1.0);
  }
}

}  // namespace

void run(const LossCall& call) {
  if (call->work == Work::initial_gradient) {
    fill_with_ones(call->gradient);
  } else {
    Run(call).execute();
  }
}

}  // namespace mpsnn_loss::cpu
