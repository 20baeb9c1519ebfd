#include "bindings/functions/input.hpp"

namespace mpsnn_loss::bindings {

void Input::admit(Folding& folding, std::optional<Operand> Request::* operand, HostArray& array,
                  Covers covers, Format format, Underflow underflow) {
  operand_ = operand;
  array_ = &array;
  covers_ = covers;
  format_ = format;
  underflow_ = underflow;
  if (covers == Covers::everything && is_dense(array, format, folding)) {
    where_ = dense;
    return;
  }
  where_ = array.has_whole_strides(format) ? in_place : converted;
  if (folding.is_empty()) return;
  Folding::PerAxis strides;
  set_strides(folding, strides.data());
  if (!folding.admit({strides.data(), folding.rank()})) where_ = packed_by_strides;
}

void Input::set_strides(const Folding& folding, std::int64_t* strides) const {
  const auto own_axes = array_->axes();
  const auto own = array_->strided().strides;
  const std::int64_t size = info(format_).size;
  Folding::PerAxis contiguous;
  set_contiguous_strides(own_axes, 1, contiguous.data());
  for (std::size_t i = 0; i < folding.rank(); ++i) {
    const auto axis = folding.own_axis(covers_, own_axes.size(), i);
    const bool broadcasts = !axis || own_axes[*axis] == 1;
    strides[i] = broadcasts ? 0 : where_ == in_place ? own[*axis] / size : contiguous[*axis];
  }
}

Operand& Input::operand_of(Request& request) const {
  if (operand_ == nullptr) return request.predictions;
  auto& operand = request.*operand_;
  return operand ? *operand : operand.emplace();
}

void Input::place(Request& request, const Folding& folding, const Shape& full) const {
  const char* const name = array_->view().name;
  Operand& operand = operand_of(request);
  if (where_ == dense) {
    operand.place(name, {full, format_}, array_->data(), false);
    return;
  }
  Folding::PerAxis own;
  set_strides(folding, own.data());
  const Strides strides = folding.fold({own.data(), folding.rank()});
  const bool is_full = operand_ == nullptr || operand_ == &Request::labels ||
                       (operand_ == &Request::source_gradients && covers_ == Covers::everything);
  Shape shape = full;
  if (!is_full) {
    shape = {strides[0] == 0 ? 1 : full.images, strides[1] == 0 ? 1 : full.height,
             strides[2] == 0 ? 1 : full.width, strides[3] == 0 ? 1 : full.channels};
    if (where_ == packed_by_strides) {
      shape.height = full.height;
      shape.width = full.width;
    }
    if (operand_ == &Request::source_gradients) shape.images = full.images;
  }
  operand.place(name, {shape, format_}, where_ == in_place ? array_->data() : nullptr, false);
  if (where_ != packed_by_strides) operand.strides = strides;
  if (where_ != in_place) keep_apart(request, *array_);
}

void Input::convert(Request& request, const Folding& folding) const {
  if (where_ == dense || where_ == in_place) return;
  operand_of(request).data = where_ == converted
                                 ? array_->converted(format_, array_->strided(), underflow_)
                                 : packed(folding);
}

/// Channels last, and expanded along the pixels where any of those are there.
std::byte* Input::packed(const Folding& folding) const {
  const auto own = array_->strided();
  const auto order = folding.packed_order();
  const std::size_t rank = folding.rank();
  Folding::PerAxis axes, strides;
  for (std::size_t k = 0; k < rank; ++k) {
    const std::size_t i = order[k];
    const auto axis = folding.own_axis(covers_, own.axes.size(), i);
    const bool broadcasts = !axis || own.axes[*axis] == 1;
    const bool is_pixel = k > 0 && k + 1 < rank;
    axes[k] = broadcasts && !is_pixel ? 1 : folding.axes()[i];
    strides[k] = broadcasts ? 0 : own.strides[*axis];
  }
  const StridedArray seen{
      own.data, own.type, own.swapped, {axes.data(), rank}, {strides.data(), rank}};
  return array_->converted(format_, seen, underflow_);
}

void keep_apart(Request& request, const HostArray& array) {
  const StridedArray memory = array.strided();
  const MemoryRange range = memory_of(memory);
  if (range.begin != range.end)
    request.elsewhere.push_back({array.view().name, range, memory, false});
}

}  // namespace mpsnn_loss::bindings
