#include "core/image_uses.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.hpp"

namespace mpsnn_loss {
namespace {

/// The values of an ended writer are gone where `later` has written after it.
bool comes_after(const Progress& later, const Progress& earlier) {
  if (later.discarded || later.pending()) return false;
  return earlier.discarded || later.ended > earlier.ended;
}

}  // namespace

void ImageUses::add(const char* argument, ImageRange images, const ProgressPointer& by,
                    bool writes) {
  const std::lock_guard lock(mutex_);
  for (const Use& use : uses_) {
    const bool conflicts = use.images.overlaps(images) && (writes || use.writes);
    if (!conflicts || use.by->queue == by->queue || !use.by->pending()) continue;
    throw StateError(refusal(argument,
                             "be free of pending work of other queues, as queues are not ordered "
                             "among each other",
                             std::string("images that a command buffer of another queue still ") +
                                 (use.writes ? "writes" : "reads")));
  }
  if (uses_.size() >= forget_at_) forget_settled();
  uses_.push_back({images, by, writes});
}

void ImageUses::remove(ImageRange images, const ProgressPointer& by, bool writes) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(uses_.rbegin(), uses_.rend(), [&](const Use& use) {
    return use.images == images && use.by == by && use.writes == writes;
  });
  if (found != uses_.rend()) uses_.erase(std::next(found).base());
}

bool ImageUses::is_settled_by_another(const Use& use) const {
  return std::ranges::any_of(uses_, [&](const Use& other) {
    const bool repeats = other.by == use.by && &other > &use;
    return other.writes && other.images.covers(use.images) &&
           (repeats || comes_after(*other.by, *use.by));
  });
}

void ImageUses::forget_settled() {
  std::vector<Use> kept;
  for (const Use& use : uses_) {
    const bool over = !use.by->pending() && (!use.writes || is_settled_by_another(use));
    if (!over) kept.push_back(use);
  }
  uses_ = std::move(kept);
  forget_at_ = std::max<std::size_t>(8, 2 * uses_.size());
}

void ImageUses::check_values(ImageRange images) const {
  for (const Use& use : uses_) {
    const bool failed = use.by->status == CommandBufferStatus::error;
    if (!use.writes || !(failed || use.by->discarded)) continue;
    const std::int64_t first = std::max(images.first, use.images.first);
    const std::int64_t end =
        std::min(images.first + images.count, use.images.first + use.images.count);
    for (std::int64_t image = first; image < end; ++image) {
      const bool written_after = std::ranges::any_of(uses_, [&](const Use& other) {
        return other.writes && other.images.holds(image) &&
               (other.by->pending() || comes_after(*other.by, *use.by));
      });
      if (written_after) continue;
      if (failed) std::rethrow_exception(use.by->error);
      throw StateError("the command buffer that should have written these images was discarded");
    }
  }
}

void ImageUses::check_readable(ImageRange images) const {
  const std::lock_guard lock(mutex_);
  for (const Use& use : uses_) {
    if (!use.writes || !use.images.overlaps(images) || !use.by->pending()) continue;
    throw StateError(
        "the command buffer that writes these images has not completed: commit it and wait");
  }
  check_values(images);
}

void ImageUses::check_usable(ImageRange images) const {
  const std::lock_guard lock(mutex_);
  check_values(images);
}

void ImageUses::collect_writers(ImageRange images, std::vector<ProgressPointer>& writers) const {
  const std::lock_guard lock(mutex_);
  for (const Use& use : uses_) {
    if (use.writes && use.images.overlaps(images) && use.by->pending() &&
        std::ranges::find(writers, use.by) == writers.end()) {
      writers.push_back(use.by);
    }
  }
}

}  // namespace mpsnn_loss
