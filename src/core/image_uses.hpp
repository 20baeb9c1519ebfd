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

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
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

  bool holds(std::int64_t image) const { return image >= first && image < first + count; }
  bool covers(const ImageRange& other) const {
    return first <= other.first && other.first + other.count <= first + count;
  }
  bool overlaps(const ImageRange& other) const {
    return first < other.first + other.count && other.first < first + count;
  }
  friend bool operator==(const ImageRange&, const ImageRange&) = default;
};

class ImageUses {
 public:
  /// Throws StateError naming `argument` where a pending buffer of another queue is in the way.
  void add(const char* argument, ImageRange images, const ProgressPointer& by, bool writes);
  /// Takes an `add` back.
  void remove(ImageRange images, const ProgressPointer& by, bool writes);

  /// Throws StateError while a pending buffer writes one of the images and where none but
  /// discarded ones were to write it, and the error of the buffer that ended last.
  void check_readable(ImageRange images) const;
  /// The same, but what a pending buffer will write is as good as written.
  void check_usable(ImageRange images) const;
  /// Appends the pending buffers that write the images, each once.
  void collect_writers(ImageRange images, std::vector<ProgressPointer>& writers) const;

 private:
  struct Use {
    ImageRange images;
    ProgressPointer by;
    bool writes;
  };

  bool is_settled_by_another(const Use& use) const;
  void forget_settled();
  void check_values(ImageRange images) const;

  mutable std::mutex mutex_;
  std::vector<Use> uses_;
  std::size_t forget_at_ = 8;  // uses; doubles, so that many small uses stay cheap
};

}  // namespace mpsnn_loss
