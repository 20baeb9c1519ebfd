// What the loss kernels inherit from MPSCNNKernel and MPSCNNBinaryKernel (MPSCNNKernel.h): names,
// forms and Apple's defaults, as data. The bindings, archives and encode checks all follow from
// these rows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/loss_descriptor.hpp"

namespace mpsnn_loss {

enum class KernelKind : std::uint32_t { forward_loss = 1, loss_gradient = 2, initial_gradient = 3 };

/// Apple's class names.
const char* class_name(KernelKind kind);

enum class PropertyForm {
  count,      // NSUInteger
  flag,       // BOOL
  offset,     // MPSOffset {x, y, z}, signed
  region,     // MTLRegion {origin, size}; all -1 stands for MPSRectNoClip, "the whole image"
  edge_mode,  // MPSImageEdgeMode
  padding,    // MPSNNPaddingMethod
  allocator,  // 0: MPSTemporaryImage.defaultAllocator, 1: MPSImage.defaultAllocator
};

/// Six words hold any form; the unused ones are zero.
using PropertyValue = std::array<std::int64_t, 6>;

struct InheritedProperty {
  const char* name;
  PropertyForm form;
  bool read_only;
  PropertyValue default_value;
  const char* meaning;
};

/// The rows of a kernel class, in the header's order.
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
  std::vector<PropertyValue> inherited;  // parallel to the rows; empty while all are default
};

/// The current value of row `index`.
PropertyValue inherited_value(KernelKind kind, const KernelProperties& properties,
                              std::size_t index);
void set_inherited_value(KernelKind kind, KernelProperties& properties, std::size_t index,
                         const PropertyValue& value);

/// Throws ValueError naming the property where the words are no value that it can have.
void check_property_value(const InheritedProperty& property, const PropertyValue& value);

/// Throws ValueError where a bit is no member of MPSKernelOptions.
void check_options(std::uint64_t options);

/// Throws ValueError naming the first inherited property that is not at its default: the header
/// calls the result of encoding with one undefined.
void check_encodable(KernelKind kind, const KernelProperties& properties);

}  // namespace mpsnn_loss
