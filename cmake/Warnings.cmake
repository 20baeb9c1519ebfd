# mpsnn_options: what every target of the project is compiled with.
add_library(mpsnn_options INTERFACE)
target_compile_options(mpsnn_options INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
# gcc 12 sees overlapping copies in ordinary string concatenation (its bug 105329).
target_compile_options(mpsnn_options INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)
if(MPSNN_LOSS_WERROR)
  target_compile_options(mpsnn_options INTERFACE -Werror)
endif()
