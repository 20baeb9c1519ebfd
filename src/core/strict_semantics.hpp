// What every number here relies on. The build sets it after the flags of the environment
// (cmake/StrictSemantics.cmake); a build that does without stops here rather than compute other
// numbers.
#pragma once

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    defined(__NO_SIGNED_ZEROS__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ != 0)
#error "mpsnn_loss needs strict floating point: compile without -ffast-math, -Ofast and their parts"
#endif

#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#error "mpsnn_loss needs float and double to be computed as such: compile without -mfpmath=387"
#endif

#if !defined(__cpp_threadsafe_static_init)
#error "mpsnn_loss is used by many threads: compile without -fno-threadsafe-statics"
#endif

static_assert(sizeof(0.1) == sizeof(double),
              "constants without a suffix are double: no -fsingle-precision-constant");
