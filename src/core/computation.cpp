#include "core/computation.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <utility>

#include "core/error.hpp"

namespace mpsnn_loss {
namespace {

/// A stretch of storage that a call reads or writes.
struct Extent {
  MemoryRange range;
  const char* name;
  bool written;
};

/// The extents of one call, outputs first: on the stack where they are few, as for host arrays.
class Extents {
 public:
  void add(const char* name, const MemoryRange& range, bool written) {
    if (range.begin == range.end) return;
    const Extent extent{range, name, written};
    if (size_ == kFew) many_.assign(few_.begin(), few_.end());
    if (size_ < kFew) {
      few_[size_] = extent;
    } else {
      many_.push_back(extent);
    }
    ++size_;
  }
  void add(const Operand& operand, bool written) {
    if (operand.data != nullptr) {
      const auto begin = reinterpret_cast<std::uintptr_t>(operand.data);
      const auto end = begin + static_cast<std::uintptr_t>(operand.descriptor.bytes());
      add(operand.name, {begin, end}, written);
    } else if (operand.extents != nullptr) {
      for (std::int64_t i = 0; i < operand.shape().images; ++i)
        add(operand.name, operand.extents[i], written);
    }
  }
  bool are_few() const { return size_ <= kFew; }
  std::span<Extent> all() { return are_few() ? std::span(few_).first(size_) : std::span(many_); }

 private:
  static constexpr std::size_t kFew = 10;

  std::array<Extent, kFew> few_;
  std::vector<Extent> many_;  // all of them, once they are more
  std::size_t size_ = 0;
};

void require_shape(const Operand& operand, const Shape& expected) {
  if (operand.shape() == expected) return;
  throw ValueError(
      refusal(operand.name, "have shape " + to_string(expected), to_string(operand.shape())));
}

void require_format(const Operand& operand, Format expected) {
  if (operand.descriptor.format == expected) return;
  throw TypeError(refusal(operand.name, std::string("have dtype ") + info(expected).name,
                          info(operand.descriptor.format).name));
}

void require_same_precision(const Operand& operand, const Operand& predictions) {
  const bool wide = is_double(predictions.descriptor.format);
  if (is_double(operand.descriptor.format) == wide) return;
  throw TypeError(refusal(operand.name,
                          wide
                              ? "have dtype float64, as the predictions have"
                              : "have dtype float16 or float32, as the predictions are not float64",
                          info(operand.descriptor.format).name));
}

void require_weights_shape(const Operand& weights, const Operand& predictions,
                           const LossInfo& loss) {
  const auto axes = weights.shape().axes();
  const auto full = predictions.shape().axes();
  for (std::size_t i = 0; i < axes.size(); ++i) {
    if (axes[i] == full[i] || axes[i] == 1) continue;
    throw ValueError(refusal(
        weights.name, "have on each axis the size of " + to_string(predictions.shape()) + " or 1",
        to_string(weights.shape())));
  }
  check_weight_channels(weights.name, loss, axes);
}

void require_source_gradients_shape(const Request& request) {
  const Operand& g = *request.source_gradients;
  const Shape& full = request.predictions.shape();
  if (g.shape() == reduced(full)) return;
  const bool element_wise = !request.descriptor.reduces();
  if (element_wise && g.shape() == full) return;
  throw ValueError(refusal(
      g.name,
      "have shape " + to_string(reduced(full)) + (element_wise ? " or " + to_string(full) : ""),
      to_string(g.shape())));
}

[[noreturn]] void refuse_overlap(const Extent& first, const Extent& second) {
  const Extent& written = first.written ? first : second;
  const Extent& other = first.written ? second : first;
  throw ValueError(refusal(written.name, "share no memory with an input or another destination",
                           std::string("memory of ") + other.name));
}

void require_disjoint_outputs(const Request& r) {
  Extents extents;
  if (r.loss) extents.add(*r.loss, true);
  if (r.gradient) extents.add(*r.gradient, true);
  extents.add(r.predictions, false);
  if (r.labels) extents.add(*r.labels, false);
  if (r.weights) extents.add(*r.weights, false);
  if (r.source_gradients) extents.add(*r.source_gradients, false);
  for (const auto& [name, range] : r.also_read) extents.add(name, range, false);
  if (extents.are_few()) {  // are compared each with each sooner than sorted
    const std::span<Extent> all = extents.all();
    for (auto output = all.begin(); output != all.end() && output->written; ++output) {
      for (auto other = output + 1; other != all.end(); ++other) {
        if (output->range.begin < other->range.end && other->range.begin < output->range.end)
          refuse_overlap(*output, *other);
      }
    }
    return;
  }
  std::ranges::sort(extents.all(), {}, [](const Extent& e) { return e.range.begin; });
  // Inputs may overlap each other, so the furthest reach so far is kept for each kind.
  const Extent* furthest[2] = {nullptr, nullptr};
  for (const Extent& extent : extents.all()) {
    for (const Extent* before : furthest) {
      if (before != nullptr && before->range.end > extent.range.begin &&
          (before->written || extent.written)) {
        refuse_overlap(*before, extent);
      }
    }
    const Extent*& reach = furthest[extent.written ? 1 : 0];
    if (reach == nullptr || reach->range.end < extent.range.end) reach = &extent;
  }
}

void require_output(const Operand& output, const Shape& shape, Format format) {
  require_shape(output, shape);
  require_format(output, format);
  if (!output.writable) {
    throw ValueError(refusal(output.name, "be writable", "read-only memory"));
  }
}

}  // namespace

void check_weight_channels(const char* name, const LossInfo& loss,
                           std::span<const std::int64_t> axes) {
  if (!loss.one_weight_per_pixel || axes.empty() || axes.back() == 1) return;
  throw ValueError(refusal(name, std::string("have a channel axis of 1 for ") + loss.name,
                           to_string(axes.data(), axes.size())));
}

Format gradient_format(const Request& request) {
  const bool like_labels =
      request.wrt == Wrt::labels && request.labels && !request.gradient_like_predictions;
  return (like_labels ? *request.labels : request.predictions).descriptor.format;
}

BatchDescriptor result_descriptor(const Request& request) {
  const BatchDescriptor& predictions = request.predictions.descriptor;
  if (request.work == Work::loss)
    return {loss_shape(request.descriptor, predictions.shape), info(predictions.format).of_losses};
  return {predictions.shape, gradient_format(request)};
}

Shape loss_shape(const LossDescriptor& descriptor, const Shape& predictions) {
  return descriptor.reduces() ? reduced(predictions) : predictions;
}

void Computation::check_inputs(const Request& r) {
  if (r.work == Work::initial_gradient) return;
  check(r.descriptor);
  if (!r.labels && !r.class_indices) throw ValueError("labels must be given, got none");
  if (r.labels) {
    require_shape(*r.labels, r.predictions.shape());
    require_same_precision(*r.labels, r.predictions);
  }
  if (r.weights) {
    require_weights_shape(*r.weights, r.predictions, info(r.descriptor.loss_type));
    require_same_precision(*r.weights, r.predictions);
  }
  if (r.source_gradients) {
    require_source_gradients_shape(r);
    require_same_precision(*r.source_gradients, r.predictions);
  }
}

void Computation::check_outputs(const Request& r) {
  const Shape& shape = r.predictions.shape();
  if (r.loss) {
    const Shape expected = r.loss_is_one_value ? Shape{} : loss_shape(r.descriptor, shape);
    require_output(*r.loss, expected, info(r.predictions.descriptor.format).of_losses);
  }
  if (r.gradient) require_output(*r.gradient, shape, gradient_format(r));
  require_disjoint_outputs(r);
}

}  // namespace mpsnn_loss
