"""Verifies two recordings with an exported model, without PyTorch.

    python recipes/VoxCeleb/export_onnx.py results/kd_xvector_fc/1986 \\
        --output_folder student
    python recipes/VoxCeleb/verify_onnx.py student a.wav b.wav

Needs numpy, onnxruntime and soundfile only, so that this file can be copied
into other programs. Front end and encoder are part of the exported model.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

FILES = {
    "float32": "model.onnx",
    "float16": "model_float16.onnx",
    "int8": "model_int8.onnx",
}


class OnnxSpeakerModel:
    """From waveforms to embeddings, with onnxruntime.

    Arguments
    ---------
    folder : str or Path
        Of export_onnx.py.
    file : str
        model.onnx, model_float16.onnx or model_int8.onnx.
    n_threads : int
        CPU threads.
    """

    def __init__(self, folder, file="model.onnx", n_threads=1):
        folder = Path(folder)
        for path in (folder / file, folder / "model.json"):
            if not path.is_file():
                raise SystemExit(f"error: there is no '{path}'; run export_onnx.py")
        about = json.loads((folder / "model.json").read_text("utf-8"))
        if "shortest" not in about:
            raise SystemExit(
                f"error: '{folder}' is of an earlier version; run export_onnx.py again"
            )
        self.sample_rate = about["sample_rate"]
        self.threshold = about["threshold"]
        self.shortest = about["shortest"]
        self.longest = about.get("longest")  # of Whisper
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        self.session = onnxruntime.InferenceSession(
            folder / file, options, providers=["CPUExecutionProvider"]
        )

    def embed_batch(self, wavs, lengths):
        """Embeds a padded batch of waveforms.

        Arguments
        ---------
        wavs : numpy.ndarray
            At `sample_rate`, float32, of shape (batch, time).
        lengths : numpy.ndarray
            Relative lengths in (0, 1], float32, of shape (batch,).

        Returns
        -------
        numpy.ndarray
            Of shape (batch, dim).
        """
        inputs = {"waveforms": wavs, "lengths": lengths}
        (embeddings,) = self.session.run(None, inputs)
        return embeddings[:, 0]

    def embed(self, wav):
        """Embeds a waveform.

        Arguments
        ---------
        wav : numpy.ndarray
            At `sample_rate`, float32, of shape (time,).

        Returns
        -------
        numpy.ndarray
            Of shape (dim,).
        """
        return self.embed_batch(wav[np.newaxis], np.ones(1, np.float32))[0]

    def load_audio(self, path):
        """Reads a mono file of the right sample rate, long enough to embed."""
        try:
            wav, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError) as error:
            raise SystemExit(f"error: '{path}' cannot be read: {error}") from None
        n_samples, n_channels = wav.shape
        if n_channels > 1 or sample_rate != self.sample_rate:
            channels = "mono" if n_channels == 1 else f"{n_channels} channels"
            raise SystemExit(
                f"error: '{path}' is {channels} at {sample_rate} Hz, and the model "
                f"takes mono at {self.sample_rate} Hz; convert it: ffmpeg -i '{path}' "
                f"-ac 1 -ar {self.sample_rate} converted.wav"
            )
        if n_samples < self.shortest:
            raise SystemExit(
                f"error: '{path}' has {n_samples} samples, and the model takes "
                f"{self.shortest} or more"
            )
        if self.longest is not None and n_samples > self.longest:
            raise SystemExit(
                f"error: '{path}' has {n_samples} samples, and the model takes at "
                f"most {self.longest}; cut it: ffmpeg -i '{path}' -t "
                f"{self.longest // self.sample_rate} cut.wav"
            )
        return wav[:, 0]


def main():
    """Prints the cosine score of two recordings and the decision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="of export_onnx.py")
    parser.add_argument("enrol", help="audio file")
    parser.add_argument("test", help="audio file")
    parser.add_argument("--precision", choices=FILES, default="float32")
    options = parser.parse_args()
    model = OnnxSpeakerModel(options.folder, FILES[options.precision])
    enrol, test = (
        model.embed(model.load_audio(path)) for path in (options.enrol, options.test)
    )
    score = enrol @ test / (np.linalg.norm(enrol) * np.linalg.norm(test))
    decision = "same speaker" if score > model.threshold else "different speakers"
    print(f"{score:.4f} {decision}")


if __name__ == "__main__":
    main()
