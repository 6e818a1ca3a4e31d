"""Export of filter-bank models for onnxruntime."""

import copy
from pathlib import Path

import numpy as np
import torch

from speechbrain_ext.lobes.features import NormalizedFbank
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path, write_json


def export_onnx(speaker_model, folder):
    """Writes a model for onnxruntime, in float32 and in dynamic int8.

    Needs onnx, onnxscript and onnxruntime (`pip install -e ".[onnx]"`).

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        With `NormalizedFbank` as its encoder.
    folder : str or Path
        Gets model.onnx and model_int8.onnx, from features of shape
        (1, time, n_mels) to embeddings of shape (1, 1, dim); front_end.npz,
        what the features are computed with; model.json, the threshold.

    Returns
    -------
    list of Path
        model.onnx and model_int8.onnx.

    Raises
    ------
    InputError
        If the model has another front end.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    front_end = speaker_model.encoder
    if type(front_end) is not NormalizedFbank:
        raise InputError(
            "only models on filter banks can be exported; this one has "
            f"{type(front_end).__name__}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = copy.deepcopy(speaker_model.embedding_model).cpu().eval()
    float32, int8 = folder / "model.onnx", folder / "model_int8.onnx"
    frames = torch.rand(1, 300, front_end.channels)
    with atomic_path(float32) as partial:
        torch.onnx.export(
            model,
            (frames,),
            str(partial),
            input_names=["frames"],
            output_names=["embedding"],
            dynamic_axes={"frames": {1: "time"}},
            # The newer exporter cannot take in SpeechBrain's x-vector, which
            # tries whether a layer knows lengths.
            dynamo=False,
        )
    graph = onnx.load(float32)
    # The quantizer transposes weights, after which noted shapes are wrong.
    del graph.graph.value_info[:]
    with atomic_path(int8) as partial:
        # Unsigned, because without VNNI signed weights saturate onnxruntime's
        # products; its convolutions are faster with unsigned ones as well.
        quantize_dynamic(graph, partial, weight_type=QuantType.QUInt8)
    stft, filters = front_end.fbank.compute_STFT, front_end.fbank.compute_fbanks
    with atomic_path(folder / "front_end.npz") as partial:
        with open(partial, "wb") as file:
            np.savez(
                file,
                window=stft.window.cpu().numpy(),
                hop=front_end.hop,
                filters=_filter_matrix(filters),
                top_db=filters.top_db,
                amin=filters.amin,
                preemphasis=front_end.preemphasis,
                keep_spectrum=front_end.keep_spectrum,
            )
    write_json(
        folder / "model.json",
        {
            "sample_rate": speaker_model.sample_rate,
            "threshold": speaker_model.threshold,
        },
    )
    return [float32, int8]


def _filter_matrix(filters):
    """SpeechBrain's mel filters, of shape (n_fft // 2 + 1, n_mels)."""
    linear = copy.deepcopy(filters).cpu()
    linear.log_mel = False
    return linear(torch.eye(linear.n_stft).unsqueeze(0))[0].numpy()
