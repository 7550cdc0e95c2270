"""How good predictions are that say how sure they are: NumPy only.

Probabilities are an array of shape (examples, classes); or (examples,) or (examples, 1), the probability of class 1 of
two; or, with one axis more in front, samples as `predict_samples()` returns them, which are averaged. Labels are whole
numbers from 0 on. Any other argument raises a ValueError or TypeError in one line that names it.
"""

from typing import Any

import numpy as np

from . import arguments


def nll(y: Any, probabilities: Any) -> float:
    """Mean negative log-likelihood of labels, in nats, also called log loss or cross-entropy.

    A probability of 0 counts as the smallest step of its floating type, as in scikit-learn.

    Args:
        y: array of int, shape (examples,): labels.
        probabilities: array, see the top of this module.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.
    """
    y, p = _labels(y, probabilities)
    return float(-np.log(p[np.arange(len(y)), y]).mean())


def brier(y: Any, probabilities: Any) -> float:
    """Brier's score, from 0 to 2: squared differences of probabilities and truth, summed over the classes.

    Args:
        y: array of int, shape (examples,): labels.
        probabilities: array, see the top of this module.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.

    References:
        Brier 1950, Verification of Forecasts Expressed in Terms of Probability, doi
        10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """
    y, p = _labels(y, probabilities)
    return float(((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean())


def accuracy(y: Any, probabilities: Any) -> float:
    """How often the most likely class is the label, from 0 to 1.

    Args:
        y: array of int, shape (examples,): labels.
        probabilities: array, see the top of this module.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.
    """
    y, p = _labels(y, probabilities)
    return float((p.argmax(1) == y).mean())


def reliability(y: Any, probabilities: Any, bins: int = 15) -> dict[str, np.ndarray]:
    """Confidence (the probability of the most likely class) and accuracy, in bins of confidence of equal width.

    Args:
        y: array of int, shape (examples,): labels.
        probabilities: array, see the top of this module.
        bins: int >= 1, number of bins.

    Returns:
        Dict of arrays of shape (bins,): `lower` and `upper` (a bin holds its upper limit), `count`, and the means
        `confidence` and `accuracy`, NaN in an empty bin.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.

    References:
        Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """
    y, p = _labels(y, probabilities)
    bins = arguments.whole("bins", bins, 1)
    confidence, right = p.max(1), p.argmax(1) == y
    edges = np.linspace(0, 1, bins + 1)
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(where, weights=values, minlength=bins) / count for values in (confidence, right)]
    return {"lower": edges[:-1], "upper": edges[1:], "count": count, "confidence": means[0], "accuracy": means[1]}


def ece(y: Any, probabilities: Any, bins: int = 15) -> float:
    """Expected calibration error: |accuracy - confidence|, averaged over the examples of `reliability()`'s bins.

    Args:
        y, probabilities, bins: as for `reliability()`.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.

    References:
        Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """
    found = reliability(y, probabilities, bins)
    gaps = np.abs(found["accuracy"] - found["confidence"])
    return float(np.nansum(gaps * found["count"]) / found["count"].sum())


def temperature(y: Any, probabilities: Any) -> float:
    """The temperature that makes probabilities fit held-out labels best, for `tempered()`.

    The negative log-likelihood of softmax(log(p) / T) is convex in 1 / T: its one minimum is found to 1e-9. If no
    finite temperature is best (each label is the most likely class, or each the least likely), it is 1e-3 or 1e3.

    Args:
        y: array of int, shape (examples,): labels.
        probabilities: array, see the top of this module.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.

    References:
        Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """
    y, p = _labels(y, probabilities)
    logits, low, high = np.log(p), np.log(1e-3), np.log(1e3)
    while high - low > 1e-9:
        middle = (low + high) / 2
        q = _softmax(logits * np.exp(middle))
        # The derivative by 1 / T.
        slope = ((q * logits).sum(1) - logits[np.arange(len(y)), y]).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def tempered(probabilities: Any, temperature: float) -> np.ndarray:
    """Probabilities at a temperature: above 1 they are less sure. Samples are averaged first.

    Args:
        probabilities: array, see the top of this module.
        temperature: float > 0, as `temperature()` returns it.

    Returns:
        Array of shape (examples, classes), or (examples,) if one probability of two is given for each example.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.

    References:
        Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """
    temperature, one = arguments.positive("temperature", temperature), _is_one(probabilities)
    found = _softmax(np.log(_probabilities(probabilities)) / temperature)
    return found[:, 1] if one else found


def gaussian_nll(y: Any, mean: Any, variance: Any) -> float:
    """Mean negative log-likelihood of numbers, in nats, under Gaussians or an equal mixture of Gaussians.

    Args:
        y: array of shape (examples,).
        mean: array of shape (examples,) or, for mixtures, (samples, examples).
        variance: a number > 0, or an array of the shape of `mean` or of `y`.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.
    """
    y, mean, variance = _numbers("y", y), _numbers("mean", mean), _numbers("variance", variance)
    y = _column(y)
    mean, variance = (a[..., 0] if a.shape[-2:] == (len(y), 1) else a for a in (mean, variance))
    if mean.ndim not in (1, 2) or mean.shape[-1:] != y.shape:
        raise ValueError(f"`mean` must be of shape {y.shape} or (samples, {len(y)}), not {mean.shape}.")
    if variance.shape not in ((), y.shape, mean.shape):
        raise ValueError(f"`variance` must be a number or of shape {y.shape} or {mean.shape}, not {variance.shape}.")
    if not (variance > 0).all():
        raise ValueError("`variance` must be > 0.")
    logs = -0.5 * (np.log(2 * np.pi * variance) + (y - mean) ** 2 / variance)
    if mean.ndim == 2:
        top = logs.max(0)
        logs = top + np.log(np.exp(logs - top).mean(0))
    return float(-logs.mean())


def coverage(y: Any, lower: Any, upper: Any) -> float:
    """The share of numbers that are in their intervals, limits included: from 0 to 1.

    Args:
        y, lower, upper: arrays of shape (examples,).

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.
    """
    y, lower, upper = (_column(_numbers(name, v)) for name, v in (("y", y), ("lower", lower), ("upper", upper)))
    return float(((lower <= y) & (y <= upper)).mean())


def width(lower: Any, upper: Any) -> float:
    """The mean width of intervals, in the unit of the numbers.

    Args:
        lower, upper: arrays of shape (examples,).

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.
    """
    return float((_numbers("upper", upper) - _numbers("lower", lower)).mean())


def noise_variance(y: Any, samples: Any) -> float:
    """The variance of the noise around predictions, from held-out numbers.

    It is the mean squared residual of the samples' mean, less the variance of the samples; 0 if that is negative.

    Args:
        y: array of shape (examples,).
        samples: array of shape (samples, examples) or (samples, examples, 1), as `predict_samples()` returns it.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.
    """
    y, samples = _column(_numbers("y", y)), _numbers("samples", samples)
    samples = samples[..., 0] if samples.shape[1:] == (len(y), 1) else samples
    if samples.ndim != 2 or samples.shape[1:] != y.shape:
        raise ValueError(f"`samples` must be of shape (samples, {len(y)}), not {samples.shape}.")
    residual = ((y - samples.mean(0)) ** 2).mean()
    return float(max(residual - samples.var(0).mean(), 0.0))


def _numbers(name, value):
    array = np.asarray(value)
    if array.dtype.kind not in "biufV" or not array.size:
        arguments.refuse(name, "an array of numbers", value)
    array = array.astype("float64")
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` must hold finite numbers.")
    return array


def _column(array):
    """One number for each example."""
    return array.reshape(-1) if array.ndim != 2 or array.shape[1] == 1 else array


def _is_one(probabilities):
    """Whether there is one probability for each example, that of class 1 of two."""
    shape = np.shape(probabilities)
    return len(shape) == 1 or shape[-1] == 1


def _probabilities(probabilities):
    """Of shape (examples, classes), none of them 0."""
    dtype = np.asarray(probabilities).dtype
    p = _numbers("probabilities", probabilities)
    if p.ndim == 3:
        p = p.mean(0)
    if p.ndim > 3:
        raise ValueError(f"`probabilities` must have 1, 2 or 3 axes, not {p.ndim}.")
    if _is_one(p):
        p = p.reshape(-1)
        p = np.stack([1 - p, p], axis=1)
    if p.min() < -1e-6 or np.abs(p.sum(1) - 1).max() > 1e-2:
        raise ValueError("`probabilities` must be from 0 to 1 with a sum of 1 for each example: are these logits?")
    smallest = np.finfo(dtype if dtype.kind == "f" else "float64").eps
    return np.clip(p / p.sum(1, keepdims=True), smallest, 1.0)


def _labels(y, probabilities):
    p, y = _probabilities(probabilities), np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind not in "biuf" or y.shape != (len(p),):
        raise ValueError(f"`y` must hold one label for each of {len(p)} examples.")
    if not (np.isin(y, np.arange(p.shape[1]))).all():
        raise ValueError(f"`y` must hold whole numbers from 0 to {p.shape[1] - 1}.")
    return y.astype("int64"), p


def _softmax(logits):
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)
