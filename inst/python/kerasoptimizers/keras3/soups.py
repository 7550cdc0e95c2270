"""Averages of finished models for Keras 3."""

import keras

from ..soups import Soups
from .base import Base
from .batch_norm import pass_type

_soups = Soups(keras, Base, pass_type)

average_models = _soups.average_models
average_checkpoints = _soups.average_checkpoints
greedy_soup = _soups.greedy_soup
interpolate_models = _soups.interpolate_models
model_stock = _soups.model_stock
