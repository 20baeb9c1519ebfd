#include "core/computation.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <utility>

#include "core/error.hpp"
#include "core/overlap.hpp"

namespace mpsnn_loss {
namespace {

/// Storage that a call reads or writes. Only arrays may have gaps.
struct Extent {
  MemoryRange range;
  const char* name;
  bool written;
  const Operand* operand;     // of an array, or
  const StridedArray* array;  // elsewhere; null: all of the range
};

/// Calls f with the array that an extent is.
template <class F>
auto with_array(const Extent& extent, F f) {
  if (extent.array != nullptr) return f(*extent.array);
  if (extent.operand == nullptr) {
    const auto bytes = static_cast<std::int64_t>(extent.range.end - extent.range.begin);
    constexpr std::int64_t kByte = 1;
    return f(StridedArray{reinterpret_cast<const std::byte*>(extent.range.begin),
                          ElementType::int8,
                          false,
                          {&bytes, 1},
                          {&kByte, 1}});
  }
  const BatchDescriptor& descriptor = extent.operand->descriptor;
  const auto axes = descriptor.shape.axes();
  Strides strides = extent.operand->strides;
  for (std::int64_t& stride : strides) stride *= info(descriptor.format).size;
  return f(
      StridedArray{extent.operand->data, element_type(descriptor.format), false, axes, strides});
}

MemoryRange memory_of(const Operand& operand) {
  const std::int64_t size = info(operand.descriptor.format).size;
  return mpsnn_loss::memory_of(operand.data, size, operand.shape().axes(), operand.strides, size);
}

bool overlaps(const Extent& a, const Extent& b) {
  if (a.range.begin >= b.range.end || b.range.begin >= a.range.end) return false;
  return with_array(a, [&](const StridedArray& first) {
    return with_array(
        b, [&](const StridedArray& second) { return overlap(first, second) != Overlap::none; });
  });
}

/// The extents of one call, outputs first: on the stack where they are few, as for arrays.
class Extents {
 public:
  void add(MemoryRange range, const char* name, bool written, const Operand* operand = nullptr,
           const StridedArray* array = nullptr) {
    if (range.begin == range.end) return;
    if (size_ == kFew) many_.assign(few_.begin(), few_.end());
    Extent& extent = size_ < kFew ? few_[size_] : many_.emplace_back();
    extent.range = range;
    extent.name = name;
    extent.written = written;
    extent.operand = operand;
    extent.array = array;
    ++size_;
  }
  void add(const Operand& operand, bool written) {
    if (operand.data != nullptr) {
      add(memory_of(operand), operand.name, written, &operand);
    } else if (operand.extents != nullptr) {
      for (std::int64_t i = 0; i < operand.shape().images; ++i)
        add(operand.extents[i], operand.name, written);
    }
  }
  bool are_few() const { return size_ <= kFew; }
  std::span<Extent> all() { return are_few() ? std::span(few_).first(size_) : std::span(many_); }

 private:
  static constexpr std::size_t kFew = 12;

  std::array<Extent, kFew> few_;
  std::vector<Extent> many_;  // all of them, once they are more
  std::size_t size_ = 0;
};

void require_shape(const Operand& operand, const Shape& expected) {
  if (operand.shape() == expected) return;
  throw_made([&] {
    return ValueError(
        refusal(operand.name, "have shape " + to_string(expected), to_string(operand.shape())));
  });
}

void require_format(const Operand& operand, Format expected) {
  if (operand.descriptor.format == expected) return;
  throw_made([&] {
    return TypeError(refusal(operand.name, std::string("have dtype ") + info(expected).name,
                             info(operand.descriptor.format).name));
  });
}

void require_same_precision(const Operand& operand, const Operand& predictions) {
  const bool wide = is_double(predictions.descriptor.format);
  if (is_double(operand.descriptor.format) == wide) return;
  const char* const expectation =
      wide ? "have dtype float64, as the predictions have"
           : "have dtype float16 or float32, as the predictions are not float64";
  throw_made([&] {
    return TypeError(refusal(operand.name, expectation, info(operand.descriptor.format).name));
  });
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
  check_weight_channels(weights.name, loss, axes.back(), axes);
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

/// Where results may take the place of predictions, each of which is read before that is written.
bool is_in_place(const Request& r) {
  const auto& out = r.work == Work::loss ? r.loss : r.gradient;
  const Operand& y = r.predictions;
  return r.by_functions && out && out->data != nullptr && out->data == y.data &&
         out->descriptor == y.descriptor && same_axes(out->strides, y.strides);
}

void require_disjoint_outputs(const Request& r) {
  Extents extents;
  const auto add = [&](const std::optional<Operand>& operand, bool written) {
    if (operand) extents.add(*operand, written);
  };
  const auto add_elsewhere = [&](bool written) {
    for (const Request::Elsewhere& e : r.elsewhere) {
      if (e.written == written)
        extents.add(e.range, e.name, written, nullptr, e.array ? &*e.array : nullptr);
    }
  };
  add(r.loss, true);
  add(r.gradient, true);
  add(r.hessian, true);
  add_elsewhere(true);
  if (!is_in_place(r)) extents.add(r.predictions, false);
  add(r.labels, false);
  r.for_each_weights([&](const Operand& weights) { extents.add(weights, false); });
  add(r.source_gradients, false);
  add_elsewhere(false);
  // Few are compared each with each sooner than sorted, and those with gaps are not in one order.
  if (extents.are_few() || r.by_functions) {
    const std::span<Extent> all = extents.all();
    for (auto output = all.begin(); output != all.end() && output->written; ++output) {
      for (auto other = output + 1; other != all.end(); ++other) {
        if (overlaps(*output, *other)) refuse_overlap(*output, *other);
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

/// `wide`: another format that is taken too.
void require_output(const Operand& output, const Shape& shape, Format format, Format wide) {
  require_shape(output, shape);
  if (output.descriptor.format != wide) require_format(output, format);
  if (!output.writable) {
    throw_made([&] { return ValueError(refusal(output.name, "be writable", "read-only memory")); });
  }
}

}  // namespace

void check_weight_channels(const char* name, const LossInfo& loss, std::int64_t channels,
                           std::span<const std::int64_t> axes) {
  if (!loss.one_weight_per_pixel || channels == 1) return;
  throw ValueError(refusal(name, std::string("have a channel axis of 1 for ") + loss.name,
                           to_string(axes.data(), axes.size())));
}

Format gradient_format(const Request& request) {
  const bool like_labels = request.wrt == Wrt::labels && request.labels;
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
  r.for_each_weights([&](const Operand& weights) {
    require_weights_shape(weights, r.predictions, info(r.descriptor.loss_type));
    require_same_precision(weights, r.predictions);
  });
  if (r.source_gradients) {
    require_source_gradients_shape(r);
    require_same_precision(*r.source_gradients, r.predictions);
  }
}

void Computation::check_outputs(const Request& r) {
  const Shape& shape = r.predictions.shape();
  if (r.loss) {
    const Shape expected = r.loss_is_one_value ? Shape{} : loss_shape(r.descriptor, shape);
    const Format format = info(r.predictions.descriptor.format).of_losses;
    require_output(*r.loss, expected, format, format);
  }
  const Format narrow = r.by_functions ? r.predictions.descriptor.format : gradient_format(r);
  const Format wide = r.by_functions ? info(narrow).computed_in : narrow;
  for (const auto* output : {&r.gradient, &r.hessian}) {
    if (*output) require_output(**output, shape, narrow, wide);
  }
  require_disjoint_outputs(r);
}

}  // namespace mpsnn_loss
