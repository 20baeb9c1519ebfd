# What the sources assume of the compiler, said last on every compile and link line, so that nothing in
# CXXFLAGS, CFLAGS or LDFLAGS can take it away: they are for optimisation, hardening and paths.
# core/strict_semantics.hpp refuses what gets past this. Needs the target mpsnn_options.
include(CheckLinkerFlag)

set(strict_semantics
  # No contraction: fused and separate calls must give the same bits (kernels ask for FMA by name).
  -ffp-contract=off
  # No -ffast-math and no -Ofast, whole or in parts.
  -fno-fast-math -fno-unsafe-math-optimizations -fno-associative-math -fno-reciprocal-math
  -fno-finite-math-only -fsigned-zeros -fno-rounding-math
  # The language, and the layout of types that are shared with the C++ library and Python.
  -fexceptions -frtti -fthreadsafe-statics -faligned-new -fno-short-enums -fno-pack-struct
  # Neither another runtime nor code of one instruction set inlined into that of another.
  -fno-openmp -fno-lto)
set(only_gnu -ftrapping-math -fno-signaling-nans -fno-single-precision-constant)
set(only_clang -fno-approx-func -fno-trapping-math -fdenormal-fp-math=ieee)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND only_gnu -mfpmath=sse)
endif()
set(by_clang
  "$<OR:$<COMPILE_LANG_AND_ID:CXX,Clang,AppleClang>,$<COMPILE_LANG_AND_ID:OBJCXX,Clang,AppleClang>>")
target_compile_options(mpsnn_options INTERFACE
  ${strict_semantics} "$<$<COMPILE_LANG_AND_ID:CXX,GNU>:${only_gnu}>" "$<${by_clang}:${only_clang}>")

# With -ffast-math or -Ofast a compiler links crtfastmath.o, which sets flush-to-zero in every process
# that loads the result. Here -O says no more than that it is not -Ofast.
target_link_options(mpsnn_options INTERFACE
  -O2 -fno-fast-math -fno-unsafe-math-optimizations -fno-openmp -fno-lto)
check_linker_flag(CXX -mno-daz-ftz MPSNN_LOSS_HAS_MNO_DAZ_FTZ)
if(MPSNN_LOSS_HAS_MNO_DAZ_FTZ)
  target_link_options(mpsnn_options INTERFACE -mno-daz-ftz)
endif()

# gcc links an object for these too, and nothing takes it back.
foreach(flags IN ITEMS CMAKE_CXX_FLAGS CMAKE_CXX_FLAGS_RELEASE CMAKE_MODULE_LINKER_FLAGS)
  if("${${flags}}" MATCHES "-mpc(32|64|80)")
    message(FATAL_ERROR "${flags}: expected no -mpc32, -mpc64 or -mpc80, which set the precision of "
      "long double in every process that loads the extension, got '${${flags}}'")
  endif()
endforeach()
