#include "core/loss_call.hpp"

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

/// Room for the extents of one call: on the stack where they are few, as for host arrays.
class Extents {
 public:
  static constexpr std::size_t kFew = 10;

  explicit Extents(std::size_t count) {
    if (count > kFew) many_.resize(count);
    data_ = many_.empty() ? few_.data() : many_.data();
  }
  void add(const char* name, const MemoryRange& range, bool written) {
    if (range.begin != range.end) data_[size_++] = {range, name, written};
  }
  std::span<Extent> all() const { return {data_, size_}; }

 private:
  std::array<Extent, kFew> few_;
  std::vector<Extent> many_;
  Extent* data_;
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
  const auto is_double = [](const Operand& o) { return o.descriptor.format == Format::float64; };
  if (is_double(operand) == is_double(predictions)) return;
  throw TypeError(refusal(operand.name,
                          is_double(predictions)
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
        weights.name, "have on each axis the extent of " + to_string(predictions.shape()) + " or 1",
        to_string(weights.shape())));
  }
  if (loss.one_weight_per_pixel && axes[3] != 1) {
    throw ValueError(refusal(weights.name, std::string("have a channel axis of 1 for ") + loss.name,
                             to_string(weights.shape())));
  }
}

void require_source_gradients_shape(const LossRequest& request) {
  const Operand& g = request.source_gradients;
  const Shape& full = request.predictions.shape();
  if (g.shape() == reduced(full)) return;
  const bool element_wise = !request.descriptor.reduces();
  if (element_wise && g.shape() == full) return;
  throw ValueError(refusal(
      g.name,
      "have shape " + to_string(reduced(full)) + (element_wise ? " or " + to_string(full) : ""),
      to_string(g.shape())));
}

void require_state_count(const char* name, std::size_t count, std::int64_t images) {
  if (count <= 1 || count == static_cast<std::size_t>(images)) return;
  throw ValueError(
      refusal(name, "hold 1 state or " + std::to_string(images), std::to_string(count)));
}

std::size_t extent_count(const Operand& operand) {
  if (!operand || !operand.has_memory()) return 0;
  if (operand.data != nullptr) return 1;
  return static_cast<std::size_t>(operand.shape().images);
}

void add_extents(const Operand& operand, bool written, Extents& extents) {
  if (!operand || !operand.has_memory()) return;
  if (operand.data != nullptr) {
    const auto begin = reinterpret_cast<std::uintptr_t>(operand.data);
    const auto end = begin + static_cast<std::uintptr_t>(operand.descriptor.bytes());
    return extents.add(operand.name, {begin, end}, written);
  }
  for (std::int64_t i = 0; i < operand.shape().images; ++i) {
    const auto [begin, end] = operand.images->extent(i);
    extents.add(operand.name, {begin, end}, written);
  }
}

[[noreturn]] void refuse_overlap(const Extent& first, const Extent& second) {
  const Extent& written = first.written ? first : second;
  const Extent& other = first.written ? second : first;
  throw ValueError(refusal(written.name, "share no memory with an input or another destination",
                           std::string("memory of ") + other.name));
}

void require_disjoint_outputs(const LossRequest& r) {
  const std::initializer_list<const Operand*> outputs = {&r.loss, &r.gradient};
  const std::initializer_list<const Operand*> inputs = {&r.predictions, &r.labels, &r.weights,
                                                        &r.source_gradients};
  std::size_t count = r.also_read.size();
  for (const Operand* operand : outputs) count += extent_count(*operand);
  for (const Operand* operand : inputs) count += extent_count(*operand);
  Extents extents(count);
  for (const Operand* operand : outputs) add_extents(*operand, true, extents);
  for (const Operand* operand : inputs) add_extents(*operand, false, extents);
  for (const auto& [name, range] : r.also_read) extents.add(name, range, false);
  if (count <= Extents::kFew) {  // are compared each with each sooner than sorted
    for (const Extent& output : extents.all()) {
      for (const Extent& other : extents.all()) {
        if (output.written && &other != &output && output.range.begin < other.range.end &&
            other.range.begin < output.range.end) {
          refuse_overlap(output, other);
        }
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

void require_outputs(const LossRequest& r) {
  const Shape& shape = r.predictions.shape();
  if (r.loss) {
    const Shape expected = r.loss_is_one_value ? Shape{} : loss_shape(r.descriptor, shape);
    require_output(r.loss, expected, loss_format(r.predictions.descriptor.format));
  }
  if (r.gradient) require_output(r.gradient, shape, gradient_format(r));
}

}  // namespace

std::byte* Operand::image_data(std::int64_t image) const {
  if (data != nullptr) return data + image * descriptor.image_bytes();
  return images != nullptr ? images->image_data(image) : nullptr;
}

Operand make_operand(const char* name, std::shared_ptr<ImageBatch> images) {
  Operand operand{name, images->descriptor(), images->data(), nullptr, images->writable(), true};
  operand.images = std::move(images);
  return operand;
}

Format gradient_format(const LossRequest& request) {
  const bool like_labels =
      request.wrt == Wrt::labels && request.labels && !request.gradient_like_predictions;
  return (like_labels ? request.labels : request.predictions).descriptor.format;
}

Shape loss_shape(const LossDescriptor& descriptor, const Shape& predictions) {
  return descriptor.reduces() ? reduced(predictions) : predictions;
}

void validate(const LossRequest& r) {
  const Shape& shape = r.predictions.shape();
  const LossInfo& loss = info(r.descriptor.loss_type);
  if (r.work != Work::initial_gradient) {
    check(r.descriptor);
    if (r.labels) {
      require_shape(r.labels, shape);
      require_same_precision(r.labels, r.predictions);
    }
    if (r.weights) {
      require_weights_shape(r.weights, r.predictions, loss);
      require_same_precision(r.weights, r.predictions);
    }
    if (r.source_gradients) {
      require_source_gradients_shape(r);
      require_same_precision(r.source_gradients, r.predictions);
    }
  }
  require_state_count("source_states", r.source_states.size(), shape.images);
  require_state_count("destination_states", r.destination_states.size(), shape.images);
  require_outputs(r);
  require_disjoint_outputs(r);
  for (const Operand* operand : {&r.predictions, &r.labels, &r.weights, &r.source_gradients}) {
    if (operand->images != nullptr) operand->images->check_usable();
  }
}

LossCall::LossCall(LossRequest&& request) : request_(std::move(request)) {
  validate(request_);
  resolve_source_states();
}

void LossCall::add_output(Operand output) {
  (request_.work == Work::loss ? request_.loss : request_.gradient) = std::move(output);
  require_outputs(request_);
}

void LossCall::resolve_source_states() {
  const auto& states = request_.source_states;
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (!states[i]->values) {
      throw StateError("source_states[" + std::to_string(i) +
                       "] must be filled by a forward encode first");
    }
  }
  if (states.empty()) return;
  request_.descriptor.parameters = *states.front()->values;
  const auto differs = [&](const auto& state) { return *state->values != *states.front()->values; };
  if (std::none_of(states.begin(), states.end(), differs)) return;
  for (const auto& state : states) image_parameters_.push_back(*state->values);
}

}  // namespace mpsnn_loss
