#include "bindings/functions/output.hpp"

#include <algorithm>
#include <utility>

namespace py = pybind11;

namespace mpsnn_loss::bindings {

void Output::take(const char* name, py::handle value) {
  array_.take_destination(name, value);
  result_ = py::reinterpret_borrow<py::object>(value);
}

void Output::admit(Folding& folding) {
  const auto axes = folding.axes();
  if (folding.is_empty()) return;
  Folding::PerAxis strides;
  if (array_.is_taken()) {
    const StridedArray given = array_.strided();
    const auto format = storage_format(given.type);
    if (!format) return;  // is refused later, as are other axes and strides that are not whole
    is_dense_ = is_dense(array_, *format, folding);
    if (is_dense_ || !array_.has_whole_strides(*format) || !same_axes(given.axes, axes)) return;
    for (std::size_t i = 0; i < axes.size(); ++i)
      strides[i] = given.strides[i] / info(*format).size;
  } else {
    is_dense_ = folding.is_channels_last();
    if (is_dense_) return;
    set_contiguous_strides(axes, 1, strides.data());
  }
  for (std::size_t i = 0; i < axes.size(); ++i) {
    if (axes[i] == 1) strides[i] = 0;
  }
  is_packed_ = !folding.admit({strides.data(), axes.size()});
}

void Output::place_like_predictions(Request& request, std::optional<Operand>& operand,
                                    const char* name, const Folding& folding, Format format,
                                    Format wide) {
  const auto axes = folding.axes();
  void* data = array_.data();
  if (array_.is_taken()) {
    format = array_.require_strided_destination(format, wide);
    require_axes(array_.view(), axes);
  } else {
    py::array fresh = make_array(axes, format);
    data = fresh.mutable_data();
    result_ = std::move(fresh);
  }
  operand.emplace(name, BatchDescriptor{request.predictions.shape(), format}, data, true);
  if (is_dense_ || folding.is_empty()) return;
  Folding::PerAxis strides;
  set_contiguous_strides(axes, info(format).size, strides.data());
  const StridedArray memory =
      array_.is_taken()
          ? array_.strided()
          : StridedArray{
                operand->data, element_type(format), false, axes, {strides.data(), axes.size()}};
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
    operand.emplace(name, descriptor, array_.data(), true);
    if (images > 1) operand->strides[0] = array_.strided().strides[0] / info(format).size;
  } else if (axes.empty()) {
    operand.emplace(name, descriptor, &scalar_, true);
    scalar_format_ = format;
  } else {
    py::array fresh = make_array(axes, format);
    operand.emplace(name, descriptor, fresh.mutable_data(), true);
    result_ = std::move(fresh);
  }
}

py::object Output::finish() {
  if (scratch_ != nullptr) copy_out(scratch_.get(), copied_to_);
  if (!result_) result_ = make_scalar(&scalar_, scalar_format_);
  return std::move(result_);
}

}  // namespace mpsnn_loss::bindings
