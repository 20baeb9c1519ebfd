// What images remember of the command buffers that use them: the rules, and how much.
#include "objects/image_uses.hpp"

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "buffers.hpp"
#include "objects/image_batch.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr int kQueues[3] = {};

/// All uses as they came, and the rules of objects/image_uses.hpp read from them, image by image.
class PlainUses {
 public:
  struct Use {
    ImageRange images;
    std::shared_ptr<Progress> by;
    bool writes;

    bool holds(std::int64_t image) const { return image >= images.first && image < images.end(); }
  };
  std::vector<Use> uses;

  bool has_conflict(const Use& added) const {
    return any(added.images, [&](const Use& use) {
      return use.by->pending() && use.by->queue != added.by->queue && (use.writes || added.writes);
    });
  }
  /// "" where the images may be read, or what is wrong with them.
  std::string state(ImageRange images, bool pending_is_written) const {
    const auto writes = [](const Use& use) { return use.writes && use.by->pending(); };
    if (!pending_is_written && any(images, writes)) return "pending";
    for (std::int64_t i = images.first; i < images.end(); ++i) {
      const Use* last = nullptr;
      bool discarded = false, pending = false;
      for (const Use& use : uses) {
        if (!use.writes || !use.holds(i)) continue;
        discarded |= use.by->discarded;
        pending |= use.by->pending();
        if (use.by->discarded || use.by->pending()) continue;
        if (last == nullptr || use.by->ended > last->by->ended) last = &use;
      }
      if (pending) continue;
      if (last != nullptr && last->by->error) return "failed";
      if (last == nullptr && discarded) return "discarded";
    }
    return "";
  }
  std::set<ProgressPointer> writers(ImageRange images, const ProgressPointer& reader) const {
    std::set<ProgressPointer> found;
    any(images, [&](const Use& use) {
      if (use.writes && use.by->pending() && use.by != reader) found.insert(use.by);
      return false;
    });
    return found;
  }

 private:
  template <class Test>
  bool any(ImageRange images, Test test) const {
    bool found = false;
    for (const Use& use : uses) {
      const bool overlaps = use.images.first < images.end() && images.first < use.images.end();
      found = (overlaps && test(use)) || found;
    }
    return found;
  }
};

std::string words_of(const ImageUses& uses, ImageRange images, bool pending_is_written) {
  try {
    pending_is_written ? uses.check_usable(images) : uses.check_readable(images);
  } catch (const DeviceError&) {
    return "failed";
  } catch (const StateError& error) {
    return std::string(error.what()).find("discarded") != std::string::npos ? "discarded"
                                                                            : "pending";
  }
  return "";
}

void end_somehow(Progress& progress, Random& random) {
  static std::uint64_t ended = 0;
  if (random.one_in(3)) {
    progress.discarded = true;
    return;
  }
  const bool fails = random.one_in(2);
  if (fails) progress.error = device_failure("failed");
  progress.ended = ++ended;
  progress.status = fails ? Status::error : Status::completed;
}

std::size_t remembered(const ImageBatch& images) {
  std::size_t size = 0;
  images.for_each_use(images.all(),
                      [&](const ImageUses& uses, ImageRange) { size += uses.size(); });
  return size;
}

}  // namespace

TEST_CASE("any mixture of uses follows the rules, image by image") {
  Random random(15);
  for (int trial = 0; trial < 300; ++trial) {
    constexpr std::int64_t kImages = 6;
    ImageUses uses(kImages);
    PlainUses plain;
    std::vector<std::shared_ptr<Progress>> buffers;
    const int queues = 1 + static_cast<int>(random.below(3));
    for (int i = 0; i < 6; ++i)
      buffers.push_back(std::make_shared<Progress>(&kQueues[random.below(queues)]));
    for (int step = 0; step < 60; ++step) {
      auto& buffer = buffers[static_cast<std::size_t>(random.below(6))];
      const std::int64_t first = random.below(kImages);
      const ImageRange images{first, 1 + random.below(kImages - first)};
      const PlainUses::Use use{images, buffer, random.one_in(2)};
      std::set<ProgressPointer> writers;
      if (random.one_in(6)) {
        end_somehow(*buffer, random);
        buffer = std::make_shared<Progress>(&kQueues[random.below(queues)]);
      } else if (plain.has_conflict(use)) {
        check_refused<StateError>("images must",
                                  [&] { uses.add("images", images, buffer, use.writes, writers); });
      } else {
        const auto expected = plain.writers(images, buffer);
        uses.add("images", images, buffer, use.writes, writers);
        if (!use.writes) REQUIRE(writers == expected);
        if (random.one_in(4)) {
          uses.remove(images, buffer, use.writes);
        } else {
          plain.uses.push_back(use);
        }
      }
      for (const bool pending_is_written : {false, true})
        REQUIRE(words_of(uses, images, pending_is_written) ==
                plain.state(images, pending_is_written));
    }
  }
}

TEST_CASE("what images remember does not grow with their uses") {
  constexpr std::int64_t kImages = 64;
  const Images images({kImages, 1, 1, 1});
  const Images one({1, 1, 1, 1});
  const auto queue = make_queue();
  const Buffer open = make_buffer(*queue);
  open->encode(images.call());
  const auto encode_one = [&](const Buffer& buffer, std::int64_t image) {
    Images part = one;
    part.predictions = gather_images("images", {{images.predictions, image}});
    part.gradient = gather_images("images", {{images.gradient, image}});
    buffer->encode(part.call());
  };
  const std::size_t most = static_cast<std::size_t>(8 * kImages);
  for (int round = 0; round < 2000; ++round) {
    encode_one(open, round % kImages);
    open->encode(images.call());
    const Buffer discarded = make_buffer(*queue), committed = make_buffer(*queue);
    encode_one(discarded, round % kImages);
    discarded->encode(images.call());
    discarded->discard();
    if (round % 20 == 0) {  // many of them would wait for each other's writes
      encode_one(committed, round % 2);
      committed->commit();
    }
    REQUIRE(remembered(*images.predictions) <= most);
    REQUIRE(remembered(*images.gradient) <= most);
  }
  open->commit();
  CHECK_NOTHROW(images.predictions->check_readable());
  CHECK_NOTHROW(images.gradient->check_readable());
  CHECK(remembered(*images.gradient) <= 2);  // one segment again
}

TEST_CASE("a view of views is one view: its images are those of the storage") {
  const Images images({4, 1, 1, 1});
  auto view = gather_images("images", {{images.gradient, 3}, {images.gradient, 0}});
  images.gradient->set_label(3, "third");
  for (int round = 0; round < 100000; ++round) {
    view = gather_images("images", {image_at(view, 0), {view, 1}});
    CHECK(image_at(view, 0).batch == images.gradient);
  }
  CHECK(image_at(view, 0).index == 3);
  CHECK(view->label(0) == "third");
  CHECK(view->storage(1) == std::pair<const ImageBatch*, std::int64_t>(images.gradient.get(), 0));
}

}  // namespace mpsnn_loss::test
