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
  src/metal/find_devices.mm
  src/metal/arrays/array_layout.mm src/metal/arrays/engine.mm src/metal/arrays/kernel_pool.mm
  src/metal/arrays/packed_call.mm
  src/metal/mps/encode.mm src/metal/mps/images.mm src/metal/objects/inherited_access.mm
  src/metal/mps/kernel_objects.mm src/metal/mps/objc_guard.mm src/metal/mps/process.mm
  src/metal/objects/command_buffer.mm src/metal/objects/device.mm src/metal/objects/encode.mm
  src/metal/objects/foreign.mm src/metal/objects/foreign_buffer.mm
  src/metal/objects/foreign_images.mm src/metal/objects/images.mm src/metal/objects/kernels.mm
  src/metal/objects/queue.mm src/metal/objects/result_allocator.mm)
target_link_libraries(mpsnn_metal PUBLIC mpsnn_objects ${metal_libraries})
target_compile_options(mpsnn_metal PRIVATE -fno-objc-arc)
