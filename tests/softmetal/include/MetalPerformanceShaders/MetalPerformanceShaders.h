// The double's MetalPerformanceShaders: the part that losses, images and their archives need.
#pragma once
#include <Metal/Metal.h>
#include <softmetal/mps_binary_kernel.h>
#include <softmetal/mps_cnn_kernel.h>
#include <softmetal/mps_command_buffer.h>
#include <softmetal/mps_image.h>
#include <softmetal/mps_kernel.h>
#include <softmetal/mps_loss.h>
#include <softmetal/mps_state.h>
#include <softmetal/mps_types.h>
#include <softmetal/mps_unarchiver.h>
