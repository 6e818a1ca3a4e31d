"""Verifies two recordings with an exported model, without PyTorch.

    python recipes/VoxCeleb/export_onnx.py results/kd_xvector_fc/1986 \\
        --output_folder student
    python recipes/VoxCeleb/verify_onnx.py student a.wav b.wav

Needs numpy, onnxruntime and soundfile only, so that this file can be copied
into other programs. The features are those of SpeechBrain's Fbank.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile


class OnnxSpeakerModel:
    """From waveforms to embeddings, with NumPy and onnxruntime.

    Arguments
    ---------
    folder : str or Path
        Of export_onnx.py.
    file : str
        model.onnx or model_int8.onnx.
    n_threads : int
        CPU threads.
    """

    def __init__(self, folder, file="model.onnx", n_threads=1):
        folder = Path(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        self.session = onnxruntime.InferenceSession(
            folder / file, options, providers=["CPUExecutionProvider"]
        )
        with np.load(folder / "front_end.npz") as front_end:
            self.front_end = {name: front_end[name] for name in front_end.files}
        about = json.loads((folder / "model.json").read_text("utf-8"))
        self.sample_rate = about["sample_rate"]
        self.threshold = about["threshold"]

    def features(self, wav):
        """Log mel bands.

        Arguments
        ---------
        wav : numpy.ndarray
            Waveform, float32, of shape (time,).

        Returns
        -------
        numpy.ndarray
            Of shape (1, frame, n_mels), float32.
        """
        front_end = self.front_end
        window, hop = front_end["window"], int(front_end["hop"])
        if front_end["preemphasis"]:
            wav = np.append(wav[:1], wav[1:] - front_end["preemphasis"] * wav[:-1])
        size = len(window)
        padded = np.pad(wav, size // 2)
        framed = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
        power = np.abs(np.fft.rfft(framed * window)) ** 2
        mel = power @ front_end["filters"]
        decibels = 10 * np.log10(np.maximum(mel, front_end["amin"]))
        decibels = np.maximum(decibels, decibels.max() - front_end["top_db"])
        mean = decibels.mean() if front_end["keep_spectrum"] else decibels.mean(0)
        return (decibels - mean).astype(np.float32)[np.newaxis]

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
        (embedding,) = self.session.run(None, {"frames": self.features(wav)})
        return embedding[0, 0]

    def load_audio(self, path):
        """Reads a mono file of the right sample rate."""
        wav, sample_rate = soundfile.read(path, dtype="float32")
        if sample_rate != self.sample_rate or wav.ndim > 1:
            raise SystemExit(
                f"error: '{path}' is not mono at {self.sample_rate} Hz; convert it"
            )
        return wav


def main():
    """Prints the cosine score of two recordings and the decision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="of export_onnx.py")
    parser.add_argument("enrol", help="audio file")
    parser.add_argument("test", help="audio file")
    parser.add_argument("--int8", action="store_true")
    options = parser.parse_args()
    model = OnnxSpeakerModel(
        options.folder, "model_int8.onnx" if options.int8 else "model.onnx"
    )
    enrol, test = (
        model.embed(model.load_audio(path)) for path in (options.enrol, options.test)
    )
    score = enrol @ test / (np.linalg.norm(enrol) * np.linalg.norm(test))
    decision = "same speaker" if score > model.threshold else "different speakers"
    print(f"{score:.4f} {decision}")


if __name__ == "__main__":
    main()
