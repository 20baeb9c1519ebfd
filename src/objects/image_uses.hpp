// Which command buffers read and write the images of one batch, and what follows from it.
//
// A buffer is pending from its encode until its work has ended or it was discarded. The rules:
//
// * The host may read an image once no pending buffer writes it. Then the buffer that ended last
//   decides: its values, or its error. A discarded buffer wrote nothing, so it does not count,
//   unless every writer was discarded: then the image has no values.
// * A buffer that reads an image depends on every buffer that was to write it at that moment, and
//   fails unless all of those have completed when its own turn is over (CommandBuffer::set_result).
// * Queues are not ordered among each other: reading what a pending buffer of another queue
//   writes, or writing what it reads or writes, is refused when it is encoded.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

namespace mpsnn_loss {

/// MTLCommandBufferStatus.
enum class CommandBufferStatus { not_enqueued, enqueued, committed, scheduled, completed, error };

/// How far a command buffer has come. Shared with the images that it uses.
struct Progress {
  explicit Progress(const void* its_queue) : queue(its_queue) {}

  const void* const queue;  // tells queues apart, nothing else
  std::atomic<CommandBufferStatus> status{CommandBufferStatus::not_enqueued};
  std::atomic<bool> discarded{false};  // dropped without a commit
  std::exception_ptr error;            // set before status becomes error
  std::uint64_t ended = 0;             // counts the buffers that ended, set before status

  bool pending() const { return !discarded && status < CommandBufferStatus::completed; }
};

using ProgressPointer = std::shared_ptr<const Progress>;

/// Images [first, first + count) of a batch.
struct ImageRange {
  std::int64_t first = 0, count = 0;

  std::int64_t end() const { return first + count; }
  friend bool operator==(const ImageRange&, const ImageRange&) = default;
};

/// Neighbouring images with the same past are one segment, so that a use costs the same whether it
/// is of one image or of all, and whatever came before.
class ImageUses {
 public:
  explicit ImageUses(std::int64_t images) : images_(images) {}

  /// Throws StateError naming `argument` where a pending buffer of another queue is in the way. A
  /// reader depends on `writers`, which get the pending buffers that write the images, but for
  /// `by`.
  void add(const char* argument, ImageRange images, const ProgressPointer& by, bool writes,
           std::set<ProgressPointer>& writers);
  /// Takes an `add` back.
  void remove(ImageRange images, const ProgressPointer& by, bool writes) noexcept;

  /// Throws StateError while a pending buffer writes one of the images and where none but
  /// discarded ones were to write it, and the error of the buffer that ended last.
  void check_readable(ImageRange images) const;
  /// The same, but what a pending buffer will write is as good as written.
  void check_usable(ImageRange images) const;
  /// How much is remembered: uses and segments.
  std::size_t size() const;

 private:
  struct Use {
    ProgressPointer by;
    std::size_t times = 0;
  };
  /// The last one has a place of its own, as most lists hold no other.
  class Uses {
   public:
    bool empty() const { return last_.by == nullptr; }
    std::size_t size() const { return empty() ? 0 : earlier_.size() + 1; }
    Use& last() { return last_; }
    /// Afterwards one can be added without fail. Never an exact fit, so that many additions cost no
    /// more than a few.
    void make_room() {
      if (!empty() && earlier_.size() == earlier_.capacity())
        earlier_.reserve(2 * earlier_.size() + 1);
    }
    void add(Use use) noexcept {
      if (!empty()) earlier_.push_back(std::move(last_));
      last_ = std::move(use);
    }
    void drop_last() noexcept {
      last_ = {};
      if (earlier_.empty()) return;
      last_ = std::move(earlier_.back());
      earlier_.pop_back();
    }
    Use* find(const ProgressPointer& by) noexcept {
      if (last_.by == by) return &last_;
      const auto found = std::ranges::find(earlier_.rbegin(), earlier_.rend(), by, &Use::by);
      return found == earlier_.rend() ? nullptr : &*found;
    }
    template <class IsGone>
    void erase_if(IsGone is_gone) noexcept {
      if (empty()) return;
      std::erase_if(earlier_, is_gone);
      if (is_gone(last_)) drop_last();
    }
    template <class F>
    void for_each(F f) const {
      for (const Use& use : earlier_) f(use);
      if (!empty()) f(last_);
    }

   private:
    std::vector<Use> earlier_;
    Use last_;
  };

  /// Uses that were pending when last looked at, and what is left of the others.
  struct Segment {
    Uses
        writers;  // those that are pending are all of one queue, and so are the readers beside them
    Uses readers;
    bool readers_of_many_queues = false;
    std::size_t sweep_at = 8;      // uses; doubles, so that many small uses stay cheap
    ProgressPointer last_written;  // the writer that ended last
    bool discarded = false;        // a writer was

    bool is_quiet() const { return writers.empty() && readers.empty(); }
    bool has_same_past(const Segment& other) const;
    void settle(ProgressPointer writer) noexcept;
    void sweep() noexcept;
    void trim() noexcept;
    void check_conflict(const char* argument, const Progress& by, bool writes);
    void check_values() const;
    void collect_writers(const ProgressPointer& reader, std::set<ProgressPointer>& into) const;
  };
  using Segments = std::map<std::int64_t, Segment>;  // by their first image; without gaps

  void refresh(ImageRange images) const noexcept;
  template <class F>
  void for_each(ImageRange images, F f) const;
  void split(std::int64_t at);

  const std::int64_t images_;
  mutable std::mutex mutex_;
  mutable Segment whole_;      // all images, until they are told apart
  mutable Segments segments_;  // none until then
};

}  // namespace mpsnn_loss
