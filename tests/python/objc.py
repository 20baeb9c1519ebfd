"""What another library in the process does with Metal, through messages to its objects."""

from __future__ import annotations

from mpsnn_loss._conformance.objective_c import array_of, autorelease_pool, class_named, send

FLOAT32, PRIVATE, SHADER_READ_AND_WRITE = 4, 2, 3  # of Apple's enumerations


def retained(address: int) -> int:
    """Its object outlives the pool it came from: release it."""
    return int(send(address, "retain"))


def release(address: int) -> None:
    with autorelease_pool():
        send(address, "release")


def command_buffer(queue: int) -> int:
    """A new id<MTLCommandBuffer>, retained."""
    with autorelease_pool():
        return retained(send(queue, "commandBuffer"))


def continuing_command_buffer(queue: int) -> int:
    """A new MPSCommandBuffer, retained: after commitAndContinue it goes on with another."""
    with autorelease_pool():
        name = "commandBufferFromCommandQueue:"
        return retained(send(class_named("MPSCommandBuffer"), name, queue))


def commit_and_continue(buffer: int) -> None:
    with autorelease_pool():
        send(buffer, "commitAndContinue")


def commit_and_wait(buffer: int) -> None:
    with autorelease_pool():
        send(buffer, "commit")
        send(buffer, "waitUntilCompleted")


def _image_descriptor(shape: tuple[int, int, int], images: int = 1) -> int:
    height, width, channels = shape
    name = "imageDescriptorWithChannelFormat:width:height:featureChannels:numberOfImages:usage:"
    kind = class_named("MPSImageDescriptor")
    numbers = (FLOAT32, width, height, channels, images, SHADER_READ_AND_WRITE)
    return int(send(kind, name, *numbers))


def _image(device: int, descriptor: int) -> int:
    fresh = send(class_named("MPSImage"), "alloc")
    return int(send(fresh, "initWithDevice:imageDescriptor:", device, descriptor))


def image_of_several(device: int, shape: tuple[int, int, int], images: int) -> int:
    """A new MPSImage of float32 that holds several images, retained."""
    with autorelease_pool():
        return _image(device, _image_descriptor(shape, images))


def private_images(device: int, shape: tuple[int, int, int], count: int) -> int:
    """An NSArray of MPSImage in storage that the host cannot see, retained."""
    with autorelease_pool():
        descriptor = _image_descriptor(shape)
        send(descriptor, "setStorageMode:", PRIVATE)
        images = [_image(device, descriptor) for _ in range(count)]
        array = retained(array_of(images))
        for each in images:
            send(each, "release")
        return array


def temporary_images(buffer: int, shape: tuple[int, int, int], count: int, reads: int) -> int:
    """An NSArray of MPSTemporaryImage to be read so many times, retained."""
    name = "temporaryImageWithCommandBuffer:imageDescriptor:"
    with autorelease_pool():
        descriptor = _image_descriptor(shape)
        kind = class_named("MPSTemporaryImage")
        images = [send(kind, name, buffer, descriptor) for _ in range(count)]
        for each in images:
            send(each, "setReadCount:", reads)
        return retained(array_of(images))
