#include "bindings/functions/output.hpp"

#include <algorithm>
#include <utility>

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

using Axes = std::array<std::int64_t, Folding::kMostAxes>;

}  // namespace

void Output::take(const char* name, py::handle value) {
  array_.take_destination(name, value);
  result_ = py::reinterpret_borrow<py::object>(value);
}

void Output::admit(Folding& folding) {
  if (is_empty(folding.axes())) return;
  Axes strides;
  set_contiguous_strides(folding.axes(), 1, strides.data());
  if (array_.is_taken()) {
    const StridedArray given = array_.strided();
    const auto format = storage_format(given.type);
    // What does not fit is refused later.
    if (!format || !array_.has_whole_strides(*format) ||
        !std::ranges::equal(given.axes, folding.axes())) {
      return;
    }
    for (std::size_t i = 0; i < given.axes.size(); ++i)
      strides[i] = given.strides[i] / info(*format).size;
  }
  for (std::size_t i = 0; i < folding.rank(); ++i) {
    if (folding.axes()[i] == 1) strides[i] = 0;
  }
  is_packed_ = !folding.admit({strides.data(), folding.rank()});
}

void Output::place_like_predictions(Request& request, std::optional<Operand>& operand,
                                    const char* name, const Folding& folding, Format format,
                                    Format wide) {
  const auto axes = folding.axes();
  StridedArray memory;
  Axes strides;
  if (array_.is_taken()) {
    format = array_.require_strided_destination(format, wide);
    require_axes(array_.view(), axes);
    memory = array_.strided();
  } else {
    py::array fresh = make_array(axes, format);
    set_contiguous_strides(axes, info(format).size, strides.data());
    memory = {static_cast<std::byte*>(fresh.mutable_data()),
              element_type(format),
              false,
              axes,
              {strides.data(), axes.size()}};
    result_ = std::move(fresh);
  }
  const Shape& shape = request.predictions.shape();
  operand = make_operand(name, {shape, format}, const_cast<std::byte*>(memory.data), true);
  if (is_empty(axes)) return;
  if (!is_packed_) {
    for (std::size_t i = 0; i < axes.size(); ++i)
      strides[i] = axes[i] == 1 ? 0 : memory.strides[i] / info(format).size;
    operand->strides = folding.fold({strides.data(), axes.size()});
    return;
  }
  if (array_.is_taken())
    request.elsewhere.push_back({name, memory_of(memory), array_.strided(), true});
  const auto order = folding.packed_order();
  for (std::size_t k = 0; k < axes.size(); ++k) {
    axes_[k] = axes[order[k]];
    strides_[k] = memory.strides[order[k]];
  }
  copied_to_ = {
      memory.data, memory.type, false, {axes_.data(), axes.size()}, {strides_.data(), axes.size()}};
  scratch_.reset(new std::byte[static_cast<std::size_t>(operand->descriptor.bytes())]);
  operand->data = scratch_.get();
}

void Output::place_reduced(std::optional<Operand>& operand, const char* name,
                           std::span<const std::int64_t> axes, std::int64_t images, Format format) {
  const BatchDescriptor descriptor{{images, 1, 1, 1}, format};
  if (array_.is_taken()) {
    array_.require_strided_destination(format, format);
    require_axes(array_.view(), axes);
    operand = make_operand(name, descriptor, array_.data(), true);
    if (images > 1) operand->strides[0] = array_.strided().strides[0] / info(format).size;
  } else if (axes.empty()) {
    operand = make_operand(name, descriptor, &scalar_, true);
    scalar_format_ = format;
  } else {
    py::array fresh = make_array(axes, format);
    operand = make_operand(name, descriptor, fresh.mutable_data(), true);
    result_ = std::move(fresh);
  }
}

py::object Output::finish() {
  if (scratch_ != nullptr) copy_out(scratch_.get(), copied_to_);
  if (!result_) result_ = make_scalar(&scalar_, scalar_format_);
  return std::move(result_);
}

}  // namespace mpsnn_loss::bindings
