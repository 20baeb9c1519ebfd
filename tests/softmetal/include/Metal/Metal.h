// The double's Metal: the names and meanings of Apple's public API, in our own text.
#pragma once
#include <softmetal/metal_device.h>
