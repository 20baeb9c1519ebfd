// A batch put together from images of other batches, in any order and with repetitions.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/backend.hpp"

namespace mpsnn_loss {

/// The images as one batch without copying them. All have one device, shape and format, else
/// StateError, ValueError or TypeError. Images that are a whole batch in order give that batch
/// back.
std::shared_ptr<ImageBatch> gather_images(const char* argument, std::vector<Image> images);

}  // namespace mpsnn_loss
