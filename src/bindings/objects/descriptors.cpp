// MPSCNNLossDescriptor and MPSImageDescriptor.
#include <pybind11/operators.h>
#include <pybind11/pybind11.h>

#include <cstdio>

#include "bindings/arguments.hpp"
#include "bindings/definitions.hpp"
#include "bindings/instances.hpp"
#include "bindings/module.hpp"
#include "bindings/objects/descriptors.hpp"
#include "core/error.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

std::string text_of(const LossDescriptor& d) {
  const LossParameters& p = d.parameters;
  return std::string("MPSCNNLossDescriptor(loss_type='") + info(d.loss_type).name +
         "', reduction_type='" + info(d.reduction_type).name +
         "', reduce_across_batch=" + (d.reduce_across_batch ? "True" : "False") +
         ", weight=" + number_text(p.weight) +
         ", label_smoothing=" + number_text(p.label_smoothing) +
         ", number_of_classes=" + std::to_string(d.number_of_classes) +
         ", epsilon=" + number_text(p.epsilon) + ", delta=" + number_text(p.delta) + ")";
}

LossDescriptor make_descriptor(py::handle loss_type, py::handle reduction_type,
                               py::handle reduce_across_batch, py::handle weight,
                               py::handle label_smoothing, py::handle number_of_classes,
                               py::handle epsilon, py::handle delta) {
  LossDescriptor d;
  d.loss_type = to_loss_type("loss_type", loss_type);
  d.reduction_type = to_reduction_type("reduction_type", reduction_type);
  d.reduce_across_batch = to_bool("reduce_across_batch", reduce_across_batch);
  d.number_of_classes = to_integer("number_of_classes", number_of_classes);
  d.parameters = {to_real("weight", weight), to_real("label_smoothing", label_smoothing),
                  to_real("epsilon", epsilon), to_real("delta", delta)};
  check_number_of_classes(d.number_of_classes);
  check(d.parameters);
  warn_of_one_class(d);
  return d;
}

py::tuple pickled(const LossDescriptor& d) {
  return py::make_tuple(static_cast<std::uint32_t>(d.loss_type),
                        static_cast<std::int32_t>(d.reduction_type), d.reduce_across_batch,
                        d.parameters.weight, d.parameters.label_smoothing, d.number_of_classes,
                        d.parameters.epsilon, d.parameters.delta);
}

LossDescriptor unpickled(py::tuple state) {
  if (state.size() != 8)
    throw ValueError(refusal("state", "have 8 entries", std::to_string(state.size())));
  LossDescriptor d;
  d.loss_type = to_loss_type("loss_type", state[0]);
  d.reduction_type = to_reduction_type("reduction_type", state[1]);
  d.reduce_across_batch = to_bool("reduce_across_batch", state[2]);
  d.parameters = {to_real("weight", state[3]), to_real("label_smoothing", state[4]),
                  to_real("epsilon", state[6]), to_real("delta", state[7])};
  d.number_of_classes = to_integer("number_of_classes", state[5]);
  check_number_of_classes(d.number_of_classes);
  check(d.parameters);
  return d;
}

void define_parameter(py::class_<LossDescriptor>& type, const LossParameterInfo& parameter) {
  const std::string doc =
      parameter.help + (". Default " + number_text(LossParameters().*parameter.field)) + ".";
  type.def_property(
      parameter.name,
      [&parameter](const LossDescriptor& d) { return d.parameters.*parameter.field; },
      [&parameter](LossDescriptor& d, py::object value) {
        d.parameters.*parameter.field = to_parameter(parameter, value);
      },
      doc.c_str());
}

std::int64_t size(const char* name, py::handle value) {
  const std::int64_t result = to_integer(name, value);
  if (result < 1) throw ValueError(refusal(name, "be at least 1", std::to_string(result)));
  return result;
}

void define_size(py::class_<ImageDescriptor>& type, const char* name, std::int64_t Shape::* field,
                 const char* doc) {
  type.def_property(
      name, [field](const ImageDescriptor& d) { return d.batch.shape.*field; },
      [name, field](ImageDescriptor& d, py::object value) {
        d.batch.shape.*field = size(name, value);
      },
      doc);
}

std::string text_of(const ImageDescriptor& d) {
  const Shape& s = d.batch.shape;
  return std::string("MPSImageDescriptor(channel_format='") + info(d.batch.format).name +
         "', width=" + std::to_string(s.width) + ", height=" + std::to_string(s.height) +
         ", feature_channels=" + std::to_string(s.channels) + ")";
}

void register_image_descriptor(py::module_& m) {
  py::class_<ImageDescriptor> type(
      m, "MPSImageDescriptor", py::custom_type_setup(set_apart),
      R"(MPSImageDescriptor(channel_format='float32', *, width, height, feature_channels)
--

Extents and storage format of an image.)");
  refuse_empty_instances(type);
  add_constructor<[](py::handle channel_format, py::handle width, py::handle height,
                     py::handle feature_channels) {
    const Shape shape{1, size("height", height), size("width", width),
                      size("feature_channels", feature_channels)};
    return ImageDescriptor{{shape, to_format("channel_format", channel_format)}};
  }>(type,
     "channel_format is \"float32\", \"float16\" or (CPU engine) \"float64\"; sizes are at least 1 "
     "(ValueError).");
  type.def_property(
      "channel_format", [](const ImageDescriptor& d) { return info(d.batch.format).name; },
      [](ImageDescriptor& d, py::object value) {
        d.batch.format = to_format("channel_format", value);
      },
      "Storage format of one element.");
  define_size(type, "width", &Shape::width, "Pixels per row.");
  define_size(type, "height", &Shape::height, "Rows.");
  define_size(type, "feature_channels", &Shape::channels, "Channels per pixel.");
  type.def(
      "__eq__",
      [](const ImageDescriptor& a, py::object b) {
        if (!is_instance<ImageDescriptor>(b)) return false;
        const auto& other = py::cast<const ImageDescriptor&>(b);
        return a.batch.shape == other.batch.shape && a.batch.format == other.batch.format;
      },
      kEqSignature);
  type.attr("__hash__") = py::none();
  type.def("__copy__", [](const ImageDescriptor& d) { return d; }, kCopySignature);
  type.def(
      "__deepcopy__", [](const ImageDescriptor& d, py::dict) { return d; }, kDeepcopySignature);
  type.def(
      "__reduce__",
      [](py::object self) {
        const auto& d = py::cast<const ImageDescriptor&>(self);
        const py::object make =
            py::module_::import("functools")
                .attr("partial")(py::type::of(self), py::arg("width") = d.batch.shape.width,
                                 py::arg("height") = d.batch.shape.height,
                                 py::arg("feature_channels") = d.batch.shape.channels);
        return py::make_tuple(make, py::make_tuple(info(d.batch.format).name));
      },
      "__reduce__(self)\n--\n\n");
  type.def("__repr__", [](const ImageDescriptor& d) { return text_of(d); }, kReprSignature);
}

}  // namespace

void warn_of_one_class(const LossDescriptor& descriptor) {
  if (!smooths_with_one_class(descriptor)) return;
  const std::string words =
      std::string("label_smoothing of ") + info(descriptor.loss_type).name +
      " adds all of it to every channel while number_of_classes is 1, Apple's default; set "
      "number_of_classes";
  const int raised = PyErr_WarnEx(PyExc_UserWarning, words.c_str(), 1);
  if (raised != 0) throw py::error_already_set();
}

void register_descriptors(py::module_& m) {
  py::class_<LossDescriptor> type(
      m, "MPSCNNLossDescriptor", py::custom_type_setup(set_apart),
      "MPSCNNLossDescriptor(loss_type, reduction_type=0, *, reduce_across_batch=False, weight=1.0, "
      "label_smoothing=0.0, number_of_classes=1, epsilon=1e-07, delta=1.0)\n--\n\n"
      "What a loss computes. Mutable; compares by value, therefore unhashable.");
  refuse_empty_instances(type);
  add_constructor<make_descriptor>(
      type,
      R"(Enumerations are taken as member, lower-case name or raw value; reduction_type defaults to NONE. Raises ValueError
naming the property that is out of range. Smoothing a softmax with one class gives a UserWarning.)");
  type.def_property(
      "loss_type", [](const LossDescriptor& d) { return member(d.loss_type); },
      [](LossDescriptor& d, py::object value) { d.loss_type = to_loss_type("loss_type", value); },
      "MPSCNNLossType.");
  type.def_property(
      "reduction_type", [](const LossDescriptor& d) { return member(d.reduction_type); },
      [](LossDescriptor& d, py::object value) {
        d.reduction_type = to_reduction_type("reduction_type", value);
      },
      "MPSCNNReductionType.");
  type.def_property(
      "reduce_across_batch", [](const LossDescriptor& d) { return d.reduce_across_batch; },
      [](LossDescriptor& d, py::object value) {
        d.reduce_across_batch = to_bool("reduce_across_batch", value);
      },
      "Whether a reduction runs over the batch too; the result is then in image 0 and the others "
      "are zero. Default False.");
  type.def_property(
      "number_of_classes", [](const LossDescriptor& d) { return d.number_of_classes; },
      [](LossDescriptor& d, py::object value) {
        const std::int64_t classes = to_integer("number_of_classes", value);
        check_number_of_classes(classes);
        d.number_of_classes = classes;
      },
      "K of the softmax label smoothing, at least 1. Default 1.");
  for (const LossParameterInfo& parameter : kLossParameters) define_parameter(type, parameter);
  type.def(
      "__eq__",
      [](const LossDescriptor& a, py::object b) {
        return is_instance<LossDescriptor>(b) && a == py::cast<const LossDescriptor&>(b);
      },
      kEqSignature);
  type.attr("__hash__") = py::none();
  type.def("__copy__", [](const LossDescriptor& d) { return d; }, kCopySignature);
  type.def("__deepcopy__", [](const LossDescriptor& d, py::dict) { return d; }, kDeepcopySignature);
  type.def("__repr__", [](const LossDescriptor& d) { return text_of(d); }, kReprSignature);
  type.def(py::pickle(&pickled, &unpickled));
  register_image_descriptor(m);
}

}  // namespace mpsnn_loss::bindings
