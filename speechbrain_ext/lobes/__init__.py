"""Lobes that other SpeechBrain recipes import."""

from speechbrain_ext._moved import renamed
from speechbrain_ext.lobes.encoders.cls_encoder import CLSEncoder
from speechbrain_ext.lobes.encoders.encoder import Encoder
from speechbrain_ext.lobes.encoders.factory import load_encoder
from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder
from speechbrain_ext.lobes.encoders.w2v_bert import W2VBertEncoder
from speechbrain_ext.lobes.encoders.whisper import WhisperEncoder
from speechbrain_ext.lobes.features import (
    MaskedFbank,
    MaskedMFCC,
    NormalizedFbank,
    NormalizedMFCC,
    SpeechMFCC,
)
from speechbrain_ext.lobes.models.astp import ASTP
from speechbrain_ext.lobes.models.dtdnn import DTDNN
from speechbrain_ext.lobes.models.ecapa import MaskedECAPA
from speechbrain_ext.lobes.models.etdnn import ETDNN
from speechbrain_ext.lobes.models.ivector import IVectorExtractor
from speechbrain_ext.lobes.models.kd_student import KDStudent
from speechbrain_ext.lobes.models.lap import LAP, LAP_ASTP
from speechbrain_ext.lobes.models.layer_adapters import LayerAdapterMFA
from speechbrain_ext.lobes.models.layer_pooled import LayerPooled
from speechbrain_ext.lobes.models.ltdnn import LTDNN
from speechbrain_ext.lobes.models.mhfa import MHFA
from speechbrain_ext.lobes.models.speaker_embedder import SpeakerEmbedder
from speechbrain_ext.lobes.models.vgg import VGGEmbedding
from speechbrain_ext.lobes.models.without_padding import leave_padding_out
from speechbrain_ext.lobes.models.xvector import MaskedXvector
from speechbrain_ext.nnet.dictionary_encoding import (
    LearnableDictionaryEncoding,
)
from speechbrain_ext.nnet.pooling import (
    ChannelAttentiveStatisticsPooling,
    DoubleMultiHeadAttnPooling,
    LayerAttentivePooling,
    MaskedStatisticsPooling,
    MultiHeadAttnPooling,
    WeightedLayerSum,
)

__all__ = [
    "ASTP",
    "CLSEncoder",
    "ChannelAttentiveStatisticsPooling",
    "DTDNN",
    "DoubleMultiHeadAttnPooling",
    "ETDNN",
    "Encoder",
    "IVectorExtractor",
    "KDStudent",
    "LAP",
    "LAP_ASTP",
    "LTDNN",
    "LayerAdapterMFA",
    "LayerAttentivePooling",
    "LayerPooled",
    "LearnableDictionaryEncoding",
    "MHFA",
    "MaskedECAPA",
    "MaskedFbank",
    "MaskedMFCC",
    "MaskedStatisticsPooling",
    "MaskedXvector",
    "MultiHeadAttnPooling",
    "NormalizedFbank",
    "NormalizedMFCC",
    "SSLEncoder",
    "SpeakerEmbedder",
    "SpeechMFCC",
    "VGGEmbedding",
    "W2VBertEncoder",
    "WeightedLayerSum",
    "WhisperEncoder",
    "leave_padding_out",
    "load_encoder",
]


def __getattr__(name):
    return renamed(__name__, name)
