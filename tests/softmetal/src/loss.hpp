// What the forward loss and its gradient share.
#pragma once
#include "encode.hpp"
#include "state.hpp"

namespace softmetal {

/// The properties that a loss kernel takes from its descriptor for good.
struct LossShape {
  MPSCNNLossType type;
  MPSCNNReductionType reduction;
  BOOL across_batch;
  NSUInteger classes;

  bool is_reduced() const { return reduction != MPSCNNReductionTypeNone; }
};

/// Judges a descriptor; false: no kernel.
bool may_make_loss(MPSCNNLossDescriptor* descriptor);
/// Judges labels and weights against the predictions.
bool judge_labels_and_weights(MPSImageBatch* predictions, MPSImageBatch* labels,
                              MPSImageBatch* weights);
/// Judges that the weights of a cosine distance are the same in all channels of a pixel.
void judge_cosine_weights(const LossShape& shape, const Batch& weights);

Problem problem_for(const LossShape& shape, const std::vector<LossParameters>& parameters);

}  // namespace softmetal
