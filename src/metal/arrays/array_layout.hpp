// How host arrays lie in packed images: dense float32 values, and the rectangles of pixels that
// hold them. Plain C++.
#pragma once

#include <cstdint>
#include <vector>

#include "core/computation.hpp"

namespace mpsnn_loss::metal {

/// Pixels in one image, from element `first` of the array on.
struct Rectangle {
  Shape shape;
  std::int64_t first = 0;
};

/// What an image of float32 takes on the device: a pixel has 1, 2 or a multiple of 4 channels.
std::int64_t device_bytes(const Shape& shape);

/// The pixels of all images as few images of one, none with more bytes than `most_bytes` unless a
/// single pixel has; losses that do not couple channels may be reshaped where there are too many
/// of them.
std::vector<Rectangle> rectangles(const Shape& shape, LossType loss_type, std::int64_t most_bytes);

void write_value(const Operand& operand, std::int64_t index, double value);

/// The operands of a one-call function as float32 of the predictions' full shape. Where a weight is
/// 0 the values are replaced by harmless ones, as 0 times what a kernel makes of them may be NaN.
class DenseArrays {
 public:
  explicit DenseArrays(const Computation& call);
  DenseArrays(const DenseArrays&) = delete;
  DenseArrays& operator=(const DenseArrays&) = delete;

  const float* predictions() const { return predictions_.data; }
  const float* labels() const { return labels_.data; }
  /// Null where there are none.
  const float* weights() const { return weights_.data; }
  /// Null unless they differ by element.
  const float* source_gradients() const { return source_gradients_.data; }
  double weight_of(std::int64_t element) const;
  double source_gradient_of(std::int64_t image) const;

 private:
  /// Values in the caller's memory, or in our own where they had to be converted.
  struct Values {
    const float* data = nullptr;
    std::vector<float> own;
    void adopt(std::vector<float> values);
    /// Our own copy, to change.
    float* writable(std::size_t count);
  };

  void expand_classes();
  void replace_unweighted();

  const Request& request_;
  const Shape shape_;
  Values predictions_, labels_, weights_, source_gradients_;
};

}  // namespace mpsnn_loss::metal
