// The CPU engine: the interface of core/backend.hpp over host memory.
#pragma once

#include <memory>

#include "core/backend.hpp"

namespace mpsnn_loss::cpu {

std::shared_ptr<Device> make_device();

/// Images in host memory, zero-filled or borrowed.
std::shared_ptr<ImageBatch> make_images(std::shared_ptr<Device> device,
                                        const BatchDescriptor& descriptor);
std::shared_ptr<ImageBatch> borrow_images(std::shared_ptr<Device> device,
                                          const BatchDescriptor& descriptor, std::byte* data,
                                          bool writable, std::shared_ptr<void> owner);

std::shared_ptr<Queue> make_queue(std::shared_ptr<Device> device, const std::string& label);

}  // namespace mpsnn_loss::cpu
