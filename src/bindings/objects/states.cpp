// MPSState.
#include <pybind11/pybind11.h>

#include <string>

#include "bindings/arguments.hpp"
#include "bindings/definitions.hpp"
#include "bindings/instances.hpp"
#include "bindings/module.hpp"
#include "bindings/objects/kernel_handles.hpp"
#include "core/error.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

/// A read-only property of a state that a forward encode has filled.
void define_value(py::class_<State, std::shared_ptr<State>>& type, const char* name,
                  double LossParameters::* field) {
  type.def_property_readonly(
      name,
      [name, field](const State& state) {
        if (!state.values)
          throw StateError(std::string(name) +
                           " must be captured by a forward encode before it is read");
        return (*state.values).*field;
      },
      "Value at the time of the forward encode. RuntimeError before it.");
}

}  // namespace

void register_states(py::module_& m) {
  py::class_<State, std::shared_ptr<State>> state(m, "MPSState",
                                                  py::custom_type_setup(refuse_new_instances),
                                                  R"(MPSState()
--

What a forward encode hands to the gradient: four values at encode time.)");
  define_value(state, "weight", &LossParameters::weight);
  define_value(state, "label_smoothing", &LossParameters::label_smoothing);
  define_value(state, "epsilon", &LossParameters::epsilon);
  define_value(state, "delta", &LossParameters::delta);
  state.def_property_readonly(
      "device", [](const State& s) { return s.device; }, "The Device of the state.");
  state.def_property(
      "label", [](const State& s) { return to_optional(s.label); },
      [](State& s, py::object label) { s.label = to_label(label).value_or(""); },
      "A name for debugging, or None.");
  state.def(
      "__repr__",
      [](const State& s) {
        if (!s.values) return std::string("<MPSState, not filled>");
        const LossParameters& v = *s.values;
        return "<MPSState weight=" + number_text(v.weight) +
               " label_smoothing=" + number_text(v.label_smoothing) +
               " epsilon=" + number_text(v.epsilon) + " delta=" + number_text(v.delta) + ">";
      },
      kReprSignature);
}

}  // namespace mpsnn_loss::bindings
