// The storage of one texture: slices of texels, seen by the GPU and by the CPU.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace softmetal {

/// How one channel is stored.
enum class Channel { unorm8, unorm16, float16, float32 };

std::size_t size_of(Channel channel);
double decode(Channel channel, const std::byte* from);
/// Rounds once, to nearest even.
void encode(Channel channel, double value, std::byte* to);
/// What fresh or abandoned storage holds: NaN where the channel has one.
void poison(Channel channel, std::vector<std::byte>& bytes);

struct TexelFormat {
  Channel channel = Channel::float32;
  std::size_t channels = 4;  // 1, 2 or 4 in one texel
  bool operator==(const TexelFormat&) const = default;
};

enum class Storage { shared, managed, privately };

/// Shared by a texture object and the commands that use it, so that a command can tell when its
/// texture has gone. The bytes belong to whomever the rules let use them: there is no lock.
struct Texels {
  Texels(TexelFormat format, std::size_t width, std::size_t height, std::size_t slices,
         Storage storage);
  ~Texels();

  const TexelFormat format;
  const std::size_t width, height, slices;
  const Storage storage;
  bool wrapped = false;           // made by the user, so its padding may be the user's fault
  std::atomic<bool> alive{true};  // the texture object has not been deallocated
  std::atomic<int> reading{0};    // committed, uncompleted commands that read it
  std::atomic<int> writing{0};    // and that write it, or bring it to the CPU

  std::size_t texel_size() const { return size_of(format.channel) * format.channels; }
  std::size_t row_size() const { return texel_size() * width; }
  std::size_t slice_size() const { return row_size() * height; }
  std::byte* gpu_texel(std::size_t x, std::size_t y, std::size_t slice);
  const std::byte* cpu_texel(std::size_t x, std::size_t y, std::size_t slice) const;

  bool in_flight() const { return reading > 0 || writing > 0; }
  bool written() const { return written_; }
  bool gpu_is_newer() const { return gpu_is_newer_; }

  void written_by_gpu();
  void synchronise();
  /// Copies bytes in, for both sides, from `skip` bytes after the beginning of a texel.
  void write_from_cpu(std::size_t x, std::size_t y, std::size_t slice, std::size_t skip,
                      const std::byte* from, std::size_t size);
  /// The CPU has replaced all of it, so nothing of the GPU's is left to synchronise.
  void replaced_by_cpu() { gpu_is_newer_ = false; }
  void poison_gpu();

 private:
  std::size_t offset(std::size_t x, std::size_t y, std::size_t slice) const;

  std::atomic<bool> written_{false};
  std::atomic<bool> gpu_is_newer_{false};  // managed: the GPU wrote after the last synchronise
  std::vector<std::byte> gpu_;
  std::vector<std::byte> cpu_;  // managed only; else the two sides share gpu_
};

/// One image within a texture: channels in groups of four, one group a slice.
struct View {
  std::shared_ptr<Texels> texels;
  std::size_t first_slice = 0;
  std::size_t channels = 0;

  std::size_t width() const { return texels->width; }
  std::size_t height() const { return texels->height; }
  std::size_t slices() const { return (channels + 3) / 4; }
  /// All channels in the order height, width, channel.
  std::vector<double> load() const;
  /// Padding channels become 0.
  void store(const std::vector<double>& values) const;
  bool padding_is_finite() const;
};

}  // namespace softmetal
