// conformsToProtocol: by name. With clang, gcc's runtime never sets the class of a Protocol that a
// file only names in @protocol(...), and so its own comparison always says NO.
#import <Foundation/Foundation.h>
#import <objc/runtime.h>

#include <cstdlib>
#include <cstring>

namespace {

// As gcc lays out protocols (libobjc/objc-private/module-abi-8.h).
struct ProtocolRecord;

struct ProtocolList {
  ProtocolList* next;
  std::size_t count;
  ProtocolRecord* protocols[1];
};

struct ProtocolRecord {
  Class isa;
  const char* name;
  ProtocolList* adopted;
};

bool is_or_adopts(const ProtocolRecord* protocol, const char* name) {
  if (std::strcmp(protocol->name, name) == 0) return true;
  for (const ProtocolList* list = protocol->adopted; list; list = list->next) {
    for (std::size_t i = 0; i < list->count; ++i) {
      if (is_or_adopts(list->protocols[i], name)) return true;
    }
  }
  return false;
}

bool conforms(Class start, Protocol* wanted) {
  if (!wanted) return false;
  const char* name = ((ProtocolRecord*)wanted)->name;
  for (Class one = start; one; one = class_getSuperclass(one)) {
    unsigned count = 0;
    Protocol** list = (Protocol**)class_copyProtocolList(one, &count);
    bool found = false;
    for (unsigned i = 0; i < count; ++i)
      found = found || is_or_adopts((ProtocolRecord*)list[i], name);
    std::free(list);
    if (found) return true;
  }
  return false;
}

}  // namespace

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wobjc-protocol-method-implementation"
@implementation NSObject (SoftmetalConformance)

+ (BOOL)conformsToProtocol:(Protocol*)protocol {
  return conforms(self, protocol);
}

- (BOOL)conformsToProtocol:(Protocol*)protocol {
  return conforms(object_getClass(self), protocol);
}

@end
#pragma clang diagnostic pop
