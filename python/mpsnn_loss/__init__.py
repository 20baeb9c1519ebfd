"""Apple's MPSNNForwardLoss and MPSNNLossGradient for NumPy.

On a Mac the kernels of Metal Performance Shaders compute; everywhere else, and for float64, the CPU
engine computes the same contract. README.md has the formulas and examples.
"""

from mpsnn_loss._core import (
    CommandBuffer,
    CommandBufferStatus,
    CommandQueue,
    Device,
    DeviceError,
    MPSCNNBinaryKernel,
    MPSCNNKernel,
    MPSCNNLossDescriptor,
    MPSCNNLossType,
    MPSCNNReductionType,
    MPSDataLayout,
    MPSImage,
    MPSImageBatch,
    MPSImageDescriptor,
    MPSImageEdgeMode,
    MPSKernel,
    MPSKernelOptions,
    MPSNNForwardLoss,
    MPSNNInitialGradient,
    MPSNNLossGradient,
    MPSNNPaddingMethod,
    MPSState,
    __version__,
    build_info,
    cpu_device,
    default_device,
    devices,
    get_num_threads,
    loss,
    loss_and_gradient,
    loss_gradient,
    loss_gradient_and_hessian,
    reduction_divisor,
    set_num_threads,
)

TYPE_CHECKING = False  # as typing has it, whose import takes longer than all else here
if TYPE_CHECKING:
    from mpsnn_loss._names import LossName, ReductionName

__all__ = [
    "CommandBuffer",
    "CommandBufferStatus",
    "CommandQueue",
    "Device",
    "DeviceError",
    "LossName",
    "MPSCNNBinaryKernel",
    "MPSCNNKernel",
    "MPSCNNLossDescriptor",
    "MPSCNNLossType",
    "MPSCNNReductionType",
    "MPSDataLayout",
    "MPSImage",
    "MPSImageBatch",
    "MPSImageDescriptor",
    "MPSImageEdgeMode",
    "MPSKernel",
    "MPSKernelOptions",
    "MPSNNForwardLoss",
    "MPSNNInitialGradient",
    "MPSNNLossGradient",
    "MPSNNPaddingMethod",
    "MPSState",
    "ReductionName",
    "__version__",
    "build_info",
    "cpu_device",
    "default_device",
    "devices",
    "get_num_threads",
    "loss",
    "loss_and_gradient",
    "loss_gradient",
    "loss_gradient_and_hessian",
    "reduction_divisor",
    "set_num_threads",
]


def __getattr__(name: str) -> object:
    """LossName and ReductionName, when they are asked for."""
    if name not in ("LossName", "ReductionName"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mpsnn_loss import _names

    return globals().setdefault(name, getattr(_names, name))
