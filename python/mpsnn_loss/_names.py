"""The names that the functions take for a loss and for a reduction, as types."""

from typing import Literal, TypeAlias

LossName: TypeAlias = Literal[
    "mean_absolute_error",
    "mean_squared_error",
    "softmax_cross_entropy",
    "sigmoid_cross_entropy",
    "categorical_cross_entropy",
    "hinge",
    "huber",
    "cosine_distance",
    "log",
    "kullback_leibler_divergence",
]
AppleReductionName: TypeAlias = Literal["none", "sum", "mean", "sum_by_non_zero_weights"]
ReductionName: TypeAlias = Literal[AppleReductionName, "mean_by_weights"]
