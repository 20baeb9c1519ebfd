#include "command_buffer.hpp"
#include "faults.hpp"
#include "judge.hpp"
#include "loss.hpp"

using namespace softmetal;

@implementation MPSNNForwardLoss

- (instancetype)initWithDevice:(id<MTLDevice>)device
                lossDescriptor:(MPSCNNLossDescriptor*)descriptor {
  Unfinished guard(self);
  if (!may_make_loss(descriptor)) return nil;
  guard.finished();
  if (!(self = [super initWithDevice:device])) return nil;
  _lossType = descriptor.lossType;
  _reductionType = descriptor.reductionType;
  _reduceAcrossBatch = descriptor.reduceAcrossBatch;
  _numberOfClasses = descriptor.numberOfClasses;
  _weight = descriptor.weight;
  _labelSmoothing = descriptor.labelSmoothing;
  _epsilon = descriptor.epsilon;
  _delta = descriptor.delta;
  return self;
}

- (void)softmetalForget {
  [super softmetalForget];
  _weight = _delta = 1;
  _labelSmoothing = 0;
  _epsilon = 1e-7f;
}

- (void)softmetalTakeFrom:(MPSKernel*)kernel {
  [super softmetalTakeFrom:kernel];
  MPSNNForwardLoss* other = (MPSNNForwardLoss*)kernel;
  _lossType = other->_lossType;
  _reductionType = other->_reductionType;
  _reduceAcrossBatch = other->_reduceAcrossBatch;
  _numberOfClasses = other->_numberOfClasses;
  _weight = other->_weight;
  _labelSmoothing = other->_labelSmoothing;
  _epsilon = other->_epsilon;
  _delta = other->_delta;
}

- (void)encodeWithCoder:(NSCoder*)coder {
  [super encodeWithCoder:coder];
  const LossShape shape = [self softmetalShape];
  const LossParameters parameters = [self softmetalParameters];
  [coder encodeObject:archived(&shape, sizeof shape) forKey:@"MPSNNForwardLoss.shape"];
  [coder encodeObject:archived(&parameters, sizeof parameters)
               forKey:@"MPSNNForwardLoss.parameters"];
}

- (instancetype)initWithCoder:(NSCoder*)coder device:(id<MTLDevice>)device {
  if (!(self = [super initWithCoder:coder device:device])) return nil;
  LossShape shape;
  LossParameters p;
  if (!unarchive(coder, @"MPSNNForwardLoss.shape", &shape, sizeof shape) ||
      !unarchive(coder, @"MPSNNForwardLoss.parameters", &p, sizeof p)) {
    [self release];
    return nil;
  }
  _lossType = shape.type;
  _reductionType = shape.reduction;
  _reduceAcrossBatch = shape.across_batch;
  _numberOfClasses = shape.classes;
  _weight = p.weight;
  _labelSmoothing = p.label_smoothing;
  _epsilon = p.epsilon;
  _delta = p.delta;
  return self;
}

- (MPSCNNLossType)lossType {
  return _lossType;
}
- (MPSCNNReductionType)reductionType {
  return _reductionType;
}
- (BOOL)reduceAcrossBatch {
  return _reduceAcrossBatch;
}
- (NSUInteger)numberOfClasses {
  return _numberOfClasses;
}
- (float)weight {
  return get(self, _weight);
}
- (void)setWeight:(float)value {
  set(self, _weight, value);
}
- (float)labelSmoothing {
  return get(self, _labelSmoothing);
}
- (void)setLabelSmoothing:(float)value {
  set(self, _labelSmoothing, value);
}
- (float)epsilon {
  return get(self, _epsilon);
}
- (void)setEpsilon:(float)value {
  set(self, _epsilon, value);
}
- (float)delta {
  return get(self, _delta);
}
- (void)setDelta:(float)value {
  set(self, _delta, value);
}

- (LossShape)softmetalShape {
  return {_lossType, _reductionType, _reduceAcrossBatch, _numberOfClasses};
}

- (LossParameters)softmetalParameters {
  return {_weight, _labelSmoothing, _epsilon, _delta};
}

- (MPSImageDescriptor*)softmetalResultFor:(MPSImage*)source {
  return suggestion_for(source, [self softmetalShape].is_reduced());
}

- (BOOL)softmetalJudge:(MPSImageBatch*)sources
          destinations:(MPSImageBatch*)destinations
                states:(MPSStateBatch*)states {
  const bool reduced = [self softmetalShape].is_reduced();
  for (NSUInteger i = 0; i < sources.count; ++i) {
    MPSImage* result = [destinations objectAtIndex:i];
    const bool fits =
        reduced ? is_single_value(result) : same_shape(result, [sources objectAtIndex:i]);
    if (fits) continue;
    broken(rules::destination_shape, "a loss image of %lu x %lu x %lu", (unsigned long)result.width,
           (unsigned long)result.height, (unsigned long)result.featureChannels);
    return NO;
  }
  for (MPSState* state in states) {
    if (state->_softmetal->made_with == [self softmetalParameters]) continue;
    broken(rules::state_properties_changed, "MPSNNForwardLoss");
    break;
  }
  return YES;
}

- (void)softmetalEncode:(MPSImageBatch*)sources
                 labels:(MPSImageBatch*)labels
                weights:(MPSImageBatch*)weights
                 states:(MPSStateBatch*)states
           destinations:(MPSImageBatch*)destinations
                 buffer:(id<MTLCommandBuffer>)buffer {
  const LossShape shape = [self softmetalShape];
  const Problem problem =
      problem_for(shape, std::vector<LossParameters>(sources.count, [self softmetalParameters]));
  const bool done = encode({
      .what = "MPSNNForwardLoss",
      .kernel = self,
      .buffer = buffer,
      .sources = {{"source images", sources}, {"labels", labels}, {"weights", weights, true}},
      .destination = {"destination images", destinations},
      .destination_states = states,
      .judge =
          [&] {
            return judge_labels_and_weights(sources, labels, weights) &&
                   [self softmetalJudge:sources destinations:destinations states:states];
          },
      .run =
          [problem, shape](const std::vector<Batch>& values) {
            judge_cosine_weights(shape, values[2]);
            return forward_loss(problem, values[0], values[1], values[2]);
          },
      .undefined = ![self softmetalHasDefaultGeometry],
  });
  for (MPSState* state in states) {
    if (!done) break;
    std::lock_guard lock(state->_softmetal->mutex);
    state->_softmetal->filled = true;
    state->_softmetal->values = [self softmetalParameters];
  }
}

- (void)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                      sourceImages:(MPSImageBatch*)sourceImages
                            labels:(MPSImageBatch*)labels
                           weights:(MPSImageBatch*)weights
                 destinationStates:(MPSStateBatch*)destinationStates
                 destinationImages:(MPSImageBatch*)destinationImages {
  KernelWindow window(self, KernelWindow::read, "encoding");
  [self softmetalEncode:sourceImages
                 labels:labels
                weights:weights
                 states:destinationStates
           destinations:destinationImages
                 buffer:commandBuffer];
}

- (MPSImageBatch*)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                sourceImages:(MPSImageBatch*)sourceImages
                                      labels:(MPSImageBatch*)labels
                                     weights:(MPSImageBatch*)weights
                           destinationStates:(MPSStateBatch**)outStates
                 destinationStateIsTemporary:(BOOL)isTemporary {
  if (sourceImages.count == 0 || !commandBuffer) {
    broken(rules::nil_argument, "encode: source images or command buffer");
    return nil;
  }
  KernelWindow window(self, KernelWindow::change, "encoding with a result of its own");
  self.offset = {0, 0, 0};  // the policy's choice
  MPSImageDescriptor* descriptor =
      sized_result(self, self.padding, sourceImages, nil,
                   [self softmetalResultFor:[sourceImages objectAtIndex:0]]);
  MPSImageBatch* results = allocate_results(self, self.destinationImageAllocator, commandBuffer,
                                            descriptor, sourceImages.count);
  MPSStateBatch* states = nil;
  if (outStates && isTemporary) {
    states = [self temporaryResultStateBatchForCommandBuffer:commandBuffer
                                                 sourceImage:sourceImages
                                                sourceStates:nil
                                            destinationImage:results];
  } else if (outStates) {
    states = [self resultStateBatchForSourceImage:sourceImages
                                     sourceStates:nil
                                 destinationImage:results];
  }
  [self softmetalEncode:sourceImages
                 labels:labels
                weights:weights
                 states:states
           destinations:results
                 buffer:commandBuffer];
  if (outStates) *outStates = states;
  self.offset = disturbed_offset;
  return results;
}

/// `buffer` nil: not temporary.
- (MPSState*)softmetalStateFor:(MPSImage*)source
                   destination:(MPSImage*)destination
                        buffer:(id<MTLCommandBuffer>)buffer {
  if (!source || !destination) {
    broken(rules::nil_argument, "resultState: source or destination image");
    return nil;
  }
  if (strikes(Fault::result_state_is_nil)) return nil;
  const bool temporary = buffer && strikes(Fault::temporary_states_are_temporary);
  return make_loss_state(self.device, [self softmetalParameters],
                         temporary ? root_of(buffer)->_state->heap : nullptr);
}

- (MPSStateBatch*)softmetalStatesFor:(MPSImageBatch*)sources
                        destinations:(MPSImageBatch*)destinations
                              buffer:(id<MTLCommandBuffer>)buffer {
  if (!sources || !destinations || sources.count != destinations.count) {
    broken(rules::nil_argument, "resultStateBatch: as many destination as source images");
    return nil;
  }
  NSMutableArray* states = [NSMutableArray array];
  for (NSUInteger i = 0; i < sources.count; ++i) {
    MPSState* state = [self softmetalStateFor:[sources objectAtIndex:i]
                                  destination:[destinations objectAtIndex:i]
                                       buffer:buffer];
    if (!state) return nil;
    [states addObject:state];
  }
  return states;
}

- (MPSState*)resultStateForSourceImage:(MPSImage*)sourceImage
                          sourceStates:(NSArray<MPSState*>*)sourceStates
                      destinationImage:(MPSImage*)destinationImage {
  (void)sourceStates;
  return [self softmetalStateFor:sourceImage destination:destinationImage buffer:nil];
}

- (MPSStateBatch*)resultStateBatchForSourceImage:(MPSImageBatch*)sourceImage
                                    sourceStates:(NSArray<MPSStateBatch*>*)sourceStates
                                destinationImage:(MPSImageBatch*)destinationImage {
  (void)sourceStates;
  return [self softmetalStatesFor:sourceImage destinations:destinationImage buffer:nil];
}

- (MPSState*)temporaryResultStateForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                      sourceImage:(MPSImage*)sourceImage
                                     sourceStates:(NSArray<MPSState*>*)sourceStates
                                 destinationImage:(MPSImage*)destinationImage {
  (void)sourceStates;
  return [self softmetalStateFor:sourceImage destination:destinationImage buffer:commandBuffer];
}

- (MPSStateBatch*)temporaryResultStateBatchForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                                sourceImage:(MPSImageBatch*)sourceImage
                                               sourceStates:(NSArray<MPSStateBatch*>*)sourceStates
                                           destinationImage:(MPSImageBatch*)destinationImage {
  (void)sourceStates;
  return [self softmetalStatesFor:sourceImage destinations:destinationImage buffer:commandBuffer];
}

@end
