"""Averages of finished models for Keras 2."""

import tf_keras

from ..soups import Soups
from . import private
from .base import Base
from .batch_norm import pass_type

_soups = Soups(tf_keras, Base, pass_type, further=private.random_states)

average_models = _soups.average_models
average_checkpoints = _soups.average_checkpoints
greedy_soup = _soups.greedy_soup
interpolate_models = _soups.interpolate_models
model_stock = _soups.model_stock
