// Arrays of Python as host memory, in two steps. While they are taken, code of others may run; then
// check_unchanged looks at all of them again, and from there on their addresses hold.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "bindings/element_types.hpp"
#include "core/array_call.hpp"
#include "core/computation.hpp"
#include "core/shape.hpp"
#include "core/strided_array.hpp"

namespace mpsnn_loss::bindings {

/// What keeps the memory of an array, or what was converted from it. To be freed with the GIL.
struct HeldMemory {
  struct Release {
    void operator()(Py_buffer* buffer) const {
      PyBuffer_Release(buffer);
      delete buffer;
    }
  };

  /// The object whose memory it is.
  PyObject* holder() const {
    return exported != nullptr ? exported->obj : tensor ? tensor.ptr() : array.ptr();
  }

  pybind11::object array;                        // of NumPy, or
  std::unique_ptr<Py_buffer, Release> exported;  // a buffer of another object, or
  pybind11::object tensor;                       // what gives a tensor back when it is dropped
  std::unique_ptr<std::byte[]> converted;
};

/// An argument that is an array, held while this object lives.
class HostArray {
 public:
  HostArray() {}  // a default one would set all axes to zero where it is made as `HostArray()`
  HostArray(const HostArray&) = delete;
  HostArray& operator=(const HostArray&) = delete;

  // Taking. Each throws TypeError naming the argument where its elements are no real numbers.
  /// Whatever NumPy can make an array of.
  void take(const char* name, pybind11::handle value);
  /// An array of NumPy or another buffer; false for anything else.
  bool take_memory(const char* name, pybind11::handle value);
  /// The same for a destination, which nothing may be converted into.
  void take_destination(const char* name, pybind11::handle value);
  bool is_taken() const { return held_.holder() != nullptr; }
  /// Whether taking it may have run code of others: anything but an exact numpy.ndarray.
  bool may_have_run_code() const { return may_have_run_code_; }
  /// RuntimeError where the array has other memory, axes or elements than when it was taken.
  void check_unchanged() const;

  std::span<const std::int64_t> axes() const { return {look_.axes.data(), look_.rank}; }
  ElementType type() const { return look_.type; }
  std::byte* data() const { return look_.data; }
  bool writable() const { return look_.writable; }

  /// C-contiguous, aligned and in native byte order: the memory can be read as it is.
  bool is_in_place() const { return look_.in_place; }
  bool is_in_place(Format format) const {
    return look_.in_place && look_.type == element_type(format);
  }
  ArrayView view() const { return {name_, axes()}; }
  StridedArray strided() const {
    return {look_.data, look_.type, look_.swapped, axes(), {look_.strides.data(), look_.rank}};
  }
  /// Aligned and in native byte order, with strides of whole elements.
  bool has_whole_strides(Format format) const {
    return look_.whole_strides && look_.type == element_type(format);
  }
  /// For arrays that must be read or written as they are: the storage format. TypeError for other
  /// dtypes, ValueError for other layouts.
  Format require_in_place() const;
  /// A destination of exactly that dtype, writable.
  void require_destination(Format format) const;
  /// The same, of one of two dtypes, which may have gaps but no element twice. Returns which.
  Format require_strided_destination(Format format, Format wide) const;

  /// A C-contiguous copy in `format` of the elements as they are seen; lives as long as this.
  std::byte* converted(Format format, const StridedArray& seen, Underflow underflow);
  /// The integers as int64: in place, or a copy. ValueError for what int64 does not hold.
  const std::int64_t* as_int64(std::int64_t classes);
  /// For whoever keeps the memory from here on.
  HeldMemory hand_over() { return std::move(held_); }

 private:
  static constexpr std::size_t kMostAxes = Folding::kMostAxes;

  /// What there was to see.
  struct Look {
    std::byte* data;
    ElementType type;
    bool swapped, in_place, whole_strides, writable;
    std::size_t rank = 0;
    std::array<std::int64_t, kMostAxes> axes, strides;

    bool operator==(const Look& other) const;
  };

  /// DLPack; false where `value` has none, or its memory is not the host's.
  bool take_tensor(pybind11::handle value);
  /// What has no memory of its own.
  void take_converted(pybind11::handle value);
  /// That of anything but an exact numpy.ndarray.
  bool take_other_memory(pybind11::handle value);
  static bool look_at(PyObject* array, Look& look);
  bool look_at(const Py_buffer& buffer);
  void hold(pybind11::handle array);
  [[noreturn]] void refuse_type(pybind11::handle value) const;
  [[noreturn]] void refuse_strides(const char* expectation) const;
  [[noreturn]] void refuse_read_only() const;
  void require_native() const;

  const char* name_ = "";
  bool may_have_run_code_ = false;
  HeldMemory held_;
  Look look_;
};

/// Whether it can be read or written as [N, H, W, C] in C order, whatever else there is in a call.
inline bool is_dense(const HostArray& array, Format format, const Folding& predictions) {
  return predictions.is_channels_last() && array.is_in_place(format) &&
         same_axes(array.axes(), predictions.axes());
}

/// A fresh NumPy array. TypeError for bfloat16 where ml_dtypes is not installed.
pybind11::array make_array(std::span<const std::int64_t> axes, Format format);
/// A scalar of NumPy with the value that lies there.
pybind11::object make_scalar(const void* value, Format format);
/// To be called once all arguments are taken, with those that are there: RuntimeError where one has
/// changed since. Where no code of others ran, which is the usual case, a second look would only
/// take time.
inline void check_unchanged(std::initializer_list<const HostArray*> arrays) {
  bool may_have_run_code = false;
  for (const HostArray* array : arrays)
    may_have_run_code = may_have_run_code || (array != nullptr && array->may_have_run_code());
  for (const HostArray* array : arrays) {
    if (may_have_run_code && array != nullptr) array->check_unchanged();
  }
}
inline const HostArray* if_there(const std::optional<HostArray>& array) {
  return array ? &*array : nullptr;
}

/// The memory of the caller that a scalar is read from.
MemoryRange memory_of_scalar(pybind11::handle value);

}  // namespace mpsnn_loss::bindings
