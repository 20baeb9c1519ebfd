// Rules of states.
#include "scene.hpp"

namespace {

MPSStateBatch* make_states(const Scene& s) {
  return [s.loss.get() resultStateBatchForSourceImage:s.predictions
                                         sourceStates:nil
                                     destinationImage:s.losses];
}

void forward(const Scene& s, id<MTLCommandBuffer> buffer, MPSStateBatch* states) {
  [s.loss.get() encodeBatchToCommandBuffer:buffer
                              sourceImages:s.predictions
                                    labels:s.labels
                                   weights:nil
                         destinationStates:states
                         destinationImages:s.losses];
}

void gradient(const Scene& s, id<MTLCommandBuffer> buffer, MPSStateBatch* states) {
  [s.loss_gradient.get() encodeBatchToCommandBuffer:buffer
                                    sourceGradients:s.gradients
                                       sourceImages:s.predictions
                                             labels:s.labels
                                            weights:nil
                                       sourceStates:states
                               destinationGradients:s.results];
}

void carried() {
  Scene s;
  allowed("forward to gradient", [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    s.loss.get().weight = s.loss_gradient.get().weight = 3;
    MPSStateBatch* states = make_states(s);
    MPSState* first = [states objectAtIndex:0];
    check(states.count == 2 && first != [states objectAtIndex:1], "one for each image");
    check(!first.isTemporary && first.readCount == 0 && first.resourceCount == 0, "no resources");
    forward(s, buffer, states);
    s.loss.get().weight = 50;
    gradient(s, buffer, states);
    gradient(s, buffer, states);  // a read count of 0 does not matter here
    check(MPSStateBatchIncrementReadCount(states, 1) == 2, "two states");
    s.finish(buffer);
    check_near(values_of([s.results objectAtIndex:0])[0], -6, 0, "gradient with weight 3");
  });
  allowed("one state for the whole batch", [&] {
    s.loss.get().weight = 1;
    s.loss_gradient.get().weight = 1;
    MPSState* one = [make_states(s) objectAtIndex:0];
    id<MTLCommandBuffer> buffer = s.buffer();
    forward(s, buffer, @[ one, one ]);
    gradient(s, buffer, @[ one, one ]);
    s.finish(buffer);
  });
}

void misuse() {
  Scene s;
  id<MTLCommandBuffer> buffer = s.buffer();
  MPSState* foreign = [[[MPSState alloc] initWithResource:nil] autorelease];
  breaks("foreign_state", [&] { gradient(s, buffer, @[ foreign, foreign ]); });
  breaks("foreign_state", [&] { forward(s, buffer, @[ foreign, foreign ]); });
  MPSStateBatch* states = make_states(s);
  breaks("state_not_filled", [&] { gradient(s, buffer, states); });
  breaks("batch_count", [&] { gradient(s, buffer, @[ [states objectAtIndex:0] ]); });
  breaks("read_count_changed_at_zero",
         [&] { ((MPSState*)[states objectAtIndex:0]).readCount = 2; });
  s.loss.get().delta = 2;
  breaks("state_properties_changed", [&] { forward(s, buffer, states); });
  breaks("state_and_kernel_disagree", [&] { gradient(s, buffer, states); });
  MPSStateBatch* others = make_states(s);
  s.loss.get().delta = 1;
  MPSStateBatch* mixed = @[ [others objectAtIndex:0], [make_states(s) objectAtIndex:0] ];
  softmetal_allow("state_properties_changed", 1);
  forward(s, buffer, @[ [others objectAtIndex:1], [mixed objectAtIndex:1] ]);
  s.loss.get().delta = 2;
  forward(s, buffer, @[ [mixed objectAtIndex:0], [others objectAtIndex:0] ]);
  softmetal_allow("state_properties_changed", 0);
  s.loss_gradient.get().delta = 2;
  breaks("states_disagree", [&] { gradient(s, buffer, mixed); });
}

void temporary() {
  Scene s;
  WithFault resources("temporary_states_are_temporary");
  const auto make = [&](id<MTLCommandBuffer> buffer) {
    return [s.loss.get() temporaryResultStateBatchForCommandBuffer:buffer
                                                       sourceImage:s.predictions
                                                      sourceStates:nil
                                                  destinationImage:s.losses];
  };
  allowed("made, written, read once", [&] {
    @autoreleasepool {
      id<MTLCommandBuffer> buffer = s.buffer();
      MPSStateBatch* states = make(buffer);
      MPSState* first = [states objectAtIndex:0];
      check(first.isTemporary && first.readCount == 1, "temporary");
      forward(s, buffer, states);
      gradient(s, buffer, states);
      check(first.readCount == 0, "read");
      s.finish(buffer);
    }
  });
  id<MTLCommandBuffer> buffer = s.buffer();
  MPSStateBatch* states = make(buffer);
  forward(s, buffer, states);
  breaks("temporary_on_other_buffer", [&] { gradient(s, s.buffer(), states); });
  gradient(s, buffer, states);
  breaks("read_count_zero", [&] { gradient(s, buffer, states); });
  breaks("read_count_left_over", [&] {
    @autoreleasepool {
      make(s.buffer());
    }
  });
}

void returned() {
  Scene s;
  s.loss.get().destinationImageAllocator = [MPSImage defaultAllocator];
  for (BOOL isTemporary : {NO, YES}) {
    allowed("returning encode with states", [&] {
      id<MTLCommandBuffer> buffer = s.buffer();
      MPSStateBatch* states = nil;
      [s.loss.get() encodeBatchToCommandBuffer:buffer
                                  sourceImages:s.predictions
                                        labels:s.labels
                                       weights:nil
                             destinationStates:&states
                   destinationStateIsTemporary:isTemporary];
      check(states.count == 2, "states");
      gradient(s, buffer, states);
      s.finish(buffer);
    });
    s.loss.get().offset = {0, 0, 0};
  }
}

const Registration all[] = {
    {"states carry the four properties", carried},
    {"states in the wrong place", misuse},
    {"temporary states with resources", temporary},
    {"states out of a returning encode", returned},
};

}  // namespace
