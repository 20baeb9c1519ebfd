#include "objc_guard.hpp"

#import <Foundation/Foundation.h>

std::string exception_of(const std::function<void()>& action) {
  NSString* name = nil;
  @try {
    action();
  } @catch (NSException* exception) {
    name = [exception name];
  }
  return name ? [name UTF8String] : "";
}
