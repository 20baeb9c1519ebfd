// Uses that Apple allows: no rule may fire.
#include <thread>

#include "scene.hpp"

namespace {

const Registration plain{"allowed: forward, gradient, read back", [] {
  Scene s;
  allowed("plain use", [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    s.forward(buffer);
    s.gradient(buffer);
    s.finish(buffer);
    check(buffer.status == MTLCommandBufferStatusCompleted, "status");
    check_near(values_of([s.losses objectAtIndex:1])[3], 0.125, 0, "a loss");
    check_near(values_of([s.results objectAtIndex:0])[29], -1, 0, "a gradient");
  });
}};

}  // namespace
