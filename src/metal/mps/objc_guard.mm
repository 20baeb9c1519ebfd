#include "metal/mps/objc_guard.hpp"

#import <Foundation/Foundation.h>

#include "metal/mps/objc_ptr.hpp"

namespace mpsnn_loss::metal {

bool run_guarded(void (*run)(void*), void* context, std::string& why) {
  const autorelease_pool pool;
  @try {
    run(context);
  } @catch (NSException* exception) {
    why = [[exception name] UTF8String];
    if ([exception reason] != nil) why += std::string(": ") + [[exception reason] UTF8String];
    return false;
  }
  return true;
}

}  // namespace mpsnn_loss::metal
