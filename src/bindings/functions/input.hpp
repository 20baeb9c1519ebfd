// An argument of a function on arrays that becomes an operand: read where it lies, or copied.
#pragma once

#include <cstddef>
#include <optional>

#include "bindings/arrays.hpp"
#include "core/array_call.hpp"
#include "core/computation.hpp"

namespace mpsnn_loss::bindings {

class Input {
 public:
  /// Takes part in `format`, as that operand of the request (null: its predictions). What can be
  /// read where it lies has a say in how axes fold.
  void admit(Folding& folding, std::optional<Operand> Request::* operand, HostArray& array,
             Covers covers, Format format, Underflow underflow);

  // To be called once all are admitted, where there are elements.
  /// Sets the operand of a request whose predictions are of shape `full`; without memory where it
  /// has yet to be copied.
  void place(Request& request, const Folding& folding, const Shape& full) const;
  /// Copies what cannot be read where it lies.
  void convert(Request& request, const Folding& folding) const;

 private:
  /// Those where it is read, in elements, for each axis of predictions.
  void set_strides(const Folding& folding, std::int64_t* strides) const;
  std::byte* packed(const Folding& folding) const;
  Operand& operand_of(Request& request) const;

  std::optional<Operand> Request::* operand_;
  HostArray* array_;
  Covers covers_;
  Format format_;
  Underflow underflow_;
  // As [N, H, W, C] in C order; in place, by strides; or copied, as it is or by strides.
  enum { dense, in_place, converted, packed_by_strides } where_;
};

/// No destination may lie in the caller's memory that is read without being an operand.
void keep_apart(Request& request, const HostArray& array);

}  // namespace mpsnn_loss::bindings
