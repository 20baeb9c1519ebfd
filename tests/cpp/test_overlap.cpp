// A destination shares memory with no input and no other destination: Computation against a plain
// comparison of all pairs, on arrays, on gathered batches and on images in device storage.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
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
      operands.push_back(
          make_operand(name, {kShape, Format::float32}, memory.data() + first, true));
      places.emplace_back();
      for (std::int64_t i = 0; i < kShape.elements(); ++i) places.back().push_back(first + i);
    }
    check_agrees(operands, places);
    accepted += refusal_of<ValueError>([&] { Computation{request_of(operands)}; }) == "(no error)";
  }
  CHECK(accepted > 100);
}

TEST_CASE("arrays that touch are accepted, and so are empty arrays anywhere") {
  std::vector<float> memory(30);
  std::vector<Operand> operands;
  for (std::size_t i = 0; i < kOperands; ++i) {
    operands.push_back(
        make_operand(kNames[i], {kShape, Format::float32}, memory.data() + 6 * i, true));
  }
  CHECK(refusal_of<ValueError>([&] { Computation{request_of(operands)}; }) == "(no error)");
  for (std::size_t i = 0; i < kOperands; ++i) {
    operands[i] = make_operand(kNames[i], {{0, 1, 1, 3}, Format::float32}, memory.data(), true);
  }
  CHECK(refusal_of<ValueError>([&] { Computation{request_of(operands)}; }) == "(no error)");
}

TEST_CASE("inputs may share memory with each other") {
  std::vector<float> memory(18);
  std::vector<Operand> operands;
  for (std::size_t i = 0; i < kOperands; ++i) {
    const std::size_t first = i < kFirstWritten ? 0 : 6 * (i - 2);
    operands.push_back(
        make_operand(kNames[i], {kShape, Format::float32}, memory.data() + first, true));
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

}  // namespace mpsnn_loss::test
