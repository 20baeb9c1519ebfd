#include "texels.hpp"

#include <cmath>
#include <cstring>

#include "counters.hpp"

namespace softmetal {

Texels::Texels(TexelFormat format_, std::size_t width_, std::size_t height_, std::size_t slices_,
               Storage storage_)
    : format(format_), width(width_), height(height_), slices(slices_), storage(storage_) {
  gpu_.resize(slice_size() * slices);
  poison(format.channel, gpu_);
  if (storage == Storage::managed) cpu_ = gpu_;
  Counters& c = counters();
  const std::size_t now = c.texel_bytes += gpu_.size();
  for (std::size_t most = c.most_texel_bytes;
       most < now && !c.most_texel_bytes.compare_exchange_weak(most, now);) {
  }
}

Texels::~Texels() { counters().texel_bytes -= gpu_.size(); }

std::size_t Texels::offset(std::size_t x, std::size_t y, std::size_t slice) const {
  return slice * slice_size() + y * row_size() + x * texel_size();
}

std::byte* Texels::gpu_texel(std::size_t x, std::size_t y, std::size_t slice) {
  return gpu_.data() + offset(x, y, slice);
}

const std::byte* Texels::cpu_texel(std::size_t x, std::size_t y, std::size_t slice) const {
  return (storage == Storage::managed ? cpu_ : gpu_).data() + offset(x, y, slice);
}

void Texels::written_by_gpu() {
  written_ = true;
  gpu_is_newer_ = storage == Storage::managed;
}

void Texels::synchronise() {
  if (storage != Storage::managed || !gpu_is_newer_) return;
  cpu_ = gpu_;
  gpu_is_newer_ = false;
}

void Texels::write_from_cpu(std::size_t x, std::size_t y, std::size_t slice, std::size_t skip,
                            const std::byte* from, std::size_t size) {
  const std::size_t at = offset(x, y, slice) + skip;
  std::memcpy(gpu_.data() + at, from, size);
  if (storage == Storage::managed) std::memcpy(cpu_.data() + at, from, size);
  written_ = true;
}

void Texels::poison_gpu() { poison(format.channel, gpu_); }

std::vector<double> View::load() const {
  std::vector<double> values;
  values.reserve(width() * height() * channels);
  const std::size_t size = size_of(texels->format.channel);
  for (std::size_t y = 0; y < height(); ++y) {
    for (std::size_t x = 0; x < width(); ++x) {
      for (std::size_t c = 0; c < channels; ++c) {
        const std::byte* texel = texels->gpu_texel(x, y, first_slice + c / 4);
        values.push_back(decode(texels->format.channel, texel + c % 4 * size));
      }
    }
  }
  return values;
}

void View::store(const std::vector<double>& values) const {
  const std::size_t size = size_of(texels->format.channel);
  const std::size_t stored = texels->format.channels == 4 ? slices() * 4 : channels;
  std::size_t next = 0;
  for (std::size_t y = 0; y < height(); ++y) {
    for (std::size_t x = 0; x < width(); ++x) {
      for (std::size_t c = 0; c < stored; ++c) {
        std::byte* texel = texels->gpu_texel(x, y, first_slice + c / 4);
        const double value = c < channels ? values[next++] : 0;
        encode(texels->format.channel, value, texel + c % 4 * size);
      }
    }
  }
}

bool View::padding_is_finite() const {
  const std::size_t used = (channels - 1) % 4 + 1;
  const std::size_t size = size_of(texels->format.channel);
  for (std::size_t y = 0; y < height(); ++y) {
    for (std::size_t x = 0; x < width(); ++x) {
      const std::byte* texel = texels->gpu_texel(x, y, first_slice + slices() - 1);
      for (std::size_t c = used; c < texels->format.channels; ++c) {
        if (!std::isfinite(decode(texels->format.channel, texel + c * size))) return false;
      }
    }
  }
  return true;
}

}  // namespace softmetal
