// Enumerations as data: names, raw values and doc strings, of Apple's and of our own. The Python
// enumerations and every check of a raw value follow from these rows.
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
inline constexpr auto kEveryReductionType = from_rows(kReductions);
inline constexpr auto kReductionTypes = std::span(kEveryReductionType).first<kApplesReductions>();

}  // namespace enumeration_members

inline constexpr Enumeration kLossType{"MPSCNNLossType", "The losses, with Apple's raw values.",
                                       false, enumeration_members::kLossTypes};
inline constexpr Enumeration kReductionType{
    "MPSCNNReductionType",
    "What a forward loss does with its elements: leave them, or sum them per image and divide.",
    false, enumeration_members::kReductionTypes};

}  // namespace mpsnn_loss
