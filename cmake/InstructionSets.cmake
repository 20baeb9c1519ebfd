# add_instruction_sets(<target> <source>): compiles one source of kernels once for each level of the
# processor's instruction set, each into a namespace of its own.
function(add_instruction_sets target source)
  set(names baseline)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$" AND NOT CMAKE_OSX_ARCHITECTURES MATCHES "arm64")
    # What a level has and has not is said beside its name: with -mavx512f or -mno-fma in CXXFLAGS,
    # -march alone would not decide.
    set(flags_baseline -march=x86-64-v2 -mno-avx)
    set(flags_v3 -mavx2 -mfma -mf16c)
    set(flags_v4 ${flags_v3} -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl)
    list(APPEND flags_v3 -mno-avx512f)
    foreach(level IN LISTS MPSNN_LOSS_X86_64_LEVELS)
      list(APPEND names x86_64_${level})
      set(flags_x86_64_${level} -march=x86-64-${level} ${flags_${level}})
      string(TOUPPER MPSNN_X86_64_${level} definition)
      target_compile_definitions(${target} PRIVATE ${definition})
    endforeach()
  endif()
  # -O3 also in debug builds: unoptimised vector code is too slow to test with. Sanitizers make it slow to
  # compile too.
  set(optimisation -O3)
  if(MPSNN_LOSS_SANITIZE)
    set(optimisation -O1)
  endif()
  foreach(name IN LISTS names)
    add_library(mpsnn_kernels_${name} OBJECT ${source})
    target_include_directories(mpsnn_kernels_${name} PRIVATE src)
    target_compile_definitions(mpsnn_kernels_${name} PRIVATE MPSNN_ISA=${name})
    # Vectors never cross a translation unit, so the note about their calling convention is moot.
    target_compile_options(mpsnn_kernels_${name} PRIVATE ${flags_${name}} ${optimisation} -Wno-psabi)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # gcc 12 warns of its own AVX-512 intrinsics (its bug 105593).
      target_compile_options(mpsnn_kernels_${name} PRIVATE -Wno-uninitialized
                             -Wno-maybe-uninitialized)
    endif()
    target_link_libraries(mpsnn_kernels_${name} PRIVATE mpsnn_options)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:mpsnn_kernels_${name}>)
  endforeach()
endfunction()
