// What images learn from the command buffer that writes them, its errors included.
#include <memory>
#include <string>
#include <vector>

#include "buffers.hpp"
#include "objects/image_batch.hpp"

namespace mpsnn_loss::test {

TEST_CASE("a failure becomes the buffer's error, which wait throws every time") {
  const Images images;
  const Buffer buffer = make_buffer();
  encode_failure(buffer);
  buffer->encode(images.call());
  bool later_work_ran = false;
  buffer->encode_work([&] { later_work_ran = true; });
  CHECK_NOTHROW(buffer->commit());
  CHECK(buffer->status() == Status::error);
  CHECK(buffer->finished_within(kLong));
  for (int i = 0; i < 2; ++i) {
    const std::string words = refusal_of<DeviceError>([&] { buffer->wait(kLong); });
    CHECK(words.find("out of luck") != std::string::npos);
  }
  REQUIRE(buffer->error() != nullptr);
  check_refused<DeviceError>("", [&] { std::rethrow_exception(buffer->error()); });
  CHECK_FALSE(later_work_ran);
  check_refused<DeviceError>("", [&] { images.gradient->check_readable(); });
  check_refused<DeviceError>("", [&] { images.gradient->check_usable(); });
  CHECK_NOTHROW(images.predictions->check_readable());
  const auto part = gather_images("images", {{images.gradient, 1}});
  check_refused<DeviceError>("", [&] { part->check_readable(); });
  Images chained;
  chained.predictions = images.gradient;
  check_refused<DeviceError>("", [&] { chained.call(); });
}

TEST_CASE("any exception of the work becomes the buffer's error, and the queue goes on") {
  const auto queue = make_queue();
  const Buffer failing = make_buffer(*queue), next = make_buffer(*queue);
  failing->encode_work([] { throw 42; });
  CHECK_NOTHROW(failing->commit());
  CHECK(failing->status() == Status::error);
  CHECK(failing->finished_within(1));
  next->commit();
  CHECK(next->finished_within(1));
}

TEST_CASE("images are unreadable from their encode until the buffer has completed") {
  const Images images;
  const Buffer buffer = make_buffer();
  const auto part = gather_images("images", {{images.gradient, 1}});
  CHECK_NOTHROW(images.gradient->check_readable());
  buffer->encode(images.call());
  const auto unreadable = [&] {
    check_refused<StateError>("", [&] { images.gradient->check_readable(); });
    check_refused<StateError>("", [&] { part->check_readable(); });
    CHECK_NOTHROW(images.gradient->check_usable());  // a later call may read them
    CHECK_NOTHROW(images.predictions->check_readable());
  };
  unreadable();
  buffer->enqueue();
  unreadable();
  buffer->encode_work(unreadable);
  buffer->commit();
  buffer->wait(kLong);
  CHECK_NOTHROW(images.gradient->check_readable());
  CHECK_NOTHROW(part->check_readable());
}

TEST_CASE("a gathered batch passes its writer on to the images it was gathered from") {
  Images images;
  const auto whole = images.gradient;
  images.gradient = gather_images("images", {{whole, 1}, {whole, 0}});
  const Buffer buffer = make_buffer();
  buffer->encode(images.call());
  check_refused<StateError>("", [&] { whole->check_readable(); });
  buffer->commit();
  CHECK_NOTHROW(whole->check_readable());
  CHECK(images.result(1) == kAfter);
}

TEST_CASE("writers are known image by image, and the one that ended last decides") {
  const Images images({3, 1, 1, 2}), parts({1, 1, 1, 2});
  const auto whole = images.gradient;
  const auto queue = make_queue();
  const auto encode_part = [&](const Buffer& buffer, std::int64_t image) {
    Images one = parts;
    one.gradient = gather_images("images", {{whole, image}});
    buffer->encode(one.call());
  };
  const Buffer a = make_buffer(*queue), b = make_buffer(*queue), c = make_buffer(*queue);
  encode_part(a, 0);
  encode_part(b, 1);
  encode_part(c, 1);
  CHECK_NOTHROW(whole->check_readable({2, 1}));
  a->commit();
  CHECK_NOTHROW(whole->check_readable({0, 1}));
  check_refused<StateError>("", [&] { whole->check_readable({1, 1}); });
  check_refused<StateError>("", [&] { whole->check_readable(); });
  c->discard();
  check_refused<StateError>("", [&] { whole->check_readable({1, 1}); });  // b is still to come
  encode_failure(b);
  b->commit();
  check_refused<DeviceError>("", [&] { whole->check_readable({1, 1}); });
  check_refused<DeviceError>("", [&] { whole->check_readable(); });
  CHECK_NOTHROW(whole->check_readable({0, 1}));
  const Buffer last = make_buffer(*queue);
  encode_part(last, 1);
  last->commit();
  CHECK_NOTHROW(whole->check_readable());
}

TEST_CASE("many small uses of one batch leave no more behind than they mean") {
  const auto batch = cpu_device()->make_images({{4096, 1, 1, 1}, Format::float32});
  const Images parts({1, 1, 1, 1});
  const auto queue = make_queue();
  for (std::int64_t i = 0; i < 4096; ++i) {
    Images one = parts;
    one.gradient = gather_images("images", {{batch, i}});
    const Buffer buffer = make_buffer(*queue);
    buffer->encode(one.call());
    if (i % 64 == 0) {
      buffer->discard();
    } else {
      buffer->commit();
    }
  }
  for (std::int64_t i = 0; i < 4096; ++i) {
    const auto read = [&] { batch->check_readable({i, 1}); };
    if (i % 64 == 0) {
      check_refused<StateError>("", read);
    } else {
      read();
    }
  }
}

TEST_CASE("a buffer fails unless every writer of its inputs has completed when its turn is over") {
  for (const std::string fate : {"open", "discarded", "failed", "behind", "ahead"}) {
    const Images images;
    Images chained;
    const auto queue = make_queue();
    const Buffer writer = make_buffer(*queue), reader = make_buffer(*queue);
    writer->encode(images.call());
    chained.predictions = images.gradient;
    reader->encode(chained.call());
    CAPTURE(fate);
    if (fate == "failed") encode_failure(writer);
    if (fate == "discarded") writer->discard();
    if (fate == "behind") reader->enqueue();
    if (fate == "behind" || fate == "failed" || fate == "ahead") writer->commit();
    reader->commit();
    if (fate == "ahead") {
      CHECK_NOTHROW(reader->wait(kLong));
      CHECK(chained.result() == 5);  // 2 (3 - 0.5)
    } else {
      check_refused<DeviceError>("the command buffer that should have written an input",
                                 [&] { reader->wait(kLong); });
      check_refused<DeviceError>("", [&] { chained.gradient->check_readable(); });
    }
  }
}

TEST_CASE("a pending use by another queue is in the way of a write, and a pending write of a use") {
  const Images images;
  Images reader, writer;
  reader.predictions = images.gradient;
  writer.gradient = images.predictions;
  const Buffer first = make_buffer();
  first->encode(images.call());
  check_refused<StateError>("source_images must", [&] { make_buffer()->encode(reader.call()); });
  check_refused<StateError>("destination_gradients must",
                            [&] { make_buffer()->encode(writer.call()); });
  CHECK_NOTHROW(reader.gradient->check_readable());  // what was refused has left no trace
  CHECK_NOTHROW(writer.labels->check_readable());
  first->commit();
  for (const Images* later : {&reader, &writer}) {
    const Buffer buffer = make_buffer();
    buffer->encode(later->call());
    buffer->commit();
    CHECK_NOTHROW(buffer->wait(kLong));
  }
}

TEST_CASE("discarded or destroyed before the commit, a buffer leaves its images unusable") {
  for (const bool destroy : {false, true}) {
    for (const bool enqueue : {false, true}) {
      const Images images;
      Buffer buffer = make_buffer();
      buffer->encode(images.call());
      bool handled = false;
      buffer->on_completed([&] { handled = true; });
      if (enqueue) buffer->enqueue();
      if (destroy) {
        buffer.reset();
      } else {
        buffer->discard();
      }
      check_refused<StateError>("", [&] { images.gradient->check_readable(); });
      check_refused<StateError>("", [&] { images.gradient->check_usable(); });
      CHECK_NOTHROW(images.predictions->check_readable());
      CHECK(images.result() == kBefore);
      CHECK_FALSE(handled);
      Images chained;
      chained.predictions = images.gradient;
      check_refused<StateError>("", [&] { chained.call(); });
      // Another buffer may still write them.
      const Buffer other = make_buffer();
      other->encode(images.call());
      other->commit();
      other->wait(kLong);
      CHECK_NOTHROW(images.gradient->check_readable());
    }
  }
}

TEST_CASE("a buffer keeps the images of its calls until it has completed, and no longer") {
  for (const bool discard : {false, true}) {
    auto images = std::make_unique<Images>();
    const std::weak_ptr<ImageBatch> batches[] = {images->predictions, images->labels,
                                                 images->gradient};
    const Buffer buffer = make_buffer();
    buffer->encode(images->call());
    images.reset();
    for (const auto& batch : batches) CHECK_FALSE(batch.expired());
    if (discard) {
      buffer->discard();
    } else {
      buffer->commit();
      buffer->wait(kLong);
    }
    for (const auto& batch : batches) CHECK(batch.expired());
  }
}

TEST_CASE("images keep the memory they were made on, and a buffer in flight keeps both") {
  auto memory = std::make_shared<std::vector<float>>(6, 2.0f);
  const std::weak_ptr<std::vector<float>> watched = memory;
  const Buffer buffer = make_buffer();
  {
    Images images;
    using Shared = std::shared_ptr<std::vector<float>>;
    MemoryOwner owner(new Shared(memory), [](void* held) { delete static_cast<Shared*>(held); });
    images.predictions = cpu_device()->wrap_images({{2, 1, 1, 3}, Format::float32},
                                                   reinterpret_cast<std::byte*>(memory->data()),
                                                   false, std::move(owner));
    buffer->encode(images.call());
    memory.reset();
  }
  CHECK_FALSE(watched.expired());
  buffer->commit();
  buffer->wait(kLong);
  CHECK(watched.expired());
}

}  // namespace mpsnn_loss::test
