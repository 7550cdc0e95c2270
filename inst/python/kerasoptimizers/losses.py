"""The loss of networks that predict a mean and a variance, for both Kerases."""

import math
from typing import Any

from . import arguments


class GaussianNLL:
    """Negative log-likelihood of a Gaussian whose mean and variance the network predicts.

    The network's last axis holds the means and then the logarithms of the variances: a last layer `Dense(2)` without
    activation for one number to predict, `Dense(2 * k)` for k of them. The loss of an example is

        (log(2 pi) + log(variance) + (y - mean)^2 / variance) / 2

    in nats, averaged over the k numbers. Put `y` on a scale on which its variance is about 1.

    Args:
        min_variance: float > 0, the lowest variance: lower ones count as this much. Without it the loss of an
            example that is met exactly has no lower end.
        **kwargs: further arguments of Keras's `Loss`, such as `name`.

    Raises:
        ValueError: if `min_variance` is not as described, or the last axis of the network is odd.

    References:
        Nix and Weigend 1994, Estimating the Mean and Variance of the Target Probability Distribution,
        doi:10.1109/ICNN.1994.374138. Lakshminarayanan et al. 2017, arXiv 1612.01474.
    """

    __module__ = "kerasoptimizers"

    #: Functions on tensors: exp, maximum, mean, reshape, shape, split and cast, as `keras.ops` has them.
    xp: Any

    def __init__(self, min_variance: float = 1e-6, **kwargs: Any):
        super().__init__(**{"name": "gaussian_nll", **kwargs})
        self.min_variance = arguments.positive("min_variance", min_variance)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        size = y_pred.shape[-1]
        if size is None or size % 2:
            raise ValueError(f"GaussianNLL needs means and log-variances: a last axis of even size, not of {size}.")
        xp = self.xp
        dtype = "float64" if "float64" in str(y_pred.dtype) else "float32"
        mean, log_variance = xp.split(xp.cast(y_pred, dtype), 2, axis=-1)
        y = xp.reshape(xp.cast(y_true, dtype), xp.shape(mean))
        log_variance = xp.maximum(log_variance, math.log(self.min_variance))
        error = y - mean
        return xp.mean(0.5 * (math.log(2 * math.pi) + log_variance + error * error * xp.exp(-log_variance)), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "min_variance": self.min_variance}  # type: ignore[misc]
