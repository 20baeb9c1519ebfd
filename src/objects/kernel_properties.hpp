// What the loss kernels inherit from MPSCNNKernel and MPSCNNBinaryKernel (MPSCNNKernel.h): names,
// forms and Apple's defaults, as data. The bindings, archives and encode checks all follow from
// these rows. The header states no default for some (dilation, is_backwards, is_state_modified,
// padding): what a fresh kernel object of the platform reports counts, and not the table.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "core/loss_descriptor.hpp"

namespace mpsnn_loss {

enum class KernelKind : std::uint32_t { forward_loss = 1, loss_gradient = 2, initial_gradient = 3 };

/// Apple's class names.
const char* class_name(KernelKind kind);

enum class PropertyForm {
  count,      // NSUInteger
  flag,       // BOOL
  offset,     // MPSOffset {x, y, z}, signed
  region,     // MTLRegion {origin, size}
  edge_mode,  // MPSImageEdgeMode
  padding,    // MPSNNPaddingMethod
  allocator,  // 0: MPSTemporaryImage.defaultAllocator, 1: MPSImage.defaultAllocator
};

/// Six words hold any form; the unused ones are zero.
using PropertyValue = std::array<std::int64_t, 6>;
/// Stands for MPSRectNoClip, "the whole image".
inline constexpr PropertyValue kNoClip{-1, -1, -1, -1, -1, -1};

struct InheritedProperty {
  const char* name;
  PropertyForm form;
  bool read_only;
  PropertyValue default_value;
  const char* meaning;
};

/// The rows of a kernel class, in the header's order. A new one goes to the end, as archives name
/// rows by their place.
std::span<const InheritedProperty> inherited_properties(KernelKind kind);

/// How a value reads in a message: "0", "(0, 0, 0)", "None", "((0, 0, 0), (1, 1, 1))".
std::string to_string(PropertyForm form, const PropertyValue& value);

/// Everything about a kernel that may change after it was made.
struct KernelProperties {
  LossParameters parameters;
  bool compute_label_gradients = false;
  std::uint64_t options = 0;  // MPSKernelOptions
  std::string label;
  bool has_label = false;
  /// The inherited rows that were set to something else than a fresh kernel has, by index.
  std::map<std::size_t, PropertyValue> moved;
};

/// Throws ValueError naming the property where the words are no value that it can have.
void check_property_value(const InheritedProperty& property, const PropertyValue& value);

/// Throws ValueError where a bit is no member of MPSKernelOptions.
void check_options(std::uint64_t options);

}  // namespace mpsnn_loss
