// The root class of the double, and what becomes of its objects after their last release: corpses
// that keep their memory for a while and accuse whoever sends them a message.
#import "object.hpp"

#import <objc/runtime.h>

#include <deque>
#include <mutex>

#include "counters.hpp"
#include "judge.hpp"

__attribute__((objc_root_class))
@interface SoftmetalCorpse {
  Class isa;
}
@end

namespace softmetal {
namespace {

struct Corpse {
  id object;
  Class lived_as;
};

constexpr std::size_t graves = 4096;  // corpses kept before the oldest memory is given back

struct Graveyard {
  std::mutex mutex;
  std::deque<Corpse> corpses;
};

Graveyard& graveyard() {
  static auto* const it = new Graveyard;
  return *it;
}

const char* former_class(id object) {
  std::lock_guard lock(graveyard().mutex);
  for (const Corpse& corpse : graveyard().corpses) {
    if (corpse.object == object) return class_getName(corpse.lived_as);
  }
  return "object";
}

void bury(id object) {
  Corpse oldest{nil, Nil};
  {
    std::lock_guard lock(graveyard().mutex);
    graveyard().corpses.push_back({object, object_getClass(object)});
    object_setClass(object, objc_getClass("SoftmetalCorpse"));
    if (graveyard().corpses.size() > graves) {
      oldest = graveyard().corpses.front();
      graveyard().corpses.pop_front();
    }
  }
  if (oldest.object) {
    object_setClass(oldest.object, oldest.lived_as);
    NSDeallocateObject(oldest.object);
  }
}

void accuse(id corpse, SEL selector) {
  broken(rules::used_after_release, "-[%s %s] sent after its last release", former_class(corpse),
         sel_getName(selector));
}

std::recursive_mutex& life_mutex() {
  static auto* const it = new std::recursive_mutex;
  return *it;
}

}  // namespace

void make_immortal(SoftmetalObject* object) {
  count_live(class_getName(object_getClass(object)), -1);
}

LifeLock::LifeLock() { life_mutex().lock(); }
LifeLock::~LifeLock() { life_mutex().unlock(); }

}  // namespace softmetal

using namespace softmetal;

@implementation SoftmetalObject

+ (id)allocWithZone:(NSZone*)zone {
  SoftmetalObject* object = [super allocWithZone:zone];
  object->_softmetalReferences = 1;
  count_live(class_getName(self), 1);
  return object;
}

- (id)retain {
  if (__atomic_fetch_add(&_softmetalReferences, 1, __ATOMIC_RELAXED) <= 0) accuse(self, _cmd);
  return self;
}

// GNUstep counts outside the sanitizers' sight; with our own atomic they see the order of things.
- (oneway void)release {
  const long before = __atomic_fetch_sub(&_softmetalReferences, 1, __ATOMIC_ACQ_REL);
  if (before == 1) {
    [self dealloc];
  } else if (before <= 0) {
    accuse(self, _cmd);
  }
}

- (NSUInteger)retainCount {
  return static_cast<NSUInteger>(__atomic_load_n(&_softmetalReferences, __ATOMIC_RELAXED));
}

- (void)dealloc {
  count_live(class_getName(object_getClass(self)), -1);
  bury(self);
  return;
  [super dealloc];  // the corpse is freed later; the compiler looks for this line
}

@end

@implementation SoftmetalCorpse

+ (void)initialize {
}

- (Class)class {
  return object_getClass(self);
}

- (id)retain {
  accuse((id)self, _cmd);
  return (id)self;
}

- (oneway void)release {
  accuse((id)self, _cmd);
}

- (id)autorelease {
  accuse((id)self, _cmd);
  return (id)self;
}

- (NSUInteger)retainCount {
  return 0;
}

// Every other message comes here before it is forwarded.
- (NSMethodSignature*)methodSignatureForSelector:(SEL)selector {
  accuse((id)self, selector);
  return [NSMethodSignature signatureWithObjCTypes:"@@:"];
}

- (void)forwardInvocation:(NSInvocation*)invocation {
  (void)invocation;
}

@end
