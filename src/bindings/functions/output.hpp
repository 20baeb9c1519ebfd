// A result of a function on arrays: a destination of the caller, or a fresh array or scalar.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <memory>
#include <span>

#include "bindings/arrays.hpp"
#include "core/array_call.hpp"
#include "core/computation.hpp"

namespace mpsnn_loss::bindings {

class Output {
 public:
  enum class Kind { reduced, like_predictions };

  explicit Output(Kind shape) : kind(shape) {}

  const Kind kind;

  /// A destination of the caller.
  void take(const char* name, pybind11::handle value);
  const HostArray& array() const { return array_; }

  /// Of those like predictions: whether the results can be written where they belong, which has a
  /// say in how axes fold.
  void admit(Folding& folding);

  // To be called once the inputs are valid. Each throws where a destination does not fit.
  /// The operand for results like predictions, of `shape` once folded, in `format` or `wide`.
  void place_like_predictions(Request& request, std::optional<Operand>& operand, const char* name,
                              const Folding& folding, Format format, Format wide);
  /// That for one value for each of so many images, or for all of them.
  void place_reduced(std::optional<Operand>& operand, const char* name,
                     std::span<const std::int64_t> axes, std::int64_t images, Format format);

  /// What the caller gets, once it is computed.
  pybind11::object finish();

 private:
  HostArray array_;
  pybind11::object result_;
  bool is_dense_ = false;                 // they are written as [N, H, W, C] in C order
  bool is_packed_ = false;                // results are made in `scratch_`, and copied at the end
  std::unique_ptr<std::byte[]> scratch_;  // channels last
  Folding::PerAxis axes_, strides_;       // then, in bytes, channels last
  StridedArray copied_to_;
  Format scalar_format_ = Format::float32;
  double scalar_ = 0;  // room for a value of any format
};

}  // namespace mpsnn_loss::bindings
