# mpsnn_metal: the Metal backend, against Apple's frameworks or, on Linux, against the double of
# tests/softmetal.
if(APPLE)
  enable_language(OBJCXX)
  set(CMAKE_OBJCXX_STANDARD 20)
  # CoreGraphics: without it MTLCreateSystemDefaultDevice returns nil to a command-line process.
  set(metal_libraries "-framework CoreGraphics" "-framework Foundation" "-framework Metal"
    "-framework MetalPerformanceShaders")
else()
  include(cmake/ObjCxxOnLinux.cmake)
  add_subdirectory(tests/softmetal)
  set(metal_libraries softmetal)
endif()

# Objects, not an archive: a linker would drop what only the Objective-C runtime refers to.
add_library(mpsnn_metal OBJECT
  src/metal/array_calls.mm src/metal/array_layout.mm src/metal/command_buffer.mm src/metal/device.mm
  src/metal/encode.mm src/metal/foreign_buffer.mm src/metal/foreign_images.mm src/metal/images.mm
  src/metal/inherited_access.mm src/metal/kernel_objects.mm src/metal/kernel_pool.mm src/metal/kernels.mm
  src/metal/objc_guard.mm src/metal/process.mm src/metal/queue.mm src/metal/result_allocator.mm)
target_link_libraries(mpsnn_metal PUBLIC mpsnn_core ${metal_libraries})
target_compile_options(mpsnn_metal PRIVATE -fno-objc-arc)
