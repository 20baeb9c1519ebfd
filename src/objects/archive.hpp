// The portable archive of a kernel (to_bytes / from_bytes): a description of its properties, and
// nothing that could be executed. All numbers are little-endian.
//
//   offset  size  field
//        0     8  magic "MPSNNLos"
//        8     4  format version, 2
//       12     4  kernel class: 1 MPSNNForwardLoss, 2 MPSNNLossGradient, 3 MPSNNInitialGradient
//       16     4  loss type, Apple's raw value
//       20     4  reduction type, Apple's raw value
//       24     4  flags: 1 reduce_across_batch, 2 compute_label_gradients, 4 has a label
//       28     4  number of words of inherited properties, m
//       32     8  number_of_classes
//       40    32  weight, label_smoothing, epsilon, delta as IEEE float64
//       72     8  options
//       80    8m  inherited properties that are not as in a fresh kernel, seven words each: the
//                 index in the rows of objects/kernel_properties.cpp, ascending, then six of the
//                 value
//    80+8m     4  length of the label in bytes, n
//    84+8m     n  label, UTF-8
//  84+8m+n     4  CRC-32 (IEEE 802.3) of everything before it
//
// Version 1, which is still read, has six words of each row in that order, or of none.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "objects/device.hpp"

namespace mpsnn_loss {

std::string archive(const Kernel& kernel);

/// A kernel of class `kind` on `device`. Throws ValueError for anything truncated, altered, of
/// another class or of another version; every property is checked as a setter would check it.
std::shared_ptr<Kernel> unarchive(std::string_view data, KernelKind kind,
                                  const std::shared_ptr<Device>& device);

}  // namespace mpsnn_loss
