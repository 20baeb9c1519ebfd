// Arrays of Python as host memory: the buffer protocol where it fits, NumPy's conversions where it
// does not.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "core/array_call.hpp"
#include "core/backend.hpp"
#include "core/image.hpp"
#include "core/loss_call.hpp"

namespace mpsnn_loss::bindings {

/// A C-contiguous array that is held while this object lives. It is taken in place: to move one
/// right after would wait for what was just written.
class HostArray {
 public:
  HostArray() = default;
  HostArray(HostArray&& other) noexcept;
  HostArray& operator=(HostArray&& other) noexcept;
  ~HostArray();

  std::span<const std::int64_t> axes() const;
  Format format() const { return format_; }
  void* data() const { return buffer_.buf; }
  bool writable() const { return buffer_.readonly == 0; }
  /// The object whose memory it is.
  PyObject* holder() const { return buffer_.obj; }
  ArrayView view(const char* name) const { return {name, axes(), format_, data(), writable()}; }
  MemoryRange memory() const {
    const auto begin = reinterpret_cast<std::uintptr_t>(data());
    return {begin, begin + static_cast<std::uintptr_t>(buffer_.len)};
  }
  /// Where the caller's own array lies that this one was converted or copied from.
  MemoryRange origin() const { return origin_; }
  void set_origin(const MemoryRange& origin) { origin_ = origin; }
  std::int64_t count() const;

  /// Tries the buffer protocol: true where `value` is a C-contiguous, aligned, native array of a
  /// storage format. Sets no Python error. Throws TypeError naming a masked array, whose mask would
  /// be lost.
  bool take(const char* name, PyObject* value);
  /// Predictions: float16, float32 and float64 as they are, integers and bools as float64; odd
  /// layouts copied.
  void take_predictions(const char* name, pybind11::handle value);
  /// Another operand, converted to what computes together with `predictions`. `expand_to`:
  /// broadcast copy.
  void take_operand(const char* name, pybind11::handle value, Format predictions,
                    std::span<const std::int64_t> expand_to = {});
  /// A destination: writable, aligned and C-contiguous; TypeError unless its dtype is `format`.
  void take_destination(const char* name, pybind11::handle value, Format format);
  /// Integers of any width as int64; false where `value` is no array of integers of that rank.
  /// bools: TypeError; what would not fit int64: ValueError, as it is no index in [0, classes).
  bool take_class_indices(const char* name, pybind11::handle value, std::size_t rank,
                          std::int64_t classes);

 private:
  bool take_int64(const char* name, PyObject* value);
  bool take_buffer(const char* name, PyObject* value, char& code);
  bool take_numpy(PyObject* value, char& code);
  void release();

  // Empty without obj. Of an exact numpy.ndarray: filled without its costly export.
  Py_buffer buffer_{};
  Format format_ = Format::float32;
  MemoryRange origin_;
};

/// numpy.asarray(value), or an error that names the argument.
pybind11::array to_numpy(const char* name, pybind11::handle value);
/// All bytes that a NumPy array may touch; none where `value` is no NumPy array.
MemoryRange memory_of(pybind11::handle value);

/// A fresh NumPy array.
pybind11::array make_array(std::span<const std::int64_t> axes, Format format);
/// numpy.float32(value) and the like.
pybind11::object make_scalar(double value, Format format);
pybind11::dtype to_dtype(Format format);

/// An image argument: an MPSImageBatch, a sequence of MPSImage, or a C-contiguous array of rank 4
/// or 2, which is wrapped without a copy where the device allows.
std::shared_ptr<ImageBatch> to_images(const char* name, pybind11::handle value,
                                      const std::shared_ptr<Device>& device);

/// NumPy's view of a batch in host memory, sharing it; read-only where the batch is.
pybind11::array view_of(const std::shared_ptr<ImageBatch>& batch);

}  // namespace mpsnn_loss::bindings
