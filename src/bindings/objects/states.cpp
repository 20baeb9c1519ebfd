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
  for (const auto& [name, field, check, help] : kLossParameters) define_value(state, name, field);
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
        std::string text = "<MPSState";
        for (const auto& [name, field, check, help] : kLossParameters)
          text += std::string(" ") + name + "=" + number_text((*s.values).*field);
        return text + ">";
      },
      kReprSignature);
}

}  // namespace mpsnn_loss::bindings
