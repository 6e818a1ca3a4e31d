"""Lobes that other SpeechBrain recipes import."""

from speechbrain_ext.lobes.models.astp import ASTP
from speechbrain_ext.lobes.models.kd_student import KDStudent
from speechbrain_ext.lobes.models.lap import LAP_ASTP
from speechbrain_ext.lobes.models.layer_adapters import LayerAdapterMFA
from speechbrain_ext.lobes.models.layer_pooled import LayerPooled
from speechbrain_ext.lobes.models.ltdnn import LTDNN
from speechbrain_ext.lobes.models.mhfa import MHFA
from speechbrain_ext.lobes.models.vgg import VGGEmbedding
from speechbrain_ext.nnet.dictionary_encoding import (
    LearnableDictionaryEncoding,
)
from speechbrain_ext.nnet.pooling import (
    AttentiveStatisticsPooling,
    DoubleMultiHeadAttnPooling,
    LayerAttentivePooling,
    MultiHeadAttnPooling,
    WeightedLayerSum,
)

__all__ = [
    "ASTP",
    "KDStudent",
    "LAP_ASTP",
    "LTDNN",
    "MHFA",
    "AttentiveStatisticsPooling",
    "DoubleMultiHeadAttnPooling",
    "LayerAdapterMFA",
    "LayerAttentivePooling",
    "LayerPooled",
    "LearnableDictionaryEncoding",
    "MultiHeadAttnPooling",
    "VGGEmbedding",
    "WeightedLayerSum",
]
