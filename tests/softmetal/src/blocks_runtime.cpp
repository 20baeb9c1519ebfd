// A blocks runtime after clang's published Block ABI ("Block Implementation Specification"). The
// one in libgnustep-base 1.28 does not retain the objects that a copied block captures; Apple's
// does.
#include <atomic>
#include <cstdlib>
#include <cstring>

namespace {

enum : int {
  refcount_mask = 0xffff,
  needs_free = 1 << 24,
  has_copy_dispose = 1 << 25,
  is_global = 1 << 28,
};

enum : int { field_is_object = 3, field_is_block = 7, field_is_byref = 8, byref_caller = 128 };

struct Descriptor {
  unsigned long reserved, size;
  void (*copy)(void* to, const void* from);
  void (*dispose)(const void* block);
};

struct Block {
  void* isa;
  std::atomic<int> flags;
  int reserved;
  void* invoke;
  Descriptor* descriptor;
};

struct Byref {  // storage of a __block variable
  void* isa;
  Byref* forwarding;
  std::atomic<int> flags;
  int size;
  void (*keep)(Byref* to, Byref* from);
  void (*dispose)(Byref* byref);
};

extern "C" {
void* objc_msg_lookup(void* receiver, void* selector);
void* sel_registerName(const char* name);
}

void* send(const void* object, const char* name) {
  using Method = void* (*)(void*, void*);
  if (!object) return nullptr;
  void* const selector = sel_registerName(name);
  void* const self = const_cast<void*>(object);
  return reinterpret_cast<Method>(objc_msg_lookup(self, selector))(self, selector);
}

Byref* copy_byref(Byref* from) {
  Byref* live = from->forwarding;
  if (live->flags & needs_free) {
    ++live->flags;
    return live;
  }
  auto* to = static_cast<Byref*>(std::malloc(static_cast<std::size_t>(live->size)));
  std::memcpy(static_cast<void*>(to), static_cast<void*>(live),
              static_cast<std::size_t>(live->size));
  to->flags = (live->flags & ~refcount_mask) | needs_free | 2;  // the block's and the scope's
  to->forwarding = to;
  live->forwarding = to;
  if (live->flags & has_copy_dispose) live->keep(to, live);
  return to;
}

void release_byref(const void* object) {
  Byref* live = static_cast<const Byref*>(object)->forwarding;
  if (!(live->flags & needs_free)) return;
  if ((live->flags-- & refcount_mask) > 1) return;
  if (live->flags & has_copy_dispose) live->dispose(live);
  std::free(live);
}

}  // namespace

#define SOFTMETAL_BLOCKS extern "C" __attribute__((visibility("default")))

// Only their addresses matter: nothing sends messages to blocks here.
SOFTMETAL_BLOCKS void* _NSConcreteStackBlock[32];
SOFTMETAL_BLOCKS void* _NSConcreteGlobalBlock[32];
SOFTMETAL_BLOCKS void* _NSConcreteMallocBlock[32];
void* _NSConcreteStackBlock[32] = {};
void* _NSConcreteGlobalBlock[32] = {};
void* _NSConcreteMallocBlock[32] = {};

SOFTMETAL_BLOCKS void* _Block_copy(const void* argument) {
  auto* from = static_cast<Block*>(const_cast<void*>(argument));
  if (!from || (from->flags & is_global)) return from;
  if (from->flags & needs_free) {
    ++from->flags;
    return from;
  }
  auto* to = static_cast<Block*>(std::malloc(from->descriptor->size));
  std::memcpy(static_cast<void*>(to), static_cast<void*>(from), from->descriptor->size);
  to->isa = _NSConcreteMallocBlock;
  to->flags = (from->flags & ~refcount_mask) | needs_free | 1;
  if (to->flags & has_copy_dispose) to->descriptor->copy(to, from);
  return to;
}

SOFTMETAL_BLOCKS void _Block_release(const void* argument) {
  auto* block = static_cast<Block*>(const_cast<void*>(argument));
  if (!block || !(block->flags & needs_free)) return;
  if ((block->flags-- & refcount_mask) > 1) return;
  if (block->flags & has_copy_dispose) block->descriptor->dispose(block);
  std::free(block);
}

SOFTMETAL_BLOCKS void _Block_object_assign(void* to, const void* object, int kind) {
  const void*& field = *static_cast<const void**>(to);
  if (kind & byref_caller) {  // inside a __block variable: not retained without ARC
    field = object;
  } else if ((kind & field_is_byref) == field_is_byref) {
    field = copy_byref(static_cast<Byref*>(const_cast<void*>(object)));
  } else if ((kind & field_is_block) == field_is_block) {
    field = _Block_copy(object);
  } else {
    field = send(object, "retain");
  }
}

SOFTMETAL_BLOCKS void _Block_object_dispose(const void* object, int kind) {
  if (kind & byref_caller) return;
  if ((kind & field_is_byref) == field_is_byref) {
    release_byref(object);
  } else if ((kind & field_is_block) == field_is_block) {
    _Block_release(object);
  } else {
    send(object, "release");
  }
}
