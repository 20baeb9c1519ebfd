#include "objects/kernel_properties.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "objects/enumerations.hpp"

namespace mpsnn_loss {
namespace {

using enum PropertyForm;
constexpr PropertyValue kZero{};
constexpr PropertyValue kOne{1};
constexpr PropertyValue kUnlimited{-1};  // ULONG_MAX as an unsigned word
constexpr PropertyValue kSizeSame{16};   // MPSNNPaddingMethodSizeSame, aligned centred

constexpr std::array kUnary{
    InheritedProperty{"offset", offset, false, kZero,
                      "source position that matches the origin of clip_rect"},
    InheritedProperty{"clip_rect", region, false, kNoClip,
                      "region of the destination that is written"},
    InheritedProperty{"destination_feature_channel_offset", count, false, kZero,
                      "channels skipped in the destination"},
    InheritedProperty{"source_feature_channel_offset", count, false, kZero,
                      "channels skipped in the source"},
    InheritedProperty{"source_feature_channel_max_count", count, false, kUnlimited,
                      "cap on the channels read"},
    InheritedProperty{"edge_mode", edge_mode, false, kZero, "what reads outside the source return"},
    InheritedProperty{"kernel_width", count, true, kOne, "width of the filter window"},
    InheritedProperty{"kernel_height", count, true, kOne, "height of the filter window"},
    InheritedProperty{"stride_in_pixels_x", count, true, kOne,
                      "horizontal step of the filter window"},
    InheritedProperty{"stride_in_pixels_y", count, true, kOne,
                      "vertical step of the filter window"},
    InheritedProperty{"dilation_rate_x", count, true, kOne,
                      "horizontal spacing in the filter window"},
    InheritedProperty{"dilation_rate_y", count, true, kOne,
                      "vertical spacing in the filter window"},
    InheritedProperty{"is_backwards", flag, true, kZero, "whether strides are read backwards"},
    InheritedProperty{"is_state_modified", flag, true, kZero,
                      "whether encoding changes the state passed in"},
    InheritedProperty{"padding", padding, false, kSizeSame,
                      "sizing policy of encodes that return images"},
    InheritedProperty{"destination_image_allocator", allocator, false, kZero,
                      "what makes the returned images"},
};

constexpr std::array kBinary{
    InheritedProperty{"primary_offset", offset, false, kZero,
                      "position in the primary source that matches the origin of clip_rect"},
    InheritedProperty{"secondary_offset", offset, false, kZero,
                      "position in the secondary source that matches the origin of clip_rect"},
    InheritedProperty{"clip_rect", region, false, kNoClip,
                      "region of the destination that is written"},
    InheritedProperty{"destination_feature_channel_offset", count, false, kZero,
                      "channels skipped in the destination"},
    InheritedProperty{"primary_source_feature_channel_offset", count, false, kZero,
                      "channels skipped in the primary source"},
    InheritedProperty{"secondary_source_feature_channel_offset", count, false, kZero,
                      "channels skipped in the secondary source"},
    InheritedProperty{"primary_source_feature_channel_max_count", count, false, kUnlimited,
                      "cap on the channels read from the primary source"},
    InheritedProperty{"secondary_source_feature_channel_max_count", count, false, kUnlimited,
                      "cap on the channels read from the secondary source"},
    InheritedProperty{"primary_edge_mode", edge_mode, false, kZero,
                      "what reads outside the primary source return"},
    InheritedProperty{"secondary_edge_mode", edge_mode, false, kZero,
                      "what reads outside the secondary source return"},
    InheritedProperty{"primary_kernel_width", count, true, kOne,
                      "width of the window on the primary source"},
    InheritedProperty{"primary_kernel_height", count, true, kOne,
                      "height of the window on the primary source"},
    InheritedProperty{"secondary_kernel_width", count, true, kOne,
                      "width of the window on the secondary source"},
    InheritedProperty{"secondary_kernel_height", count, true, kOne,
                      "height of the window on the secondary source"},
    InheritedProperty{"primary_stride_in_pixels_x", count, false, kOne,
                      "horizontal step on the primary source"},
    InheritedProperty{"primary_stride_in_pixels_y", count, false, kOne,
                      "vertical step on the primary source"},
    InheritedProperty{"secondary_stride_in_pixels_x", count, false, kOne,
                      "horizontal step on the secondary source"},
    InheritedProperty{"secondary_stride_in_pixels_y", count, false, kOne,
                      "vertical step on the secondary source"},
    InheritedProperty{"primary_dilation_rate_x", count, true, kOne,
                      "horizontal spacing on the primary source"},
    InheritedProperty{"primary_dilation_rate_y", count, true, kOne,
                      "vertical spacing on the primary source"},
    InheritedProperty{"secondary_dilation_rate_x", count, true, kOne,
                      "horizontal spacing on the secondary source"},
    InheritedProperty{"secondary_dilation_rate_y", count, true, kOne,
                      "vertical spacing on the secondary source"},
    InheritedProperty{"is_backwards", flag, true, kZero, "whether strides are read backwards"},
    InheritedProperty{"is_state_modified", flag, true, kZero,
                      "whether encoding changes the state passed in"},
    InheritedProperty{"padding", padding, false, kSizeSame,
                      "sizing policy of encodes that return images"},
    InheritedProperty{"destination_image_allocator", allocator, false, kZero,
                      "what makes the returned images"},
};

std::string triple(const std::int64_t* words) {
  return "(" + std::to_string(words[0]) + ", " + std::to_string(words[1]) + ", " +
         std::to_string(words[2]) + ")";
}

}  // namespace

const char* class_name(KernelKind kind) {
  switch (kind) {
    case KernelKind::forward_loss: return "MPSNNForwardLoss";
    case KernelKind::loss_gradient: return "MPSNNLossGradient";
    case KernelKind::initial_gradient: return "MPSNNInitialGradient";
  }
  return "";
}

std::span<const InheritedProperty> inherited_properties(KernelKind kind) {
  if (kind == KernelKind::loss_gradient) return kBinary;
  return kUnary;
}

std::string to_string(PropertyForm form, const PropertyValue& value) {
  switch (form) {
    case count:
    case edge_mode:
    case padding: return std::to_string(static_cast<std::uint64_t>(value[0]));
    case flag: return value[0] != 0 ? "True" : "False";
    case offset: return triple(value.data());
    case region:
      if (value == kNoClip) return "None";
      return "(" + triple(value.data()) + ", " + triple(value.data() + 3) + ")";
    case allocator: return value[0] == 0 ? "'temporary_image'" : "'image'";
  }
  return "";
}

void check_property_value(const InheritedProperty& property, const PropertyValue& value) {
  constexpr std::int64_t kAllocators = 2;
  const auto in = [](std::int64_t word, std::int64_t end) { return word >= 0 && word < end; };
  const auto raw = static_cast<std::uint64_t>(value[0]);
  const auto negative = [](std::int64_t word) { return word < 0; };
  const std::size_t used = property.form == region ? 6 : property.form == offset ? 3 : 1;
  bool valid = std::all_of(value.begin() + used, value.end(), [](auto word) { return word == 0; });
  if (property.read_only) valid = value == property.default_value;
  switch (property.form) {
    case count:
    case offset: break;
    case flag: valid = valid && in(value[0], 2); break;
    case region:
      valid = valid && (value == kNoClip || std::none_of(value.begin(), value.end(), negative));
      break;
    case edge_mode: valid = valid && kImageEdgeMode.has(raw); break;
    case padding: valid = valid && kPaddingMethod.has(raw); break;
    case allocator: valid = valid && in(value[0], kAllocators); break;
  }
  if (valid) return;
  throw ValueError(refusal(
      property.name,
      property.read_only ? "be its default, as it is read-only" : "have a value of its type",
      "word " + std::to_string(value[0])));
}

void check_options(std::uint64_t options) {
  if (kKernelOptions.has(options)) return;
  throw ValueError(refusal("options", std::string("combine members of ") + kKernelOptions.name,
                           std::to_string(options)));
}

}  // namespace mpsnn_loss
