// Images of every format and of the shapes at the edges of slices and limits.
#include "on_the_double.hpp"

namespace mpsnn_loss::test {

constexpr Format kStored[] = {Format::float16, Format::float32};

TEST_CASE_FIXTURE(OnTheDouble, "what is uploaded is what is downloaded") {
  Random random(1);
  for (const Format format : kStored) {
    for (const Shape& shape :
         {Shape{1, 1, 1, 1}, Shape{3, 2, 5, 2}, Shape{2, 3, 1, 3}, Shape{2, 2, 2, 4},
          Shape{2, 1, 3, 5}, Shape{1, 1, 1, 8188}, Shape{1, 1, 16384, 1}, Shape{1, 16384, 1, 1}}) {
      Array values(format, shape.elements(), 0);
      for (std::int64_t i = 0; i < values.count(); ++i) values.set(i, random.uniform(-9, 9));
      const Images images = upload(*device, shape, values);
      CHECK(first_difference(download(*images), values) == -1);
      const std::int64_t last = shape.images - 1, size = shape.image_elements();
      Array one(format, size, 0);
      images->download(last, 1, one.data());
      CHECK(first_difference(one, 0, values, last * size, size) == -1);
      CHECK(images->data() == nullptr);
      CHECK_FALSE(images->on_host());
      CHECK(foreign.image_pointer({images, 0}) != nullptr);
    }
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "new images hold zeros") {
  for (const Format format : kStored) {
    const Images images = device->make_images({{2, 3, 4, 5}, format});
    const Array values = download(*images);
    for (std::int64_t i = 0; i < values.count(); ++i) REQUIRE(values.get(i) == 0);
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "images around host memory read it once and write results back") {
  const Shape shape{2, 1, 1, 3};
  auto owner = std::make_shared<Array>(Format::float32, shape.elements(), 0, true);
  for (std::int64_t i = 0; i < owner->count(); ++i) owner->set(i, 2);
  const std::weak_ptr<Array> watched = owner;
  {
    using Shared = std::shared_ptr<Array>;
    MemoryOwner kept(new Shared(owner), [](void* held) { delete static_cast<Shared*>(held); });
    const Images wrapped =
        device->wrap_images({shape, Format::float32}, owner->data(), true, std::move(kept));
    CHECK(first_difference(download(*wrapped), *owner) == -1);
    Encode call;
    call.kernel = device->make_kernel(KernelKind::initial_gradient, {});
    call.predictions = filled(*device, shape, 7);
    call.results = wrapped;
    run_alone(*device, call);
    for (std::int64_t i = 0; i < owner->count(); ++i) CHECK(owner->get(i) == 1);
    CHECK(owner->guards_intact());
    owner.reset();
  }
  CHECK(watched.expired());
}

TEST_CASE_FIXTURE(OnTheDouble, "what no Metal image can be is refused before Metal hears of it") {
  const auto make = [&](const Shape& shape, Format format) {
    return [this, shape, format] { device->make_images({shape, format}); };
  };
  check_refused<TypeError>("images", make({1, 1, 1, 1}, Format::float64));
  check_refused<ValueError>("images", make({1, 16385, 1, 1}, Format::float32));
  check_refused<ValueError>("images", make({1, 1, 16385, 1}, Format::float32));
  check_refused<ValueError>("images", make({1, 1, 1, 8189}, Format::float32));
  const Engine& engine = device->engine();
  CHECK(engine.supports({.format = Format::float64}) != "");
  for (const Format format : kStored) CHECK(engine.supports({.format = format}) == "");
}

TEST_CASE_FIXTURE(OnTheDouble, "labels of images are kept") {
  const Images images = device->make_images({{2, 1, 1, 1}, Format::float32});
  images->set_label(1, "second");
  CHECK(images->label(0) == "");
  CHECK(images->label(1) == "second");
}

}  // namespace mpsnn_loss::test
