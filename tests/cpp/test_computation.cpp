// What a Computation accepts and refuses.
#include "core/computation.hpp"

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr Shape kShape{3, 2, 4, 5};
constexpr Format kAllFormats[] = {Format::float16, Format::float32, Format::float64,
                                  Format::bfloat16};
static_assert(std::size(kAllFormats) == kFormats.size());
constexpr Work kAllWork[] = {Work::loss, Work::gradient, Work::loss_and_gradient,
                             Work::initial_gradient, Work::gradient_and_hessian};

/// What each element weighs is the product of these.
constexpr std::pair<const char*, std::optional<Operand> Request::*> kWeights[] = {
    {"weights", &Request::weights},
    {"sample_weight", &Request::sample_weights},
    {"class_weight", &Request::class_weights}};

/// Memory that is not there, as none of an operand is touched; no two overlap.
Operand images(const char* name, const Shape& shape, Format format = Format::float32) {
  static std::uintptr_t next = 0;
  next += std::uintptr_t{1} << 20;
  return Operand(name, {shape, format}, reinterpret_cast<void*>(next), true);
}

bool writes_loss(Work work) { return work == Work::loss || work == Work::loss_and_gradient; }

/// A valid request with every operand its work takes.
Request valid_request(Work work = Work::loss_and_gradient,
                      LossType type = LossType::mean_squared_error,
                      ReductionType reduction = ReductionType::none) {
  Request r;
  r.work = work;
  r.descriptor.loss_type = type;
  r.descriptor.reduction_type = info(type).sums_only ? ReductionType::sum : reduction;
  r.predictions = images("predictions", kShape);
  if (work != Work::initial_gradient) {
    r.labels = images("labels", kShape);
    r.weights = images("weights", {3, 2, 4, 1});
    r.sample_weights = images("sample_weight", reduced(kShape));
    r.class_weights = images("class_weight", {1, 1, 1, info(type).one_weight_per_pixel ? 1 : 5});
    r.source_gradients = images("source_gradients", reduced(kShape));
  }
  if (writes_loss(work)) r.loss = images("loss", loss_shape(r.descriptor, kShape));
  if (work != Work::loss) r.gradient = images("gradient", kShape);
  if (work == Work::gradient_and_hessian) r.hessian = images("hessian", kShape);
  return r;
}

void check_valid(const Request& request) {
  const std::string words = refusal_of<ValueError>([&] { Computation{request}; });
  CHECK(words == "(no error)");
}

/// Refused with an Error about `argument` once `spoil` has been at a valid request.
template <class Error>
void check_spoilt(const char* argument, const std::function<void(Request&)>& spoil,
                  Request request = valid_request()) {
  check_valid(request);
  spoil(request);
  check_refused<Error>(argument, [&] { Computation{request}; });
}

/// `shape` with each axis in turn one larger, and one smaller where that leaves something.
std::vector<Shape> neighbours(const Shape& shape) {
  std::vector<Shape> all;
  for (const std::int64_t step : {-1, 1}) {
    for (std::int64_t Shape::* axis :
         {&Shape::images, &Shape::height, &Shape::width, &Shape::channels}) {
      Shape other = shape;
      if ((other.*axis += step) > 0) all.push_back(other);
    }
  }
  return all;
}

}  // namespace

TEST_CASE("every loss, reduction and kind of work is accepted") {
  for (const LossInfo& loss : kLosses) {
    for (const ReductionInfo& reduction : kReductions) {
      for (const Work work : kAllWork) {
        for (const Wrt wrt : {Wrt::predictions, Wrt::labels}) {
          if (work == Work::initial_gradient && wrt == Wrt::labels) continue;
          Request request = valid_request(work, loss.type, reduction.type);
          request.wrt = wrt;
          check_valid(request);
        }
      }
    }
  }
}

TEST_CASE("cosine distance accepts no reduction but sum") {
  for (const ReductionInfo& row : kReductions) {
    Request request = valid_request(Work::gradient, LossType::cosine_distance);
    request.descriptor.reduction_type = row.type;
    if (row.type == ReductionType::sum) {
      check_valid(request);
    } else {
      check_refused<ValueError>("reduction", [&] { Computation{request}; });
    }
  }
}

TEST_CASE("properties out of range are refused by name") {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::nan("");
  const auto refuse = [](const char* name, double LossParameters::* field, double value) {
    check_spoilt<ValueError>(name, [&](Request& r) { r.descriptor.parameters.*field = value; });
  };
  for (const double value : {infinity, -infinity, nan}) {
    refuse("weight", &LossParameters::weight, value);
    refuse("label_smoothing", &LossParameters::label_smoothing, value);
    refuse("epsilon", &LossParameters::epsilon, value);
    refuse("delta", &LossParameters::delta, value);
  }
  refuse("label_smoothing", &LossParameters::label_smoothing, std::nextafter(0.0, -1));
  refuse("label_smoothing", &LossParameters::label_smoothing, std::nextafter(1.0, 2));
  refuse("epsilon", &LossParameters::epsilon, std::nextafter(0.0, -1));
  refuse("delta", &LossParameters::delta, 0.0);
  refuse("delta", &LossParameters::delta, -1.0);
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{-1}}) {
    check_spoilt<ValueError>("number_of_classes",
                             [&](Request& r) { r.descriptor.number_of_classes = count; });
  }
  Request extreme = valid_request();
  extreme.descriptor.parameters = {-1e308, 1, 0, 1e-308};
  check_valid(extreme);
}

TEST_CASE("labels and results of any other shape are refused by name") {
  for (const Shape& other : neighbours(kShape)) {
    check_spoilt<ValueError>("labels", [&](Request& r) { r.labels = images("labels", other); });
    check_spoilt<ValueError>("loss", [&](Request& r) { r.loss = images("loss", other); });
    check_spoilt<ValueError>("gradient",
                             [&](Request& r) { r.gradient = images("gradient", other); });
    check_spoilt<ValueError>(
        "gradient", [&](Request& r) { r.gradient = images("gradient", other); },
        valid_request(Work::initial_gradient));
    check_spoilt<ValueError>(
        "hessian", [&](Request& r) { r.hessian = images("hessian", other); },
        valid_request(Work::gradient_and_hessian));
  }
}

TEST_CASE("the loss of a reduction is one 1x1x1 image per entry, or one value across the batch") {
  for (const ReductionInfo& row : kReductions) {
    for (const bool across : {false, true}) {
      Request request = valid_request(Work::loss, LossType::huber, row.type);
      request.descriptor.reduce_across_batch = across;
      const bool reduces = row.type != ReductionType::none;
      CHECK(loss_shape(request.descriptor, kShape) == (reduces ? reduced(kShape) : kShape));
      check_valid(request);
      for (const Shape& other : {reduces ? kShape : reduced(kShape), Shape{1, 1, 1, 1}}) {
        request.loss = images("loss", other);
        check_refused<ValueError>("loss", [&] { Computation{request}; });
      }
      if (reduces && across) {
        request.loss_is_one_value = true;
        check_valid(request);  // the last `loss` is one value
        request.loss = images("loss", reduced(kShape));
        check_refused<ValueError>("loss", [&] { Computation{request}; });
      }
    }
  }
}

TEST_CASE("weights broadcast along any axes, and along no axis partly") {
  for (unsigned pattern = 0; pattern < 16; ++pattern) {
    const auto axis = [&](unsigned i, std::int64_t full) { return pattern >> i & 1u ? full : 1; };
    const Shape shape{axis(0, 3), axis(1, 2), axis(2, 4), axis(3, 5)};
    for (const auto& [name, member] : kWeights) {
      Request request = valid_request();
      request.*member = images(name, shape);
      check_valid(request);
      for (const Shape& other : neighbours(shape)) {
        bool fits = true;
        for (std::size_t i = 0; i < 4; ++i) {
          fits = fits && (other.axes()[i] == 1 || other.axes()[i] == kShape.axes()[i]);
        }
        request.*member = images(name, other);
        if (fits) continue;
        check_refused<ValueError>(name, [&] { Computation{request}; });
      }
      Request cosine = valid_request(Work::loss, LossType::cosine_distance);
      cosine.*member = images(name, shape);
      if (shape.channels == 1) {
        check_valid(cosine);
      } else {
        check_refused<ValueError>(name, [&] { Computation{cosine}; });
      }
    }
  }
}

TEST_CASE("source gradients are one per image, or one per element where nothing is reduced") {
  for (const ReductionInfo& row : kReductions) {
    Request request = valid_request(Work::gradient, LossType::log, row.type);
    check_valid(request);
    request.source_gradients = images("source_gradients", kShape);
    if (row.type == ReductionType::none) {
      check_valid(request);
    } else {
      check_refused<ValueError>("source_gradients", [&] { Computation{request}; });
    }
    for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{3, 1, 1, 5}, Shape{3, 2, 4, 1}}) {
      request.source_gradients = images("source_gradients", shape);
      check_refused<ValueError>("source_gradients", [&] { Computation{request}; });
    }
  }
}

TEST_CASE("float16, bfloat16 and float32 mix, float64 only with itself") {
  using Member = std::optional<Operand> Request::*;
  const std::pair<const char*, Member> inputs[] = {
      {"labels", &Request::labels},
      {"weights", &Request::weights},
      {"sample_weight", &Request::sample_weights},
      {"class_weight", &Request::class_weights},
      {"source_gradients", &Request::source_gradients}};
  for (const Format predictions : kAllFormats) {
    Request base = valid_request();
    base.predictions = images("predictions", kShape, predictions);
    base.loss = images("loss", kShape, info(predictions).of_losses);
    base.gradient = images("gradient", kShape, predictions);
    const bool wide = predictions == Format::float64;
    for (const auto& [name, member] : inputs) {
      const Shape shape = (base.*member)->shape();
      base.*member = images(name, shape, wide ? Format::float64 : Format::float16);
    }
    check_valid(base);
    for (const auto& [name, member] : inputs) {
      for (const Format format : kAllFormats) {
        Request request = base;
        request.*member = images(name, (base.*member)->shape(), format);
        if ((format == Format::float64) == wide) {
          check_valid(request);
        } else {
          check_refused<TypeError>(name, [&] { Computation{request}; });
        }
      }
    }
  }
}

TEST_CASE("results have the one format that belongs to the inputs") {
  for (const Format predictions : kAllFormats) {
    const Format labels = predictions == Format::float64   ? Format::float64
                          : predictions == Format::float32 ? Format::float16
                                                           : Format::float32;
    for (const Wrt wrt : {Wrt::predictions, Wrt::labels}) {
      for (const Format format : kAllFormats) {
        Request request = valid_request(Work::loss_and_gradient);
        request.wrt = wrt;
        request.weights = request.sample_weights = request.class_weights = {};
        request.source_gradients = {};
        request.predictions = images("predictions", kShape, predictions);
        request.labels = images("labels", kShape, labels);
        const Format gradient = wrt == Wrt::labels ? labels : predictions;
        request.loss = images("loss", kShape, info(predictions).of_losses);
        request.gradient = images("gradient", kShape, gradient);
        check_valid(request);
        Request other = request;
        other.loss = images("loss", kShape, format);
        if (format != info(predictions).of_losses) {
          check_refused<TypeError>("loss", [&] { Computation{other}; });
        }
        other = request;
        other.gradient = images("gradient", kShape, format);
        if (format != gradient) check_refused<TypeError>("gradient", [&] { Computation{other}; });
        // The one-call functions want the format of the predictions in either case, or what it is
        // computed in.
        other.by_functions = true;
        if (format == predictions || format == info(predictions).computed_in) {
          check_valid(other);
        } else {
          check_refused<TypeError>("gradient", [&] { Computation{other}; });
        }
        other.work = Work::gradient_and_hessian;
        other.gradient = request.predictions;
        other.gradient->data = nullptr;
        other.hessian = images("hessian", kShape, format);
        if (format == predictions || format == info(predictions).computed_in) {
          check_valid(other);
        } else {
          check_refused<TypeError>("hessian", [&] { Computation{other}; });
        }
      }
    }
  }
}

TEST_CASE("read-only destinations are refused by name") {
  std::vector<float> memory(static_cast<std::size_t>(kShape.elements()));
  const auto read_only = [&](const char* name) {
    return Operand(name, {kShape, Format::float32}, memory.data(), false);
  };
  check_spoilt<ValueError>("loss", [&](Request& r) { r.loss = read_only("loss"); });
  check_spoilt<ValueError>("gradient", [&](Request& r) { r.gradient = read_only("gradient"); });
  check_spoilt<ValueError>(
      "hessian", [&](Request& r) { r.hessian = read_only("hessian"); },
      valid_request(Work::gradient_and_hessian));
  Request request = valid_request();
  request.predictions = read_only("predictions");
  check_valid(request);
}

TEST_CASE("outputs are added once the inputs are valid, and looked at after that") {
  bool added = false;
  const auto add = [&](Request& r) {
    added = true;
    r.gradient = images("gradient", kShape);
  };
  Request request = valid_request(Work::gradient);
  request.gradient = {};
  const auto ask = [](const Request& asked) { return [&](Request& own) { own = asked; }; };
  const Computation computation(ask(request), add);
  CHECK(added);
  CHECK(computation->gradient.has_value());
  added = false;
  Request spoilt = request;
  spoilt.labels = images("labels", reduced(kShape));
  check_refused<ValueError>("labels", [&] { Computation(ask(spoilt), add); });
  CHECK_FALSE(added);
  const auto add_input = [](Request& r) { (r.gradient = r.predictions)->name = "gradient"; };
  check_refused<ValueError>("gradient", [&] { Computation(ask(request), add_input); });
}

}  // namespace mpsnn_loss::test
