// Objects that are no arrays yet: NumPy makes arrays of them, and what it would drop on the way is
// refused. Code of others runs here, so nothing borrowed may be held across these calls.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace mpsnn_loss::bindings {

/// numpy.asanyarray(value), a subclass where the object gives one. Exceptions of the object's own
/// code pass unchanged; what NumPy says of plain lists is reworded to name the argument. TypeError
/// for what hides a mask or a unit, in the items of sequences too.
pybind11::array to_numpy(const char* name, pybind11::handle value);

/// Whether NumPy asks an object for an array, instead of for its items.
bool gives_an_array(pybind11::handle value);

/// Throws TypeError where an array would lose its mask (numpy.ma, or a subclass with `mask`), or a
/// quantity its unit (`unit` or `units`, unless that is None or a string).
void refuse_hidden(const char* name, pybind11::handle value);

}  // namespace mpsnn_loss::bindings
