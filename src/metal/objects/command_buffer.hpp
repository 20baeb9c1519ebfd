// What every command buffer of Metal does with encodes, whoever made the buffer. For .mm files
// only, after they have imported MetalPerformanceShaders.
#pragma once

#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "metal/objects/encode.hpp"
#include "objects/command_buffer.hpp"
#include "objects/completion.hpp"

namespace mpsnn_loss::metal {

/// Why the work failed, or null; on a thread of the driver.
std::exception_ptr error_of(id<MTLCommandBuffer> buffer);
/// When the GPU began and ended, in seconds.
std::pair<double, double> gpu_times(id<MTLCommandBuffer> buffer);

class MetalCommandBuffer : public CommandBuffer {
 public:
  using CommandBuffer::CommandBuffer;
  /// The command buffer, or nil where none was needed yet.
  virtual id<MTLCommandBuffer> object() const = 0;

 protected:
  std::shared_ptr<ImageBatch> do_encode(const std::shared_ptr<const EncodedCall>& encoded) override;
  /// The command buffer, made now where there is none yet.
  virtual id<MTLCommandBuffer> open() = 0;
  /// Temporary images go back to Metal: to be called before commit, and before dropping.
  void release_temporaries();
  /// Releases what was encoded.
  void forget() {
    encodes_.clear();
    returned_.clear();
  }
  /// On a thread of the driver: results to the host, then status and handlers. `error`: why the
  /// work has failed already.
  void complete(id<MTLCommandBuffer> buffer, std::exception_ptr error = nullptr);
  /// Status and handlers, which run on another thread.
  void end(std::exception_ptr error);

 private:
  void check_queue() const final;

  const int made_in_ = forks();      // the process
  std::vector<FullEncode> encodes_;  // keep their images until completion
  // Images that kernels returned; the temporary ones must go before commit.
  std::vector<std::shared_ptr<MetalImages>> returned_, temporaries_;
};

}  // namespace mpsnn_loss::metal
