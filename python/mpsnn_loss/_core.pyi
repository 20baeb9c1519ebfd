# The types of the compiled module, kept by hand and compared with it by mypy.stubtest, names and
# defaults of arguments included. Names with an underscore exist for type checkers only.

from collections.abc import Callable, Sequence
from ctypes import c_void_p
from enum import IntEnum, IntFlag
from types import TracebackType
from typing import (
    Any,
    ClassVar,
    Literal,
    Protocol,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    overload,
)

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import Buffer, CapsuleType, Never, Self, TypeVar, disjoint_base

from mpsnn_loss._names import AppleReductionName, LossName, ReductionName

__version__: str

# --- What arguments may be ---

_Array: TypeAlias = NDArray[np.floating[Any]]  # float16, float32 or float64
_Bytes: TypeAlias = Buffer | NDArray[Any]  # NumPy declares arrays as buffers from Python 3.12 on
_Real: TypeAlias = SupportsFloat | SupportsIndex
_Bool: TypeAlias = bool | np.bool_
_Offset: TypeAlias = tuple[int, int, int]
_OffsetLike: TypeAlias = tuple[SupportsIndex, SupportsIndex, SupportsIndex]

class _Tensor(Protocol):  # what speaks DLPack, in whichever words: of NumPy, PyTorch and others
    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...

_ArrayLike: TypeAlias = ArrayLike | _Tensor
# Destinations, which are the results then.
_Out = TypeVar("_Out", bound=_Tensor, default=_Array)
_LossOut = TypeVar("_LossOut", bound=_Tensor, default=_Array)
_HessianOut = TypeVar("_HessianOut", bound=_Tensor, default=_Array)
_Images: TypeAlias = MPSImageBatch | Sequence[MPSImage] | _Array | memoryview[Any] | _Tensor
_States: TypeAlias = MPSState | Sequence[MPSState]
_ChannelFormat: TypeAlias = Literal["float16", "float32", "float64"]
_Allocator: TypeAlias = Literal["temporary_image", "image"]

class _ObjectOfPyObjC(Protocol):
    def __c_void_p__(self) -> c_void_p: ...

_Pointer: TypeAlias = SupportsIndex | _ObjectOfPyObjC
_Wrt: TypeAlias = Literal["predictions", "labels"]

# Wherever an enumeration is accepted, so are the lower-case name and the raw value.
# The names are there for completion: a variable may be any str.
_LossTypeLike: TypeAlias = MPSCNNLossType | LossName | str | int
_AppleReductionTypeLike: TypeAlias = MPSCNNReductionType | AppleReductionName | str | int
_ReductionTypeLike: TypeAlias = _AppleReductionTypeLike | ReductionName
_NoReduction: TypeAlias = Literal[MPSCNNReductionType.NONE, "none", 0]
_AnyReduction: TypeAlias = Literal[
    MPSCNNReductionType.SUM,
    MPSCNNReductionType.MEAN,
    MPSCNNReductionType.SUM_BY_NON_ZERO_WEIGHTS,
    "sum",
    "mean",
    "sum_by_non_zero_weights",
    "mean_by_weights",
    1,
    2,
    3,
]
_EdgeModeLike: TypeAlias = (
    MPSImageEdgeMode | Literal["zero", "clamp", "mirror", "mirror_with_edge", "constant"] | int
)
_DataLayoutLike: TypeAlias = (
    MPSDataLayout
    | Literal["height_x_width_x_feature_channels", "feature_channels_x_height_x_width"]
    | int
)
_KernelOptionsLike: TypeAlias = (
    MPSKernelOptions
    | Literal[
        "none",
        "skip_api_validation",
        "allow_reduced_precision",
        "disable_internal_tiling",
        "insert_debug_groups",
        "verbose",
    ]
    | int
)
_PaddingMethodLike: TypeAlias = (
    MPSNNPaddingMethod
    | Literal[
        "align_centered",
        "align_top_left",
        "align_bottom_right",
        "add_remainder_to_top_right",
        "add_remainder_to_bottom_left",
        "add_remainder_to_bottom_right",
        "size_same",
        "size_full",
        "size_reserved",
        "size_mask",
        "custom_allow_for_node_fusion",
        "custom",
        "exclude_edges",
    ]
    | int
)

# --- Errors and enumerations ---

class DeviceError(RuntimeError): ...

class MPSCNNLossType(IntEnum):
    MEAN_ABSOLUTE_ERROR = 0
    MEAN_SQUARED_ERROR = 1
    SOFTMAX_CROSS_ENTROPY = 2
    SIGMOID_CROSS_ENTROPY = 3
    CATEGORICAL_CROSS_ENTROPY = 4
    HINGE = 5
    HUBER = 6
    COSINE_DISTANCE = 7
    LOG = 8
    KULLBACK_LEIBLER_DIVERGENCE = 9

class MPSCNNReductionType(IntEnum):
    NONE = 0
    SUM = 1
    MEAN = 2
    SUM_BY_NON_ZERO_WEIGHTS = 3

class CommandBufferStatus(IntEnum):
    NOT_ENQUEUED = 0
    ENQUEUED = 1
    COMMITTED = 2
    SCHEDULED = 3
    COMPLETED = 4
    ERROR = 5

class MPSImageEdgeMode(IntEnum):
    ZERO = 0
    CLAMP = 1
    MIRROR = 2
    MIRROR_WITH_EDGE = 3
    CONSTANT = 4

class MPSDataLayout(IntEnum):
    HEIGHT_X_WIDTH_X_FEATURE_CHANNELS = 0
    FEATURE_CHANNELS_X_HEIGHT_X_WIDTH = 1

class MPSKernelOptions(IntFlag):
    NONE = 0
    SKIP_API_VALIDATION = 1
    ALLOW_REDUCED_PRECISION = 2
    DISABLE_INTERNAL_TILING = 4
    INSERT_DEBUG_GROUPS = 8
    VERBOSE = 16

class MPSNNPaddingMethod(IntFlag):
    ALIGN_CENTERED = 0
    ALIGN_TOP_LEFT = 1
    ALIGN_BOTTOM_RIGHT = 2
    ADD_REMAINDER_TO_TOP_RIGHT = 4
    ADD_REMAINDER_TO_BOTTOM_LEFT = 8
    ADD_REMAINDER_TO_BOTTOM_RIGHT = 12
    SIZE_SAME = 16
    SIZE_FULL = 32
    SIZE_RESERVED = 48
    SIZE_MASK = 2032
    CUSTOM_ALLOW_FOR_NODE_FUSION = 8192
    CUSTOM = 16384
    EXCLUDE_EDGES = 32768

# pybind11's base of every class below; as at run time, only those with an __init__ can be called.
# pybind11 has its own metaclass, and stubtest wants one named; this one gets along with ABCMeta.
class _Object(metaclass=type):  # noqa: UP050
    def __init__(self, no_constructor: Never, /) -> None: ...

# --- Devices, queues and command buffers ---

@disjoint_base
class Device(_Object):
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Literal["cpu", "metal"]: ...
    @property
    def objc_pointer(self) -> int | None: ...
    @staticmethod
    def from_objc_pointer(pointer: _Pointer) -> Device: ...
    def supports(self, x: MPSCNNLossDescriptor | MPSKernel | DTypeLike) -> tuple[bool, str]: ...
    def make_command_queue(self, label: str | None = None) -> CommandQueue: ...

@disjoint_base
class CommandQueue(_Object):
    @property
    def device(self) -> Device: ...
    @property
    def label(self) -> str | None: ...
    @property
    def objc_pointer(self) -> int | None: ...
    @staticmethod
    def from_objc_pointer(pointer: _Pointer) -> CommandQueue: ...
    def make_command_buffer(self, label: str | None = None) -> CommandBuffer: ...

@disjoint_base
class CommandBuffer(_Object):
    @property
    def status(self) -> CommandBufferStatus: ...
    @property
    def label(self) -> str | None: ...
    @property
    def device(self) -> Device: ...
    @property
    def error(self) -> DeviceError | None: ...
    @property
    def gpu_start_time(self) -> float: ...
    @property
    def gpu_end_time(self) -> float: ...
    @property
    def objc_pointer(self) -> int | None: ...
    @staticmethod
    def from_objc_pointer(pointer: _Pointer) -> CommandBuffer: ...
    def enqueue(self) -> None: ...
    def commit(self) -> None: ...
    def wait_until_completed(self, timeout: _Real | None = None) -> None: ...
    def add_completed_handler(self, handler: Callable[[CommandBuffer], object]) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

# --- Descriptors ---

@disjoint_base
class MPSCNNLossDescriptor(_Object):
    def __init__(
        self,
        loss_type: _LossTypeLike,
        reduction_type: _AppleReductionTypeLike = MPSCNNReductionType.NONE,
        *,
        reduce_across_batch: _Bool = False,
        weight: _Real = 1.0,
        label_smoothing: _Real = 0.0,
        number_of_classes: SupportsIndex = 1,
        epsilon: _Real = 1e-7,
        delta: _Real = 1.0,
    ) -> None: ...
    @property
    def loss_type(self) -> MPSCNNLossType: ...
    @loss_type.setter
    def loss_type(self, value: _LossTypeLike, /) -> None: ...
    @property
    def reduction_type(self) -> MPSCNNReductionType: ...
    @reduction_type.setter
    def reduction_type(self, value: _AppleReductionTypeLike, /) -> None: ...
    @property
    def reduce_across_batch(self) -> bool: ...
    @reduce_across_batch.setter
    def reduce_across_batch(self, value: _Bool, /) -> None: ...
    @property
    def number_of_classes(self) -> int: ...
    @number_of_classes.setter
    def number_of_classes(self, value: SupportsIndex, /) -> None: ...
    @property
    def weight(self) -> float: ...
    @weight.setter
    def weight(self, value: _Real, /) -> None: ...
    @property
    def label_smoothing(self) -> float: ...
    @label_smoothing.setter
    def label_smoothing(self, value: _Real, /) -> None: ...
    @property
    def epsilon(self) -> float: ...
    @epsilon.setter
    def epsilon(self, value: _Real, /) -> None: ...
    @property
    def delta(self) -> float: ...
    @delta.setter
    def delta(self, value: _Real, /) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __copy__(self) -> MPSCNNLossDescriptor: ...
    def __deepcopy__(self, memo: dict[int, Any], /) -> MPSCNNLossDescriptor: ...

@disjoint_base
class MPSImageDescriptor(_Object):
    def __init__(
        self,
        channel_format: _ChannelFormat = "float32",
        *,
        width: SupportsIndex,
        height: SupportsIndex,
        feature_channels: SupportsIndex,
    ) -> None: ...
    @property
    def channel_format(self) -> _ChannelFormat: ...
    @channel_format.setter
    def channel_format(self, value: _ChannelFormat, /) -> None: ...
    @property
    def width(self) -> int: ...
    @width.setter
    def width(self, value: SupportsIndex, /) -> None: ...
    @property
    def height(self) -> int: ...
    @height.setter
    def height(self, value: SupportsIndex, /) -> None: ...
    @property
    def feature_channels(self) -> int: ...
    @feature_channels.setter
    def feature_channels(self, value: SupportsIndex, /) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __copy__(self) -> MPSImageDescriptor: ...
    def __deepcopy__(self, memo: dict[int, Any], /) -> MPSImageDescriptor: ...

# --- Images and states ---

@disjoint_base
class MPSImage(_Object):
    def __init__(self, device: Device, descriptor: MPSImageDescriptor) -> None: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def feature_channels(self) -> int: ...
    @property
    def channel_format(self) -> _ChannelFormat: ...
    @property
    def device(self) -> Device: ...
    @property
    def label(self) -> str | None: ...
    @label.setter
    def label(self, value: str | None, /) -> None: ...
    @property
    def objc_pointer(self) -> int | None: ...
    @staticmethod
    def from_objc_pointer(pointer: _Pointer) -> MPSImage: ...
    def read_bytes(
        self, data_layout: _DataLayoutLike = 0, image_index: SupportsIndex = 0
    ) -> bytes: ...
    def write_bytes(
        self, data: _Bytes, data_layout: _DataLayoutLike = 0, image_index: SupportsIndex = 0
    ) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    @overload
    def __array__(self, dtype: None = None, copy: bool | None = None) -> _Array: ...
    @overload
    def __array__(self, dtype: DTypeLike, copy: bool | None = None) -> NDArray[Any]: ...
    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@disjoint_base
class MPSImageBatch(_Object, Sequence[MPSImage]):
    @staticmethod
    def from_array(device: Device, array: _ArrayLike) -> MPSImageBatch: ...
    @staticmethod
    def from_objc_pointer(pointer: _Pointer) -> MPSImageBatch: ...
    def to_array(self, out: _Out | None = None) -> _Out: ...
    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def dtype(self) -> np.dtype[np.floating[Any]]: ...
    @property
    def device(self) -> Device: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> MPSImage: ...
    @overload
    def __getitem__(self, index: slice) -> list[MPSImage]: ...
    def __contains__(self, image: object, /) -> bool: ...
    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int: ...
    def count(self, value: Any) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    @overload
    def __array__(self, dtype: None = None, copy: bool | None = None) -> _Array: ...
    @overload
    def __array__(self, dtype: DTypeLike, copy: bool | None = None) -> NDArray[Any]: ...
    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

@disjoint_base
class MPSState(_Object):
    @property
    def weight(self) -> float: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def delta(self) -> float: ...
    @property
    def device(self) -> Device: ...
    @property
    def label(self) -> str | None: ...
    @label.setter
    def label(self, value: str | None, /) -> None: ...

# --- Kernels ---

@disjoint_base
class MPSKernel(_Object):
    @property
    def device(self) -> Device: ...
    @property
    def label(self) -> str | None: ...
    @label.setter
    def label(self, value: str | None, /) -> None: ...
    @property
    def options(self) -> MPSKernelOptions: ...
    @options.setter
    def options(self, value: _KernelOptionsLike, /) -> None: ...
    @property
    def debug_description(self) -> str: ...
    @property
    def objc_pointer(self) -> int | None: ...

@disjoint_base
class MPSCNNKernel(MPSKernel):
    @property
    def offset(self) -> _Offset: ...
    @offset.setter
    def offset(self, value: _OffsetLike, /) -> None: ...
    @property
    def clip_rect(self) -> tuple[_Offset, _Offset] | None: ...
    @clip_rect.setter
    def clip_rect(self, value: tuple[_OffsetLike, _OffsetLike] | None, /) -> None: ...
    @property
    def destination_feature_channel_offset(self) -> int: ...
    @destination_feature_channel_offset.setter
    def destination_feature_channel_offset(self, value: SupportsIndex, /) -> None: ...
    @property
    def source_feature_channel_offset(self) -> int: ...
    @source_feature_channel_offset.setter
    def source_feature_channel_offset(self, value: SupportsIndex, /) -> None: ...
    @property
    def source_feature_channel_max_count(self) -> int: ...
    @source_feature_channel_max_count.setter
    def source_feature_channel_max_count(self, value: SupportsIndex, /) -> None: ...
    @property
    def edge_mode(self) -> MPSImageEdgeMode: ...
    @edge_mode.setter
    def edge_mode(self, value: _EdgeModeLike, /) -> None: ...
    @property
    def kernel_width(self) -> int: ...
    @property
    def kernel_height(self) -> int: ...
    @property
    def stride_in_pixels_x(self) -> int: ...
    @property
    def stride_in_pixels_y(self) -> int: ...
    @property
    def dilation_rate_x(self) -> int: ...
    @property
    def dilation_rate_y(self) -> int: ...
    @property
    def is_backwards(self) -> bool: ...
    @property
    def is_state_modified(self) -> bool: ...
    @property
    def padding(self) -> MPSNNPaddingMethod: ...
    @padding.setter
    def padding(self, value: _PaddingMethodLike, /) -> None: ...
    @property
    def destination_image_allocator(self) -> _Allocator: ...
    @destination_image_allocator.setter
    def destination_image_allocator(self, value: _Allocator, /) -> None: ...

@disjoint_base
class MPSCNNBinaryKernel(MPSKernel):
    @property
    def primary_offset(self) -> _Offset: ...
    @primary_offset.setter
    def primary_offset(self, value: _OffsetLike, /) -> None: ...
    @property
    def secondary_offset(self) -> _Offset: ...
    @secondary_offset.setter
    def secondary_offset(self, value: _OffsetLike, /) -> None: ...
    @property
    def clip_rect(self) -> tuple[_Offset, _Offset] | None: ...
    @clip_rect.setter
    def clip_rect(self, value: tuple[_OffsetLike, _OffsetLike] | None, /) -> None: ...
    @property
    def destination_feature_channel_offset(self) -> int: ...
    @destination_feature_channel_offset.setter
    def destination_feature_channel_offset(self, value: SupportsIndex, /) -> None: ...
    @property
    def primary_source_feature_channel_offset(self) -> int: ...
    @primary_source_feature_channel_offset.setter
    def primary_source_feature_channel_offset(self, value: SupportsIndex, /) -> None: ...
    @property
    def secondary_source_feature_channel_offset(self) -> int: ...
    @secondary_source_feature_channel_offset.setter
    def secondary_source_feature_channel_offset(self, value: SupportsIndex, /) -> None: ...
    @property
    def primary_source_feature_channel_max_count(self) -> int: ...
    @primary_source_feature_channel_max_count.setter
    def primary_source_feature_channel_max_count(self, value: SupportsIndex, /) -> None: ...
    @property
    def secondary_source_feature_channel_max_count(self) -> int: ...
    @secondary_source_feature_channel_max_count.setter
    def secondary_source_feature_channel_max_count(self, value: SupportsIndex, /) -> None: ...
    @property
    def primary_edge_mode(self) -> MPSImageEdgeMode: ...
    @primary_edge_mode.setter
    def primary_edge_mode(self, value: _EdgeModeLike, /) -> None: ...
    @property
    def secondary_edge_mode(self) -> MPSImageEdgeMode: ...
    @secondary_edge_mode.setter
    def secondary_edge_mode(self, value: _EdgeModeLike, /) -> None: ...
    @property
    def primary_kernel_width(self) -> int: ...
    @property
    def primary_kernel_height(self) -> int: ...
    @property
    def secondary_kernel_width(self) -> int: ...
    @property
    def secondary_kernel_height(self) -> int: ...
    @property
    def primary_stride_in_pixels_x(self) -> int: ...
    @primary_stride_in_pixels_x.setter
    def primary_stride_in_pixels_x(self, value: SupportsIndex, /) -> None: ...
    @property
    def primary_stride_in_pixels_y(self) -> int: ...
    @primary_stride_in_pixels_y.setter
    def primary_stride_in_pixels_y(self, value: SupportsIndex, /) -> None: ...
    @property
    def secondary_stride_in_pixels_x(self) -> int: ...
    @secondary_stride_in_pixels_x.setter
    def secondary_stride_in_pixels_x(self, value: SupportsIndex, /) -> None: ...
    @property
    def secondary_stride_in_pixels_y(self) -> int: ...
    @secondary_stride_in_pixels_y.setter
    def secondary_stride_in_pixels_y(self, value: SupportsIndex, /) -> None: ...
    @property
    def primary_dilation_rate_x(self) -> int: ...
    @property
    def primary_dilation_rate_y(self) -> int: ...
    @property
    def secondary_dilation_rate_x(self) -> int: ...
    @property
    def secondary_dilation_rate_y(self) -> int: ...
    @property
    def is_backwards(self) -> bool: ...
    @property
    def is_state_modified(self) -> bool: ...
    @property
    def padding(self) -> MPSNNPaddingMethod: ...
    @padding.setter
    def padding(self, value: _PaddingMethodLike, /) -> None: ...
    @property
    def destination_image_allocator(self) -> _Allocator: ...
    @destination_image_allocator.setter
    def destination_image_allocator(self, value: _Allocator, /) -> None: ...

@disjoint_base
class MPSNNForwardLoss(MPSCNNKernel):
    def __init__(self, device: Device, loss_descriptor: MPSCNNLossDescriptor) -> None: ...
    @property
    def loss_type(self) -> MPSCNNLossType: ...
    @property
    def reduction_type(self) -> MPSCNNReductionType: ...
    @property
    def reduce_across_batch(self) -> bool: ...
    @property
    def number_of_classes(self) -> int: ...
    @property
    def weight(self) -> float: ...
    @weight.setter
    def weight(self, value: _Real, /) -> None: ...
    @property
    def label_smoothing(self) -> float: ...
    @label_smoothing.setter
    def label_smoothing(self, value: _Real, /) -> None: ...
    @property
    def epsilon(self) -> float: ...
    @epsilon.setter
    def epsilon(self, value: _Real, /) -> None: ...
    @property
    def delta(self) -> float: ...
    @delta.setter
    def delta(self, value: _Real, /) -> None: ...
    def encode_batch(
        self,
        command_buffer: CommandBuffer,
        source_images: _Images,
        labels: _Images,
        weights: _Images | None = None,
        *,
        destination_states: _States | None = None,
        destination_images: _Images | None = None,
        allocator: _Allocator | None = None,
    ) -> MPSImageBatch: ...
    def result_state_batch(self, source_images: _Images) -> list[MPSState]: ...
    def __call__(
        self,
        predictions: _Images,
        labels: _Images,
        weights: _Images | None = None,
        out: _Out | None = None,
    ) -> _Out: ...
    def copy(self, device: Device | None = None) -> MPSNNForwardLoss: ...
    def __copy__(self) -> MPSNNForwardLoss: ...
    def __deepcopy__(self, memo: dict[int, Any], /) -> MPSNNForwardLoss: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(data: _Bytes, device: Device) -> MPSNNForwardLoss: ...
    def archived_data(self) -> bytes: ...
    @staticmethod
    def from_archived_data(data: _Bytes, device: Device) -> MPSNNForwardLoss: ...

@disjoint_base
class MPSNNLossGradient(MPSCNNBinaryKernel):
    def __init__(self, device: Device, loss_descriptor: MPSCNNLossDescriptor) -> None: ...
    @property
    def loss_type(self) -> MPSCNNLossType: ...
    @property
    def reduction_type(self) -> MPSCNNReductionType: ...
    @property
    def reduce_across_batch(self) -> bool: ...
    @property
    def number_of_classes(self) -> int: ...
    @property
    def weight(self) -> float: ...
    @weight.setter
    def weight(self, value: _Real, /) -> None: ...
    @property
    def label_smoothing(self) -> float: ...
    @label_smoothing.setter
    def label_smoothing(self, value: _Real, /) -> None: ...
    @property
    def epsilon(self) -> float: ...
    @epsilon.setter
    def epsilon(self, value: _Real, /) -> None: ...
    @property
    def delta(self) -> float: ...
    @delta.setter
    def delta(self, value: _Real, /) -> None: ...
    @property
    def compute_label_gradients(self) -> bool: ...
    @compute_label_gradients.setter
    def compute_label_gradients(self, value: _Bool, /) -> None: ...
    def encode_batch(
        self,
        command_buffer: CommandBuffer,
        source_gradients: _Images,
        source_images: _Images,
        labels: _Images,
        weights: _Images | None = None,
        source_states: _States | None = None,
        destination_gradients: _Images | None = None,
        *,
        allocator: _Allocator | None = None,
    ) -> MPSImageBatch: ...
    def __call__(
        self,
        predictions: _Images,
        labels: _Images,
        source_gradient: float | _Images | None = None,
        weights: _Images | None = None,
        out: _Out | None = None,
    ) -> _Out: ...
    def copy(self, device: Device | None = None) -> MPSNNLossGradient: ...
    def __copy__(self) -> MPSNNLossGradient: ...
    def __deepcopy__(self, memo: dict[int, Any], /) -> MPSNNLossGradient: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(data: _Bytes, device: Device) -> MPSNNLossGradient: ...
    def archived_data(self) -> bytes: ...
    @staticmethod
    def from_archived_data(data: _Bytes, device: Device) -> MPSNNLossGradient: ...

@disjoint_base
class MPSNNInitialGradient(MPSCNNKernel):
    def __init__(self, device: Device) -> None: ...
    def encode_batch(
        self,
        command_buffer: CommandBuffer,
        source_images: _Images,
        *,
        allocator: _Allocator | None = None,
    ) -> MPSImageBatch: ...
    def copy(self, device: Device | None = None) -> MPSNNInitialGradient: ...
    def __copy__(self) -> MPSNNInitialGradient: ...
    def __deepcopy__(self, memo: dict[int, Any], /) -> MPSNNInitialGradient: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(data: _Bytes, device: Device) -> MPSNNInitialGradient: ...
    def archived_data(self) -> bytes: ...
    @staticmethod
    def from_archived_data(data: _Bytes, device: Device) -> MPSNNInitialGradient: ...

# --- Functions ---

def devices() -> list[Device]: ...
def default_device() -> Device: ...
def cpu_device() -> Device: ...
def get_num_threads() -> int: ...
def set_num_threads(n: SupportsIndex) -> None: ...
def build_info() -> dict[str, Any]: ...

# The overloads of a loss, in order: reduced to a scalar, not reduced, reduced per image, and what
# only the values can tell.
# fmt: off
@overload
def loss(
    predictions: _ArrayLike, labels: _ArrayLike, loss_type: _LossTypeLike, *,
    reduction: _AnyReduction = "mean", weights: _ArrayLike | None = None,
    weight: _Real = 1.0, label_smoothing: _Real = 0.0,
    number_of_classes: SupportsIndex | None = None, epsilon: _Real = 1e-7, delta: _Real = 1.0,
    reduce_across_batch: Literal[True] = True, ignore_index: SupportsIndex | None = None,
    out: None = None,
    device: Device | str | None = None, axis: SupportsIndex = -1,
    sample_weight: _ArrayLike | None = None, class_weight: _ArrayLike | None = None,
    divisor: _Real | None = None,
) -> np.floating[Any]: ...
@overload
def loss(
    predictions: _ArrayLike, labels: _ArrayLike, loss_type: _LossTypeLike, *,
    reduction: _NoReduction, weights: _ArrayLike | None = None,
    weight: _Real = 1.0, label_smoothing: _Real = 0.0,
    number_of_classes: SupportsIndex | None = None, epsilon: _Real = 1e-7, delta: _Real = 1.0,
    reduce_across_batch: _Bool = True, ignore_index: SupportsIndex | None = None,
    out: _Out | None = None,
    device: Device | str | None = None, axis: SupportsIndex = -1,
    sample_weight: _ArrayLike | None = None, class_weight: _ArrayLike | None = None,
    divisor: _Real | None = None,
) -> _Out: ...
@overload
def loss(
    predictions: _ArrayLike, labels: _ArrayLike, loss_type: _LossTypeLike, *,
    reduction: _ReductionTypeLike = "mean", weights: _ArrayLike | None = None,
    weight: _Real = 1.0, label_smoothing: _Real = 0.0,
    number_of_classes: SupportsIndex | None = None, epsilon: _Real = 1e-7, delta: _Real = 1.0,
    reduce_across_batch: Literal[False], ignore_index: SupportsIndex | None = None,
    out: _Out | None = None,
    device: Device | str | None = None, axis: SupportsIndex = -1,
    sample_weight: _ArrayLike | None = None, class_weight: _ArrayLike | None = None,
    divisor: _Real | None = None,
) -> _Out: ...
@overload
def loss(
    predictions: _ArrayLike, labels: _ArrayLike, loss_type: _LossTypeLike, *,
    reduction: _ReductionTypeLike = "mean", weights: _ArrayLike | None = None,
    weight: _Real = 1.0, label_smoothing: _Real = 0.0,
    number_of_classes: SupportsIndex | None = None, epsilon: _Real = 1e-7, delta: _Real = 1.0,
    reduce_across_batch: _Bool = True, ignore_index: SupportsIndex | None = None,
    out: _Out | None = None,
    device: Device | str | None = None, axis: SupportsIndex = -1,
    sample_weight: _ArrayLike | None = None, class_weight: _ArrayLike | None = None,
    divisor: _Real | None = None,
) -> np.floating[Any] | _Out: ...
def loss_gradient(
    predictions: _ArrayLike, labels: _ArrayLike, loss_type: _LossTypeLike, *,
    reduction: _ReductionTypeLike = "mean", weights: _ArrayLike | None = None,
    weight: _Real = 1.0, label_smoothing: _Real = 0.0,
    number_of_classes: SupportsIndex | None = None, epsilon: _Real = 1e-7, delta: _Real = 1.0,
    reduce_across_batch: _Bool = True, ignore_index: SupportsIndex | None = None,
    source_gradient: _ArrayLike | None = None, wrt: _Wrt = "predictions",
    out: _Out | None = None,
    device: Device | str | None = None, axis: SupportsIndex = -1,
    sample_weight: _ArrayLike | None = None, class_weight: _ArrayLike | None = None,
    divisor: _Real | None = None,
) -> _Out: ...
@overload
def loss_and_gradient(
    predictions: _ArrayLike, labels: _ArrayLike, loss_type: _LossTypeLike, *,
    reduction: _AnyReduction = "mean", weights: _ArrayLike | None = None,
    weight: _Real = 1.0, label_smoothing: _Real = 0.0,
    number_of_classes: SupportsIndex | None = None, epsilon: _Real = 1e-7, delta: _Real = 1.0,
    reduce_across_batch: Literal[True] = True, ignore_index: SupportsIndex | None = None,
    source_gradient: _ArrayLike | None = None, wrt: _Wrt = "predictions",
    out: _Out | None = None, loss_out: None = None,
    device: Device | str | None = None, axis: SupportsIndex = -1,
    sample_weight: _ArrayLike | None = None, class_weight: _ArrayLike | None = None,
    divisor: _Real | None = None,
) -> tuple[np.floating[Any], _Out]: ...
@overload
def loss_and_gradient(
    predictions: _ArrayLike, labels: _ArrayLike, loss_type: _LossTypeLike, *,
    reduction: _NoReduction, weights: _ArrayLike | None = None,
    weight: _Real = 1.0, label_smoothing: _Real = 0.0,
    number_of_classes: SupportsIndex | None = None, epsilon: _Real = 1e-7, delta: _Real = 1.0,
    reduce_across_batch: _Bool = True, ignore_index: SupportsIndex | None = None,
    source_gradient: _ArrayLike | None = None, wrt: _Wrt = "predictions",
    out: _Out | None = None, loss_out: _LossOut | None = None,
    device: Device | str | None = None, axis: SupportsIndex = -1,
    sample_weight: _ArrayLike | None = None, class_weight: _ArrayLike | None = None,
    divisor: _Real | None = None,
) -> tuple[_LossOut, _Out]: ...
@overload
def loss_and_gradient(
    predictions: _ArrayLike, labels: _ArrayLike, loss_type: _LossTypeLike, *,
    reduction: _ReductionTypeLike = "mean", weights: _ArrayLike | None = None,
    weight: _Real = 1.0, label_smoothing: _Real = 0.0,
    number_of_classes: SupportsIndex | None = None, epsilon: _Real = 1e-7, delta: _Real = 1.0,
    reduce_across_batch: Literal[False], ignore_index: SupportsIndex | None = None,
    source_gradient: _ArrayLike | None = None, wrt: _Wrt = "predictions",
    out: _Out | None = None, loss_out: _LossOut | None = None,
    device: Device | str | None = None, axis: SupportsIndex = -1,
    sample_weight: _ArrayLike | None = None, class_weight: _ArrayLike | None = None,
    divisor: _Real | None = None,
) -> tuple[_LossOut, _Out]: ...
@overload
def loss_and_gradient(
    predictions: _ArrayLike, labels: _ArrayLike, loss_type: _LossTypeLike, *,
    reduction: _ReductionTypeLike = "mean", weights: _ArrayLike | None = None,
    weight: _Real = 1.0, label_smoothing: _Real = 0.0,
    number_of_classes: SupportsIndex | None = None, epsilon: _Real = 1e-7, delta: _Real = 1.0,
    reduce_across_batch: _Bool = True, ignore_index: SupportsIndex | None = None,
    source_gradient: _ArrayLike | None = None, wrt: _Wrt = "predictions",
    out: _Out | None = None, loss_out: _LossOut | None = None,
    device: Device | str | None = None, axis: SupportsIndex = -1,
    sample_weight: _ArrayLike | None = None, class_weight: _ArrayLike | None = None,
    divisor: _Real | None = None,
) -> tuple[np.floating[Any] | _LossOut, _Out]: ...
def loss_gradient_and_hessian(
    predictions: _ArrayLike, labels: _ArrayLike, loss_type: _LossTypeLike, *,
    reduction: _ReductionTypeLike = "mean", weights: _ArrayLike | None = None,
    weight: _Real = 1.0, label_smoothing: _Real = 0.0,
    number_of_classes: SupportsIndex | None = None, epsilon: _Real = 1e-7, delta: _Real = 1.0,
    reduce_across_batch: _Bool = True, ignore_index: SupportsIndex | None = None,
    source_gradient: _ArrayLike | None = None, out: _Out | None = None,
    device: Device | str | None = None, axis: SupportsIndex = -1,
    sample_weight: _ArrayLike | None = None, class_weight: _ArrayLike | None = None,
    divisor: _Real | None = None,
    hessian_out: _HessianOut | None = None,
) -> tuple[_Out, _HessianOut]: ...
def reduction_divisor(
    predictions: _ArrayLike, labels: _ArrayLike, loss_type: _LossTypeLike, *,
    reduction: _ReductionTypeLike = "mean", weights: _ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, axis: SupportsIndex = -1,
    sample_weight: _ArrayLike | None = None, class_weight: _ArrayLike | None = None,
) -> float: ...
# fmt: on
