"""Arrays of any rank, with their channels on any axis, as the images of the reference and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Layout:
    """The shape of predictions and the axis of their channels.

    Of the other axes the first is the batch, and those between are pixels. An array of rank 1 is
    one image of one pixel.
    """

    shape: tuple[int, ...]
    axis: int = -1

    @property
    def channels(self) -> int:
        return self.shape[self.axis]

    @property
    def pixels(self) -> tuple[int, ...]:
        """The shape without the channels, which class indices have."""
        kept = list(self.shape)
        del kept[self.axis]
        return tuple(kept)

    @property
    def images(self) -> tuple[int, int, int, int]:
        """The same as [N, H, W, C], where all pixels of an image are a column."""
        n, *rows = self.pixels or (1,)
        return (n, math.prod(rows), 1, self.channels)

    def to_images(self, array: NDArray[Any]) -> NDArray[Any]:
        """[N, H, W, C] of an array of the whole shape."""
        return np.moveaxis(array, self.axis, -1).reshape(self.images)

    def from_images(self, images: NDArray[Any]) -> NDArray[Any]:
        return np.moveaxis(images.reshape((*self.pixels, self.channels)), -1, self.axis)

    def to_pixels(self, array: NDArray[Any]) -> NDArray[Any]:
        """[N, H, W] of an array of the shape without channels."""
        return array.reshape(self.images[:3])

    def weights(self, weights: ArrayLike) -> NDArray[Any]:
        """Weights broadcast as the arrays lie, as [N, H, W, C]."""
        return self.to_images(np.broadcast_to(np.asarray(weights), self.shape))

    def sample_weight(self, weights: ArrayLike) -> NDArray[Any]:
        """[N], or the shape without channels, as [N, H, W]; of rank 1 also a scalar or [1]."""
        given = np.asarray(weights)
        if given.shape == self.pixels:
            return self.to_pixels(given)
        return np.broadcast_to(given.reshape(-1, 1, 1), self.images[:3])

    def one_hot(self, indices: NDArray[Any]) -> NDArray[np.bool_]:
        """Dense labels as [N, H, W, C]; an index that is no class has none."""
        hot: NDArray[np.bool_] = self.to_pixels(indices)[..., None] == np.arange(self.channels)
        return hot
