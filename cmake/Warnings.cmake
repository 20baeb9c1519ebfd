# mpsnn_options: what every target of the project is compiled with.
add_library(mpsnn_options INTERFACE)
target_compile_options(mpsnn_options INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow
  # No contraction: fused and separate calls must give the same bits (kernels ask for FMA by name).
  -ffp-contract=off)
# gcc 12 sees overlapping copies in ordinary string concatenation (its bug 105329).
target_compile_options(mpsnn_options INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)
# gcc clears small objects with rep stos, which takes as long to start as a tenth of a small call.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  target_compile_options(mpsnn_options INTERFACE
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-mmemset-strategy=vector_loop:1024:noalign,libcall:-1:noalign>)
endif()
if(MPSNN_LOSS_WERROR)
  target_compile_options(mpsnn_options INTERFACE -Werror)
endif()
