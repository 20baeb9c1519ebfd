# Objective-C++ on Linux: clang, gcc's Objective-C runtime and GNUstep, as
#   apt-get install clang-19 libclang-rt-19-dev llvm-19 libobjc-12-dev libgnustep-base-dev
# Gives the language OBJCXX and the target objcxx_on_linux: what every target with .mm files links.
# Link it after softmetal, whose blocks runtime must be found before GNUstep's. Set LINKER_LANGUAGE
# CXX on such targets (with OBJCXX they get no rpath).
include_guard(GLOBAL)

if(NOT CMAKE_OBJCXX_COMPILER)
  # A full path: CMake takes g++ for a bare name, and g++ knows neither blocks nor literals.
  find_program(MPSNN_LOSS_CLANGXX
    NAMES clang++-19 clang++-18 clang++-17 clang++-16 clang++-15 clang++-14 clang++ REQUIRED)
  set(CMAKE_OBJCXX_COMPILER "${MPSNN_LOSS_CLANGXX}" CACHE FILEPATH "Objective-C++ compiler" FORCE)
endif()
# What launches the C++ compiler, ccache say, comes after: it knows the object as clang wrote it.
set(CMAKE_OBJCXX_COMPILER_LAUNCHER
  "${CMAKE_CURRENT_LIST_DIR}/objcxx_personality" ${CMAKE_CXX_COMPILER_LAUNCHER})
enable_language(OBJCXX)
set(CMAKE_OBJCXX_STANDARD 20)
set(CMAKE_OBJCXX_STANDARD_REQUIRED ON)
set(CMAKE_OBJCXX_EXTENSIONS OFF)

# gcc keeps libobjc.so and the folder of <objc/objc.h> in its own folder, whatever compiles here.
find_program(MPSNN_LOSS_GCC NAMES gcc-12 gcc REQUIRED)
execute_process(COMMAND ${MPSNN_LOSS_GCC} -print-file-name=libobjc.so
  OUTPUT_VARIABLE gcc_libobjc OUTPUT_STRIP_TRAILING_WHITESPACE)
execute_process(COMMAND ${MPSNN_LOSS_GCC} -print-file-name=include
  OUTPUT_VARIABLE gcc_include OUTPUT_STRIP_TRAILING_WHITESPACE)
find_path(MPSNN_LOSS_GNUSTEP NAMES Foundation/Foundation.h PATHS /usr/include/GNUstep REQUIRED)
if(NOT EXISTS "${gcc_libobjc}" OR NOT EXISTS "${gcc_include}/objc/objc.h")
  message(FATAL_ERROR "gcc's Objective-C runtime is missing: apt-get install libobjc-12-dev")
endif()

add_library(objcxx_on_linux INTERFACE)
# -idirafter: gcc's folder also holds its own stddef.h and immintrin.h, which must not win.
target_compile_options(objcxx_on_linux INTERFACE "$<$<COMPILE_LANGUAGE:OBJCXX>:\
-fno-objc-arc;-fobjc-runtime=gcc;-fblocks;-fexceptions;-fobjc-exceptions;\
-fconstant-string-class=NSConstantString;\
SHELL:-idirafter ${MPSNN_LOSS_GNUSTEP};SHELL:-idirafter ${gcc_include}>")
target_link_libraries(objcxx_on_linux INTERFACE "${gcc_libobjc}" gnustep-base)
