#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "metal/objects/inherited_access.hpp"

namespace mpsnn_loss::metal {
namespace {

using Unary = MPSCNNKernel*;
using Binary = MPSCNNBinaryKernel*;

PropertyValue words(NSUInteger value) { return {static_cast<std::int64_t>(value)}; }
PropertyValue words(BOOL value) { return {value != NO ? 1 : 0}; }
PropertyValue words(MPSOffset o) { return {o.x, o.y, o.z}; }
PropertyValue words(MTLRegion r) {
  if (std::memcmp(&r, &MPSRectNoClip, sizeof r) == 0) return kNoClip;
  const auto word = [](NSUInteger value) { return static_cast<std::int64_t>(value); };
  return {word(r.origin.x),   word(r.origin.y),    word(r.origin.z),
          word(r.size.width), word(r.size.height), word(r.size.depth)};
}
PropertyValue words(id<MPSNNPadding> padding) {
  return words(static_cast<NSUInteger>([padding paddingMethod]));
}
PropertyValue words(id<MPSImageAllocator> allocator) {
  return {(id)allocator == (id)[MPSTemporaryImage defaultAllocator] ? 0 : 1};
}

NSUInteger unsigned_word(const PropertyValue& v) { return static_cast<NSUInteger>(v[0]); }
MPSOffset offset(const PropertyValue& v) {
  return MPSOffset{static_cast<NSInteger>(v[0]), static_cast<NSInteger>(v[1]),
                   static_cast<NSInteger>(v[2])};
}
MTLRegion region(const PropertyValue& v) {
  if (v[0] == -1) return MPSRectNoClip;
  const auto word = [&v](std::size_t i) { return static_cast<NSUInteger>(v[i]); };
  return MTLRegion{{word(0), word(1), word(2)}, {word(3), word(4), word(5)}};
}
id<MPSNNPadding> padding(const PropertyValue& v) {
  return [MPSNNDefaultPadding paddingWithMethod:static_cast<MPSNNPaddingMethod>(v[0])];
}
id<MPSImageAllocator> allocator(const PropertyValue& v) {
  return v[0] == 0 ? [MPSTemporaryImage defaultAllocator] : [MPSImage defaultAllocator];
}

/// How one row is read and, unless it is read-only, written.
template <class K>
struct RowAccess {
  const char* name;
  PropertyValue (*get)(K);
  void (*set)(K, const PropertyValue&);
};

// clang-format off
const RowAccess<Unary> kUnary[] = {
    {"offset", [](Unary k) { return words([k offset]); }, [](Unary k, const PropertyValue& v) { [k setOffset:offset(v)]; }},
    {"clip_rect", [](Unary k) { return words([k clipRect]); }, [](Unary k, const PropertyValue& v) { [k setClipRect:region(v)]; }},
    {"destination_feature_channel_offset", [](Unary k) { return words([k destinationFeatureChannelOffset]); }, [](Unary k, const PropertyValue& v) { [k setDestinationFeatureChannelOffset:unsigned_word(v)]; }},
    {"source_feature_channel_offset", [](Unary k) { return words([k sourceFeatureChannelOffset]); }, [](Unary k, const PropertyValue& v) { [k setSourceFeatureChannelOffset:unsigned_word(v)]; }},
    {"source_feature_channel_max_count", [](Unary k) { return words([k sourceFeatureChannelMaxCount]); }, [](Unary k, const PropertyValue& v) { [k setSourceFeatureChannelMaxCount:unsigned_word(v)]; }},
    {"edge_mode", [](Unary k) { return words(static_cast<NSUInteger>([k edgeMode])); }, [](Unary k, const PropertyValue& v) { [k setEdgeMode:static_cast<MPSImageEdgeMode>(v[0])]; }},
    {"kernel_width", [](Unary k) { return words([k kernelWidth]); }, nullptr},
    {"kernel_height", [](Unary k) { return words([k kernelHeight]); }, nullptr},
    {"stride_in_pixels_x", [](Unary k) { return words([k strideInPixelsX]); }, nullptr},
    {"stride_in_pixels_y", [](Unary k) { return words([k strideInPixelsY]); }, nullptr},
    {"dilation_rate_x", [](Unary k) { return words([k dilationRateX]); }, nullptr},
    {"dilation_rate_y", [](Unary k) { return words([k dilationRateY]); }, nullptr},
    {"is_backwards", [](Unary k) { return words([k isBackwards]); }, nullptr},
    {"is_state_modified", [](Unary k) { return words([k isStateModified]); }, nullptr},
    {"padding", [](Unary k) { return words([k padding]); }, [](Unary k, const PropertyValue& v) { [k setPadding:padding(v)]; }},
    {"destination_image_allocator", [](Unary k) { return words([k destinationImageAllocator]); }, [](Unary k, const PropertyValue& v) { [k setDestinationImageAllocator:allocator(v)]; }},
};

const RowAccess<Binary> kBinary[] = {
    {"primary_offset", [](Binary k) { return words([k primaryOffset]); }, [](Binary k, const PropertyValue& v) { [k setPrimaryOffset:offset(v)]; }},
    {"secondary_offset", [](Binary k) { return words([k secondaryOffset]); }, [](Binary k, const PropertyValue& v) { [k setSecondaryOffset:offset(v)]; }},
    {"clip_rect", [](Binary k) { return words([k clipRect]); }, [](Binary k, const PropertyValue& v) { [k setClipRect:region(v)]; }},
    {"destination_feature_channel_offset", [](Binary k) { return words([k destinationFeatureChannelOffset]); }, [](Binary k, const PropertyValue& v) { [k setDestinationFeatureChannelOffset:unsigned_word(v)]; }},
    {"primary_source_feature_channel_offset", [](Binary k) { return words([k primarySourceFeatureChannelOffset]); }, [](Binary k, const PropertyValue& v) { [k setPrimarySourceFeatureChannelOffset:unsigned_word(v)]; }},
    {"secondary_source_feature_channel_offset", [](Binary k) { return words([k secondarySourceFeatureChannelOffset]); }, [](Binary k, const PropertyValue& v) { [k setSecondarySourceFeatureChannelOffset:unsigned_word(v)]; }},
    {"primary_source_feature_channel_max_count", [](Binary k) { return words([k primarySourceFeatureChannelMaxCount]); }, [](Binary k, const PropertyValue& v) { [k setPrimarySourceFeatureChannelMaxCount:unsigned_word(v)]; }},
    {"secondary_source_feature_channel_max_count", [](Binary k) { return words([k secondarySourceFeatureChannelMaxCount]); }, [](Binary k, const PropertyValue& v) { [k setSecondarySourceFeatureChannelMaxCount:unsigned_word(v)]; }},
    {"primary_edge_mode", [](Binary k) { return words(static_cast<NSUInteger>([k primaryEdgeMode])); }, [](Binary k, const PropertyValue& v) { [k setPrimaryEdgeMode:static_cast<MPSImageEdgeMode>(v[0])]; }},
    {"secondary_edge_mode", [](Binary k) { return words(static_cast<NSUInteger>([k secondaryEdgeMode])); }, [](Binary k, const PropertyValue& v) { [k setSecondaryEdgeMode:static_cast<MPSImageEdgeMode>(v[0])]; }},
    {"primary_kernel_width", [](Binary k) { return words([k primaryKernelWidth]); }, nullptr},
    {"primary_kernel_height", [](Binary k) { return words([k primaryKernelHeight]); }, nullptr},
    {"secondary_kernel_width", [](Binary k) { return words([k secondaryKernelWidth]); }, nullptr},
    {"secondary_kernel_height", [](Binary k) { return words([k secondaryKernelHeight]); }, nullptr},
    {"primary_stride_in_pixels_x", [](Binary k) { return words([k primaryStrideInPixelsX]); }, [](Binary k, const PropertyValue& v) { [k setPrimaryStrideInPixelsX:unsigned_word(v)]; }},
    {"primary_stride_in_pixels_y", [](Binary k) { return words([k primaryStrideInPixelsY]); }, [](Binary k, const PropertyValue& v) { [k setPrimaryStrideInPixelsY:unsigned_word(v)]; }},
    {"secondary_stride_in_pixels_x", [](Binary k) { return words([k secondaryStrideInPixelsX]); }, [](Binary k, const PropertyValue& v) { [k setSecondaryStrideInPixelsX:unsigned_word(v)]; }},
    {"secondary_stride_in_pixels_y", [](Binary k) { return words([k secondaryStrideInPixelsY]); }, [](Binary k, const PropertyValue& v) { [k setSecondaryStrideInPixelsY:unsigned_word(v)]; }},
    {"primary_dilation_rate_x", [](Binary k) { return words([k primaryDilationRateX]); }, nullptr},
    {"primary_dilation_rate_y", [](Binary k) { return words([k primaryDilationRateY]); }, nullptr},
    {"secondary_dilation_rate_x", [](Binary k) { return words([k secondaryDilationRateX]); }, nullptr},
    {"secondary_dilation_rate_y", [](Binary k) { return words([k secondaryDilationRateY]); }, nullptr},
    {"is_backwards", [](Binary k) { return words([k isBackwards]); }, nullptr},
    {"is_state_modified", [](Binary k) { return words([k isStateModified]); }, nullptr},
    {"padding", [](Binary k) { return words([k padding]); }, [](Binary k, const PropertyValue& v) { [k setPadding:padding(v)]; }},
    {"destination_image_allocator", [](Binary k) { return words([k destinationImageAllocator]); }, [](Binary k, const PropertyValue& v) { [k setDestinationImageAllocator:allocator(v)]; }},
};
// clang-format on

/// The accessor of each row stands at the row's index in the table.
template <class K, std::size_t N>
bool are_in_order(const RowAccess<K> (&rows)[N], KernelKind kind) {
  return std::ranges::equal(rows, inherited_properties(kind), [](const auto& row, const auto& p) {
    return std::string_view(row.name) == p.name;
  });
}

template <class K, std::size_t N>
void set_rows(const RowAccess<K> (&rows)[N], MPSKernel* kernel, const InheritedValues& values) {
  for (std::size_t i = 0; i < N; ++i) {
    if (rows[i].set != nullptr && rows[i].get((K)kernel) != values[i])
      rows[i].set((K)kernel, values[i]);
  }
}

template <class K, std::size_t N>
InheritedValues get_rows(const RowAccess<K> (&rows)[N], MPSKernel* kernel) {
  InheritedValues values;
  for (const RowAccess<K>& row : rows) values.push_back(row.get((K)kernel));
  return values;
}

}  // namespace

void set_inherited(KernelKind kind, MPSKernel* kernel, const InheritedValues& values) {
  if (kind == KernelKind::loss_gradient) {
    set_rows(kBinary, kernel, values);
  } else {
    set_rows(kUnary, kernel, values);
  }
}

InheritedValues get_inherited(KernelKind kind, MPSKernel* kernel) {
  static const bool in_order = are_in_order(kUnary, KernelKind::forward_loss) &&
                               are_in_order(kBinary, KernelKind::loss_gradient);
  if (!in_order) throw std::logic_error("the accessors of inherited properties are out of order");
  return kind == KernelKind::loss_gradient ? get_rows(kBinary, kernel) : get_rows(kUnary, kernel);
}

}  // namespace mpsnn_loss::metal
