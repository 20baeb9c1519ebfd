// Enumerations of Apple's object model (core/enumeration.hpp has those of the losses).
#pragma once

#include <array>

#include "core/enumeration.hpp"

namespace mpsnn_loss {

namespace enumeration_members {

inline constexpr std::array<EnumerationMember, 6> kStatuses{{{"not_enqueued", 0},
                                                             {"enqueued", 1},
                                                             {"committed", 2},
                                                             {"scheduled", 3},
                                                             {"completed", 4},
                                                             {"error", 5}}};
inline constexpr std::array<EnumerationMember, 5> kEdgeModes{
    {{"zero", 0}, {"clamp", 1}, {"mirror", 2}, {"mirror_with_edge", 3}, {"constant", 4}}};
inline constexpr std::array<EnumerationMember, 2> kDataLayouts{
    {{"height_x_width_x_feature_channels", 0}, {"feature_channels_x_height_x_width", 1}}};
inline constexpr std::array<EnumerationMember, 6> kKernelOptions{{{"none", 0},
                                                                  {"skip_api_validation", 1},
                                                                  {"allow_reduced_precision", 2},
                                                                  {"disable_internal_tiling", 4},
                                                                  {"insert_debug_groups", 8},
                                                                  {"verbose", 16}}};
inline constexpr std::array<EnumerationMember, 13> kPaddingMethods{
    {{"align_centered", 0},
     {"align_top_left", 1},
     {"align_bottom_right", 2},
     {"add_remainder_to_top_right", 4},
     {"add_remainder_to_bottom_left", 8},
     {"add_remainder_to_bottom_right", 12},
     {"size_same", 16},
     {"size_full", 32},
     {"size_reserved", 48},
     {"size_mask", 0x7F0},
     {"custom_allow_for_node_fusion", 8192},
     {"custom", 16384},
     {"exclude_edges", 32768}}};

}  // namespace enumeration_members

inline constexpr Enumeration kCommandBufferStatus{
    "CommandBufferStatus", "How far a command buffer has come (MTLCommandBufferStatus).", false,
    enumeration_members::kStatuses};
inline constexpr Enumeration kImageEdgeMode{"MPSImageEdgeMode",
                                            "What reads outside an image return.", false,
                                            enumeration_members::kEdgeModes};
inline constexpr Enumeration kDataLayout{"MPSDataLayout",
                                         "The order of elements in the bytes of an image.", false,
                                         enumeration_members::kDataLayouts};
inline constexpr Enumeration kKernelOptions{"MPSKernelOptions",
                                            "Options of a kernel; the CPU engine ignores them.",
                                            true, enumeration_members::kKernelOptions};
inline constexpr Enumeration kPaddingMethod{"MPSNNPaddingMethod",
                                            "How a kernel sizes the images it returns (bit field).",
                                            true, enumeration_members::kPaddingMethods};

}  // namespace mpsnn_loss
