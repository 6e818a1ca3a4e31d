"""Lobes that other SpeechBrain recipes import."""

from speechbrain_ext.lobes.models.ltdnn import LTDNN
from speechbrain_ext.nnet.pooling import (
    AttentiveStatisticsPooling,
    LayerAttentivePooling,
    WeightedLayerSum,
)

__all__ = [
    "LTDNN",
    "AttentiveStatisticsPooling",
    "LayerAttentivePooling",
    "WeightedLayerSum",
]
