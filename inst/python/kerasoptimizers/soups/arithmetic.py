"""The arithmetic of soups, in NumPy alone.

Every soup is a sum of the models' weights times coefficients. For a mean these are given. For spherical interpolation
and Model Stock they come from the inner products of the models' tensors. Both work block by block, so that a tensor of
any size is never held as a whole.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

#: Elements of a block: 8 MB in float64.
BLOCK = 2**20

#: Where the cosine is beyond this, spherical interpolation is linear, as in mergekit.
_PARALLEL = 0.9995
#: What a product of norms, and Model Stock's denominator, must reach, as in mergekit.
_LEAST = 1e-6


def blocks(shape: Sequence[int]) -> Iterator[Any]:
    """Indexes that cut an array of this shape into blocks along its first axis."""
    if not shape or int(np.prod(shape)) <= BLOCK:
        yield ...
        return
    rows = max(1, BLOCK // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], rows):
        yield slice(start, start + rows)


def combination(coefficients: Iterable[Any], arrays: Iterable[Any], divisor: float = 1.0) -> Any:
    """The sum of arrays times coefficients, over a divisor, in float64. Arrays with the coefficient 0 are not read.

    Args:
        coefficients: floats, or arrays that broadcast against the last axis.
        arrays: functions that return an array each; called one after the other.
        divisor: float. For means: coefficients that are rounded already would add up to almost 1.
    """
    total: Any = None
    for coefficient, array in zip(coefficients, arrays):
        if np.any(coefficient):
            part = np.asarray(array(), "float64") * coefficient
            total = part if total is None else total + part
    return total / divisor


def linear(fraction: float) -> list[float]:
    """The coefficients of two arrays for the point this far from the first to the second."""
    return [1.0 - fraction, fraction]


def spherical(products: np.ndarray, fraction: float) -> list[float]:
    """The coefficients of spherical interpolation.

    Args:
        products: array of shape (2, 2), the inner products of the two arrays, each as one vector.
        fraction: float, 0 for the first, 1 for the second.

    References:
        Shoemake 1985, Animating Rotation with Quaternion Curves.
    """
    norms = np.sqrt(np.diag(products))
    cosine = products[0, 1] / (norms[0] * norms[1]) if norms.all() else 1.0
    if abs(cosine) > _PARALLEL:
        return linear(fraction)
    angle = np.arccos(cosine)
    return [float(np.sin((1.0 - fraction) * angle) / np.sin(angle)), float(np.sin(fraction * angle) / np.sin(angle))]


def stock(products: np.ndarray) -> list[Any]:
    """Model Stock's coefficients, those of the models and, last, of the base.

    Args:
        products: array of shape (models, models), the inner products of the models' offsets from the base; or of shape
            (filters, models, models), those of each filter.

    Returns:
        List of floats, or of arrays of shape (filters,).

    References:
        Jang et al. 2024, Model Stock: All we need is just a few fine-tuned models, arXiv 2403.19522.
    """
    count = products.shape[-1]
    norms = np.sqrt(np.diagonal(products, axis1=-2, axis2=-1))
    scale = np.maximum(norms[..., :, None] * norms[..., None, :], _LEAST)
    cosines = np.clip(products / scale, -1.0, 1.0)
    first, second = np.triu_indices(count, 1)
    cosine = cosines[..., first, second].mean(-1)
    below = 1.0 + (count - 1) * cosine
    ratio = np.where(np.abs(below) < _LEAST, 0.0, count * cosine / np.where(np.abs(below) < _LEAST, 1.0, below))
    return [ratio / count] * count + [1.0 - ratio]


def products(offsets: Iterable[Sequence[Any]], filters: bool = False) -> Any:
    """The inner products of tensors, added up over blocks.

    Args:
        offsets: for each block, the list of the tensors' arrays.
        filters: bool, whether to have one set of products for each element of the last axis, which in Keras is the
            outputs of a layer. A tensor of one axis is one filter.
    """
    total: Any = 0.0
    for parts in offsets:
        stacked = np.stack([np.asarray(part, "float64") for part in parts])
        if filters and stacked.ndim > 2:
            flat = stacked.reshape(len(parts), -1, stacked.shape[-1])
            total = total + np.einsum("iaf,jaf->fij", flat, flat)
        else:
            flat = stacked.reshape(len(parts), -1)
            total = total + flat @ flat.T
    return total


def narrowed(values: Any, dtype: Any) -> np.ndarray:
    """Values in a type, rounded once."""
    values, dtype = np.asarray(values), np.dtype(dtype)
    if dtype.name != "bfloat16" or values.dtype != "float64":
        return values.astype(dtype)
    # Through float32, as ml_dtypes does it, a value would be rounded twice: halfway cases are told apart here.
    single = values.astype("float32")
    bits = single.view("uint32")
    halfway = (bits & 0xFFFF) == 0x8000
    bits = np.where(halfway & (np.abs(values) > np.abs(single)), bits + 1, bits)
    bits = np.where(halfway & (np.abs(values) < np.abs(single)), bits - 1, bits)
    return bits.astype("uint32").view("float32").reshape(values.shape).astype(dtype)


def greedy(
    scores: Sequence[float], try_soup: Callable[[list[int]], float], tried: Callable[..., None] = lambda *_: None
) -> tuple[list[int], float]:
    """The models of a greedy soup.

    From the best model on, one is taken in after the other, and stays where the soup's score is better than the best so
    far. Of models with equal scores the later one comes first, as in the authors' code.

    Args:
        scores: the score of each model, higher is better. One that is not a number is never taken.
        try_soup: function of a list of positions that returns the score of the mean of these models.
        tried: function that is called with the score of each soup and whether it was kept.

    Returns:
        (positions in the order in which they were taken, score of their soup)

    References:
        Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models improves accuracy without
        increasing inference time, arXiv 2203.05482, recipe 1.
    """
    order = ranked(scores)
    chosen, best = order[:1], scores[order[0]]
    for position in order[1:]:
        score = try_soup([*chosen, position])
        kept = score > best
        tried(score, kept)
        if kept:
            chosen, best = [*chosen, position], score
    return chosen, best


def ranked(scores: Sequence[float]) -> list[int]:
    """Positions of the scores that are numbers, best first."""
    known = [i for i, score in enumerate(scores) if not np.isnan(score)]
    return sorted(known, key=lambda i: (scores[i], i), reverse=True)
