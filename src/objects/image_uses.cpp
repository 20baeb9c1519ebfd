#include "objects/image_uses.hpp"

#include <algorithm>
#include <iterator>
#include <string>

#include "core/error.hpp"

namespace mpsnn_loss {
namespace {

[[noreturn]] void refuse_conflict(const char* argument, const char* verb) {
  throw StateError(
      refusal(argument,
              "be free of pending work of other queues, as queues are not ordered "
              "among each other",
              std::string("images that a command buffer of another queue still ") + verb));
}

}  // namespace

/// What an ended writer leaves behind: the last one decides, and discarded ones count where there
/// is no other.
void ImageUses::Segment::settle(ProgressPointer writer) noexcept {
  if (writer->discarded) {
    discarded = true;
  } else if (last_written == nullptr || writer->ended > last_written->ended) {
    last_written = std::move(writer);
  }
}

void ImageUses::Segment::sweep() noexcept {
  writers.erase_if([this](const Use& use) {
    if (use.by->pending()) return false;
    settle(use.by);
    return true;
  });
  readers.erase_if([](const Use& use) { return !use.by->pending(); });
  sweep_at = std::max<std::size_t>(8, 2 * (writers.size() + readers.size()));
}

/// Afterwards the last of the writers and of the readers are pending, if there are any.
void ImageUses::Segment::trim() noexcept {
  if (writers.size() + readers.size() >= sweep_at) sweep();
  for (; !writers.empty() && !writers.last().by->pending(); writers.drop_last())
    settle(writers.last().by);
  while (!readers.empty() && !readers.last().by->pending()) readers.drop_last();
  if (readers.empty()) readers_of_many_queues = false;
}

bool ImageUses::Segment::has_same_past(const Segment& other) const {
  if (!is_quiet() || !other.is_quiet()) return false;
  if (last_written == nullptr || other.last_written == nullptr)
    return last_written == other.last_written && discarded == other.discarded;
  const auto completed = [](const Segment& s) {
    return s.last_written->status == CommandBufferStatus::completed;
  };
  return last_written == other.last_written || (completed(*this) && completed(other));
}

void ImageUses::Segment::check_conflict(const char* argument, const Progress& by, bool writes) {
  if (!writers.empty() && writers.last().by->queue != by.queue) refuse_conflict(argument, "writes");
  if (!writes) return;
  const auto is_of_another = [&](const Use& use) { return use.by->queue != by.queue; };
  if (readers_of_many_queues) {
    sweep();
    readers.for_each([&](const Use& use) {
      if (is_of_another(use)) refuse_conflict(argument, "reads");
    });
    readers_of_many_queues = false;
  }
  if (!readers.empty() && is_of_another(readers.last())) refuse_conflict(argument, "reads");
}

/// Where no writer is pending: whether there are values.
void ImageUses::Segment::check_values() const {
  if (!writers.empty()) return;
  if (last_written != nullptr && last_written->error) std::rethrow_exception(last_written->error);
  if (last_written == nullptr && discarded)
    throw StateError("the command buffer that should have written these images was discarded");
}

void ImageUses::Segment::collect_writers(const ProgressPointer& reader,
                                         std::set<ProgressPointer>& into) const {
  writers.for_each([&](const Use& use) {
    if (use.by != reader && use.by->pending()) into.insert(use.by);
  });
}

/// Trims the segments that the images lie in, and joins those that have the same past.
void ImageUses::refresh(ImageRange images) const noexcept {
  if (segments_.empty()) return whole_.trim();
  auto segment = std::prev(segments_.upper_bound(images.first));
  segment->second.trim();
  for (auto next = std::next(segment); next != segments_.end() && next->first < images.end();
       next = std::next(segment)) {
    next->second.trim();
    if (segment->second.has_same_past(next->second)) {
      segments_.erase(next);
    } else {
      segment = next;
    }
  }
}

/// Calls f with the segments that the images lie in.
template <class F>
void ImageUses::for_each(ImageRange images, F f) const {
  if (segments_.empty()) return f(whole_);
  auto segment = std::prev(segments_.upper_bound(images.first));
  for (; segment != segments_.end() && segment->first < images.end(); ++segment) f(segment->second);
}

void ImageUses::split(std::int64_t at) {
  if (at <= 0 || at >= images_) return;
  if (segments_.empty()) {
    segments_.emplace(0, whole_);
    whole_ = {};
  }
  const auto segment = std::prev(segments_.upper_bound(at));
  if (segment->first != at) segments_.emplace_hint(std::next(segment), at, segment->second);
}

void ImageUses::add(const char* argument, ImageRange images, const ProgressPointer& by, bool writes,
                    std::set<ProgressPointer>& writers) {
  const auto of = [writes](Segment& s) -> Uses& { return writes ? s.writers : s.readers; };
  const std::lock_guard lock(mutex_);
  split(images.first);
  split(images.end());
  refresh(images);
  for_each(images, [&](Segment& segment) {
    segment.check_conflict(argument, *by, writes);
    if (!writes) segment.collect_writers(by, writers);
    of(segment).make_room();
  });
  for_each(images, [&](Segment& segment) {
    Uses& uses = of(segment);
    if (!uses.empty() && uses.last().by == by) {
      ++uses.last().times;
      return;
    }
    if (!writes && !uses.empty() && uses.last().by->queue != by->queue)
      segment.readers_of_many_queues = true;
    uses.add({by, 1});
  });
}

void ImageUses::remove(ImageRange images, const ProgressPointer& by, bool writes) noexcept {
  const std::lock_guard lock(mutex_);
  const auto take_back = [&](Segment& segment) {
    Uses& uses = writes ? segment.writers : segment.readers;
    Use* const found = uses.find(by);
    if (found != nullptr && --found->times == 0)
      uses.erase_if([](const Use& use) { return use.times == 0; });
  };
  if (segments_.empty()) return take_back(whole_);
  const auto end = segments_.lower_bound(images.end());
  for (auto segment = segments_.lower_bound(images.first); segment != end; ++segment)
    take_back(segment->second);
}

void ImageUses::check_readable(ImageRange images) const {
  const std::lock_guard lock(mutex_);
  refresh(images);
  for_each(images, [](const Segment& segment) {
    if (segment.writers.empty()) return;
    throw StateError(
        "the command buffer that writes these images has not completed: commit it and wait");
  });
  for_each(images, [](const Segment& segment) { segment.check_values(); });
}

void ImageUses::check_usable(ImageRange images) const {
  const std::lock_guard lock(mutex_);
  refresh(images);
  for_each(images, [](const Segment& segment) { segment.check_values(); });
}

std::size_t ImageUses::size() const {
  const std::lock_guard lock(mutex_);
  const auto size_of = [](const Segment& s) { return 1 + s.writers.size() + s.readers.size(); };
  if (segments_.empty()) return size_of(whole_);
  std::size_t size = 0;
  for (const auto& [first, segment] : segments_) size += size_of(segment);
  return size;
}

}  // namespace mpsnn_loss
