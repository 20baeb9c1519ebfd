// A destination shares memory with no input and no other destination: Computation against a plain
// comparison of all pairs, on arrays of any strides, on gathered batches and on images in device
// storage.
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/computation.hpp"
#include "fake_device.hpp"
#include "objects/image_batch.hpp"
#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr Shape kShape{2, 1, 1, 3};
constexpr const char* kNames[] = {"predictions", "labels", "weights", "loss", "gradient"};
constexpr std::size_t kOperands = std::size(kNames), kFirstWritten = 3;

Request request_of(const std::vector<Operand>& operands) {
  Request r;
  r.work = Work::loss_and_gradient;
  r.descriptor.loss_type = LossType::huber;
  r.predictions = operands[0];
  r.labels = operands[1];
  r.weights = operands[2];
  r.loss = operands[3];
  r.gradient = operands[4];
  return r;
}

/// The places that an operand occupies, each with a number of its own.
using Places = std::vector<std::int64_t>;

bool share(const Places& a, const Places& b) {
  for (const std::int64_t place : a) {
    for (const std::int64_t other : b) {
      if (place == other) return true;
    }
  }
  return false;
}

bool repeats(const Places& a) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (a[i] == a[j]) return true;
    }
  }
  return false;
}

/// One begins before the other ends.
bool alternate(const Places& a, const Places& b) {
  return std::ranges::min(a) < std::ranges::max(b) && std::ranges::min(b) < std::ranges::max(a);
}

/// A request is refused, in the name of a destination, exactly where the places say so.
void check_agrees(const std::vector<Operand>& operands, const std::vector<Places>& places) {
  bool overlaps = false;
  for (std::size_t i = kFirstWritten; i < kOperands; ++i) {
    overlaps = overlaps || repeats(places[i]);
    for (std::size_t j = 0; j < i; ++j) overlaps = overlaps || share(places[i], places[j]);
  }
  const std::string words = refusal_of<ValueError>([&] { Computation{request_of(operands)}; });
  const std::string expected = " must share no memory";
  const bool refused =
      words.starts_with("loss" + expected) || words.starts_with("gradient" + expected);
  CAPTURE(words);
  CHECK(refused == overlaps);
  CHECK((refused || words == "(no error)"));
}

}  // namespace

TEST_CASE("arrays anywhere in memory are refused exactly where a destination is shared") {
  Random random(1);
  std::vector<float> memory(64);
  int accepted = 0;
  for (int trial = 0; trial < 4000; ++trial) {
    std::vector<Operand> operands;
    std::vector<Places> places;
    for (const char* const name : kNames) {
      const std::int64_t first = random.below(58);
      operands.push_back(Operand(name, {kShape, Format::float32}, memory.data() + first, true));
      places.emplace_back();
      for (std::int64_t i = 0; i < kShape.elements(); ++i) places.back().push_back(first + i);
    }
    check_agrees(operands, places);
    accepted += refusal_of<ValueError>([&] { Computation{request_of(operands)}; }) == "(no error)";
  }
  CHECK(accepted > 100);
}

TEST_CASE("strided arrays are refused exactly where a destination shares a byte") {
  Random random(3);
  std::vector<std::byte> memory(400);
  int accepted = 0, interleaved = 0;
  for (int trial = 0; trial < 40000; ++trial) {
    std::vector<Operand> operands;
    std::vector<Places> places;
    for (std::size_t k = 0; k < kOperands; ++k) {
      // Losses of float16 are float32.
      const Format format = k == kFirstWritten || (k < kFirstWritten && k > 0 && random.one_in(2))
                                ? Format::float32
                                : Format::float16;
      const std::int64_t size = info(format).size;
      // Rows within columns or columns within rows, apart and backwards.
      const bool transposed = random.one_in(2);
      const std::int64_t step = 1 + random.below(3), gap = random.below(3);
      std::array<std::int64_t, 2> strides{step, 2 * step + gap};
      if (!transposed) strides = {3 * step + gap, step};
      if (random.one_in(2)) strides[transposed ? 0 : 1] *= -1;
      const std::int64_t first = 80 + 2 * random.below(120);
      Operand one = Operand(kNames[k], {kShape, format}, memory.data() + first, true);
      one.strides = {strides[0], 0, 0, strides[1]};
      operands.push_back(one);
      places.emplace_back();
      for (std::int64_t i = 0; i < kShape.images; ++i) {
        for (std::int64_t c = 0; c < kShape.channels; ++c) {
          for (std::int64_t b = 0; b < size; ++b)
            places.back().push_back(first + (i * strides[0] + c * strides[1]) * size + b);
        }
      }
      // What repeats itself is no destination; whoever makes one sees to that.
      REQUIRE_FALSE(repeats(places.back()));
    }
    check_agrees(operands, places);
    if (refusal_of<ValueError>([&] { Computation{request_of(operands)}; }) != "(no error)")
      continue;
    ++accepted;
    interleaved += alternate(places[kFirstWritten], places[0]);
  }
  CHECK(accepted > 500);
  CHECK(interleaved > 50);
}

TEST_CASE("an array elsewhere is told apart by its elements, and all of a range counts without") {
  std::vector<float> memory(18);
  const auto at = [&](std::size_t i) {
    return reinterpret_cast<const std::byte*>(memory.data() + i);
  };
  // Columns 0 to 2 of three rows of six.
  Operand gradient = Operand("gradient", {{3, 1, 1, 3}, Format::float32}, memory.data(), true);
  gradient.strides = {6, 0, 0, 1};
  Request r;
  r.by_functions = true;
  r.predictions = Operand("predictions", gradient.descriptor, nullptr, false);
  r.labels = Operand("labels", gradient.descriptor, nullptr, false);
  r.gradient = gradient;
  const std::int64_t axes[] = {3, 1}, strides[] = {24, 4};
  for (std::size_t column = 0; column < 6; ++column) {
    const StridedArray array{at(column), ElementType::float32, false, axes, strides};
    for (const bool written : {false, true}) {
      r.elsewhere = {{"weights", memory_of(array), array, written}};
      const std::string words = refusal_of<ValueError>([&] { Computation{r}; });
      const bool expected = column < 3;
      CHECK((words != "(no error)") == expected);
      r.elsewhere = {{"weights", memory_of(array), {}, written}};
      check_refused<ValueError>("gradient must share no memory", [&] { Computation{r}; });
    }
  }
  r.elsewhere = {
      {"weights",
       {reinterpret_cast<std::uintptr_t>(at(3)), reinterpret_cast<std::uintptr_t>(at(6))}}};
  CHECK_NOTHROW(Computation{r});
}

TEST_CASE("what cannot be decided is refused") {
  // Sums of very many odd numbers, and a destination of one byte amid them.
  constexpr std::int64_t kStep = std::int64_t{1} << 40;
  Random random(4);
  std::vector<std::int64_t> axes(60, 2), strides;
  std::int64_t reach = 0;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    strides.push_back(kStep + 2 * random.below(kStep) + 1);
    reach += strides.back();
  }
  const auto first = std::int64_t{1} << 20;
  const StridedArray labels{reinterpret_cast<const std::byte*>(first), ElementType::int8, false,
                            axes, strides};
  Request r;
  r.predictions = r.labels.emplace();
  r.gradient = Operand("gradient", {}, reinterpret_cast<void*>(first + reach / 2), true);
  r.elsewhere = {{"labels", memory_of(labels), labels}};
  check_refused<ValueError>("gradient must share no memory", [&] { Computation{r}; });
}

namespace {

/// A valid request of the functions, in place; memory that is not there.
Request in_place_request(Work work) {
  std::uintptr_t next = 0;
  const auto operand = [&](const char* name, const Shape& shape = kShape) {
    next += 4096;
    return Operand(name, {shape, Format::float32}, reinterpret_cast<void*>(next), true);
  };
  Request r;
  r.work = work;
  r.by_functions = true;
  r.descriptor.loss_type = LossType::huber;
  r.predictions = operand("predictions");
  r.labels = operand("labels");
  r.weights = operand("weights");
  r.sample_weights = operand("sample_weight", reduced(kShape));
  r.class_weights = operand("class_weight", {1, 1, 1, 3});
  r.source_gradients = operand("source_gradient");
  if (work == Work::loss || work == Work::loss_and_gradient) r.loss = operand("loss");
  if (work != Work::loss) r.gradient = operand("gradient");
  if (work == Work::gradient_and_hessian) r.hessian = operand("hessian");
  std::optional<Operand>& out = r.result();
  out->data = r.predictions.data;
  return r;
}

}  // namespace

TEST_CASE("out may be exactly the memory of predictions, for functions, where nothing shares it") {
  for (const Work work :
       {Work::loss, Work::gradient, Work::loss_and_gradient, Work::gradient_and_hessian}) {
    const Request valid = in_place_request(work);
    CHECK_NOTHROW(Computation{valid});
    const auto refuse = [&](const char* name, auto spoil) {
      Request r = valid;
      spoil(r);
      check_refused<ValueError>(std::string(name) + " must share no memory",
                                [&] { Computation{r}; });
    };
    const char* const out = valid.result()->name;
    refuse(out, [](Request& r) { r.by_functions = false; });
    for (const std::ptrdiff_t bytes : {-4, -1, 1, 2, 4, 20})
      refuse(out, [&](Request& r) { r.result()->data += bytes; });
    // The same elements in another order.
    refuse(out, [](Request& r) { r.result()->strides = {1, 0, 0, 2}; });
    refuse(out, [](Request& r) {
      r.result()->data += 5 * 4;
      r.result()->strides = {-3, 0, 0, -1};
    });
    if (work != Work::loss) {
      refuse(out, [](Request& r) { r.predictions.descriptor.format = Format::bfloat16; });
    }
    // Another operand anywhere in that memory.
    for (const std::ptrdiff_t bytes : {0, 4, 20}) {
      for (auto Request::* other : {&Request::labels, &Request::weights, &Request::sample_weights,
                                    &Request::class_weights, &Request::source_gradients})
        refuse(out, [&](Request& r) { (r.*other)->data = r.predictions.data + bytes; });
      refuse(out, [&](Request& r) {
        const auto begin = reinterpret_cast<std::uintptr_t>(r.predictions.data + bytes);
        r.elsewhere = {{"labels", {begin, begin + 1}}};
      });
    }
    // No other destination has the right.
    if (work == Work::loss_and_gradient)
      refuse("loss", [](Request& r) { std::swap(r.loss->data, r.gradient->data); });
    if (work == Work::gradient_and_hessian)
      refuse("hessian", [](Request& r) { std::swap(r.hessian->data, r.gradient->data); });
    // Beside it, anything goes.
    Request beside = valid;
    beside.labels->data = beside.predictions.data + 24;
    CHECK_NOTHROW(Computation{beside});
  }
}

TEST_CASE("arrays that touch are accepted, and so are empty arrays anywhere") {
  std::vector<float> memory(30);
  std::vector<Operand> operands;
  for (std::size_t i = 0; i < kOperands; ++i) {
    operands.push_back(Operand(kNames[i], {kShape, Format::float32}, memory.data() + 6 * i, true));
  }
  CHECK(refusal_of<ValueError>([&] { Computation{request_of(operands)}; }) == "(no error)");
  for (std::size_t i = 0; i < kOperands; ++i) {
    operands[i] = Operand(kNames[i], {{0, 1, 1, 3}, Format::float32}, memory.data(), true);
  }
  CHECK(refusal_of<ValueError>([&] { Computation{request_of(operands)}; }) == "(no error)");
}

TEST_CASE("inputs may share memory with each other") {
  std::vector<float> memory(18);
  std::vector<Operand> operands;
  for (std::size_t i = 0; i < kOperands; ++i) {
    const std::size_t first = i < kFirstWritten ? 0 : 6 * (i - 2);
    operands.push_back(Operand(kNames[i], {kShape, Format::float32}, memory.data() + first, true));
  }
  CHECK(refusal_of<ValueError>([&] { Computation{request_of(operands)}; }) == "(no error)");
}

TEST_CASE("batches gathered from any images are refused exactly where a destination is shared") {
  const std::vector<std::shared_ptr<Device>> hosts{cpu_device(), std::make_shared<FakeDevice>()};
  for (const auto& device : hosts) {
    CAPTURE(device->name());
    constexpr std::int64_t kBatches = 4, kImages = 3;
    std::vector<std::shared_ptr<ImageBatch>> batches;
    for (std::int64_t i = 0; i < kBatches; ++i) {
      batches.push_back(device->make_images({{kImages, 1, 1, 3}, Format::float32}));
    }
    Random random(2);
    for (int trial = 0; trial < 3000; ++trial) {
      std::vector<Operand> operands;
      std::vector<std::shared_ptr<ImageBatch>> kept;
      std::vector<Places> places;
      for (const char* const name : kNames) {
        std::vector<Image> chosen;
        places.emplace_back();
        for (std::int64_t i = 0; i < kShape.images; ++i) {
          const std::int64_t batch = random.below(kBatches), index = random.below(kImages);
          chosen.push_back({batches[static_cast<std::size_t>(batch)], index});
          places.back().push_back(batch * kImages + index);
        }
        // A gathered batch of a gathered batch is no different.
        auto gathered = gather_images(name, chosen);
        if (random.one_in(2)) gathered = gather_images(name, {{gathered, 1}, {gathered, 0}});
        operands.push_back(gathered->operand(name));
        kept.push_back(std::move(gathered));
      }
      check_agrees(operands, places);
    }
  }
}

TEST_CASE("large batches in device storage share no memory with each other") {
  const auto device = std::make_shared<FakeDevice>();
  const Shape shape{4096, 1, 1, 3};
  std::vector<std::shared_ptr<ImageBatch>> batches;
  for (int i = 0; i < 20; ++i) batches.push_back(device->make_images({shape, Format::float32}));
  for (std::size_t i = 0; i + kOperands <= batches.size(); ++i) {
    std::vector<Operand> operands;
    for (std::size_t j = 0; j < kOperands; ++j) {
      operands.push_back(batches[i + j]->operand(kNames[j]));
    }
    CHECK(refusal_of<ValueError>([&] { Computation{request_of(operands)}; }) == "(no error)");
  }
}

TEST_CASE("gathering refuses what is no batch, and gives a whole batch back as it is") {
  const auto device = cpu_device();
  const auto whole = device->make_images({{2, 1, 1, 3}, Format::float32});
  CHECK(gather_images("images", {{whole, 0}, {whole, 1}}) == whole);
  const auto swapped = gather_images("images", {{whole, 1}, {whole, 0}});
  CHECK(swapped != whole);
  CHECK(swapped->data() == nullptr);
  CHECK(swapped->operand("").image_data(0) == whole->operand("").image_data(1));
  CHECK(gather_images("images", {{whole, 1}})->data() == whole->operand("").image_data(1));
  check_refused<ValueError>("images", [] { gather_images("images", {}); });
  const auto other_shape = device->make_images({{1, 1, 1, 4}, Format::float32});
  const auto other_format = device->make_images({{1, 1, 1, 3}, Format::float16});
  const auto other_device =
      std::make_shared<FakeDevice>()->make_images({{1, 1, 1, 3}, Format::float32});
  const auto with = [&](const std::shared_ptr<ImageBatch>& batch) {
    return [&whole, batch] { gather_images("images", {{whole, 0}, {batch, 0}}); };
  };
  check_refused<ValueError>("images[1]", with(other_shape));
  check_refused<TypeError>("images[1]", with(other_format));
  check_refused<StateError>("images[1]", with(other_device));
}

TEST_CASE("an axis below 1 and a size beyond 63 bits are refused by name") {
  for (const Format format : {Format::float16, Format::float32, Format::float64}) {
    check_shape("images", {{1, 1, 1, 1}, format});
    for (const Shape& shape :
         {Shape{0, 1, 1, 1}, Shape{1, -1, 1, 1}, Shape{1, 1, 0, 1}, Shape{1, 1, 1, 0},
          Shape{1LL << 32, 1LL << 31, 1, 1}, Shape{1LL << 62, 1LL << 62, 1LL << 62, 1LL << 62}}) {
      check_refused<ValueError>("images", [&] { check_shape("images", {shape, format}); });
    }
    const std::int64_t largest = INT64_MAX / info(format).size;
    check_shape("images", {{largest, 1, 1, 1}, format});
    check_refused<ValueError>("images",
                              [&] { check_shape("images", {{largest + 1, 1, 1, 1}, format}); });
  }
}

TEST_CASE("columns are apart whatever else there is") {
  std::vector<float> memory(72), others(12);
  // Three columns each of twelve rows of six.
  const auto columns = [&](const char* name, std::size_t first) {
    Operand one = Operand(name, {{12, 1, 1, 3}, Format::float32}, memory.data() + first, true);
    one.strides = {6, 0, 0, 1};
    return one;
  };
  Request r;
  r.by_functions = true;
  r.predictions = columns("predictions", 0);
  r.labels = columns("labels", 0);
  r.gradient = columns("gradient", 3);
  for (const float& other : others) {
    CHECK_NOTHROW(Computation{r});
    const auto begin = reinterpret_cast<std::uintptr_t>(&other);
    r.elsewhere.push_back({"weights", {begin, begin + sizeof other}});
  }
}

}  // namespace mpsnn_loss::test
