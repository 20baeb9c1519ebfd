// One encode of a kernel: what is judged, and what the GPU runs later.
#pragma once
#include <functional>
#include <vector>

#include "arithmetic.hpp"
#include "kernel.hpp"

namespace softmetal {

struct Operand {
  const char* name;
  MPSImageBatch* images;  // nil: left out
  bool optional = false;
  bool values_count = true;  // false where only the shape matters
};

struct Encode {
  const char* what;
  MPSKernel* kernel;
  id<MTLCommandBuffer> buffer;
  std::vector<Operand> sources;  // the first gives the count of the batch
  Operand destination;
  MPSStateBatch* source_states = nil;
  MPSStateBatch* destination_states = nil;
  /// Rules of this kind of kernel, judged after the general ones; false: do nothing.
  std::function<bool()> judge;
  /// The arithmetic, on the worker thread: values of the sources in their order to values of the
  /// destination. Left-out sources are empty.
  std::function<Batch(const std::vector<Batch>&)> run;
  bool undefined = false;  // the result is NaN
};

/// Judges and encodes. True where the work has been encoded.
bool encode(const Encode& what);

bool same_shape(MPSImage* a, MPSImage* b);
bool is_single_value(MPSImage* image);

}  // namespace softmetal
