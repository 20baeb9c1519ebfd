// Apple's enumerations as data: names, raw values and doc strings. The Python enumerations and
// every check of a raw value follow from these rows.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/loss_type.hpp"

namespace mpsnn_loss {

struct EnumerationMember {
  std::string_view name;
  std::uint64_t value;
};

struct Enumeration {
  const char* name;
  const char* meaning;
  bool is_bit_field;  // any combination of its members' bits is a value, not the members alone
  std::span<const EnumerationMember> members;

  constexpr bool has(std::uint64_t value) const {
    if (!is_bit_field)
      return std::ranges::any_of(members, [&](const auto& m) { return m.value == value; });
    std::uint64_t bits = 0;
    for (const EnumerationMember& member : members) bits |= member.value;
    return (value & ~bits) == 0;
  }
};

namespace enumeration_members {

template <class Row, std::size_t N>
constexpr std::array<EnumerationMember, N> from_rows(const std::array<Row, N>& rows) {
  std::array<EnumerationMember, N> members{};
  for (std::size_t i = 0; i < N; ++i)
    members[i] = {rows[i].name, static_cast<std::uint64_t>(rows[i].type)};
  return members;
}

inline constexpr auto kEveryLossType = from_rows(kLosses);
inline constexpr auto kLossTypes = std::span(kEveryLossType).first<kApplesLosses>();
inline constexpr auto kReductionTypes = from_rows(kReductions);

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

inline constexpr Enumeration kLossType{"MPSCNNLossType", "The losses, with Apple's raw values.",
                                       false, enumeration_members::kLossTypes};
inline constexpr Enumeration kReductionType{
    "MPSCNNReductionType",
    "What a forward loss does with its elements: leave them, or sum them per image and divide.",
    false, enumeration_members::kReductionTypes};
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
