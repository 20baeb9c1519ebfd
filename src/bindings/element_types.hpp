// What elements are, as NumPy, the buffer protocol and DLPack write it, and the dtypes of our own
// formats.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>

#include "core/shape.hpp"
#include "core/strided_array.hpp"

namespace mpsnn_loss::bindings {

// Each sets the type where it is one that can be read, and else returns false.
bool numpy_type_of(PyObject* dtype, ElementType& type);
/// `swapped`: in the other byte order.
bool buffer_type_of(const Py_buffer& buffer, ElementType& type, bool& swapped);
/// Of the code, bits and lanes of DLPack.
bool dlpack_type_of(int code, int bits, int lanes, ElementType& type);

/// TypeError for bfloat16 where ml_dtypes is not installed, whose type that is.
pybind11::dtype to_dtype(Format format);
/// The storage format that a dtype of NumPy is, in native byte order.
std::optional<Format> storage_format_of(pybind11::handle dtype);

/// `name` of a module, where that has been imported; null else. Runs no code of others.
PyObject* imported(const char* module, const char* name);

}  // namespace mpsnn_loss::bindings
