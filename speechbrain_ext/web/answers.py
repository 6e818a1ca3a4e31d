"""What the page answers: from recordings to texts, tables and figures.

Without Gradio, which `speechbrain_ext.web.page` lays out.
"""

import hashlib
import math
from pathlib import Path

import torch

from speechbrain_ext.dataio.audio import read_header, why_not_resampled
from speechbrain_ext.dataio.speech import doubt_about
from speechbrain_ext.plots.attention import layer_attention_figure
from speechbrain_ext.plots.waveforms import waveform_figure
from speechbrain_ext.utils.decisions import decision_basis, threshold_text
from speechbrain_ext.utils.errors import InputError

# Seconds that go through the model at once
WINDOW = 60.0


class Answers:
    """Answers a visitor of the page with one model.

    Arguments
    ---------
    model : SpeakerRecognition
        The model.
    max_duration : float
        Seconds that a recording may have.

    Example
    -------
    >>> import numpy, soundfile
    >>> from speechbrain_ext.inference.speaker import SpeakerRecognition
    >>> from speechbrain_ext.lobes import MaskedXvector, NormalizedFbank
    >>> xvector = MaskedXvector(in_channels=24)
    >>> model = SpeakerRecognition(NormalizedFbank(24), xvector, 16000, threshold=0.5)
    >>> path = str(getfixture("tmpdir") / "noise.wav")
    >>> soundfile.write(path, 0.1 * numpy.random.randn(16000), 16000)
    >>> text, *figures = Answers(model).verify(path, path)
    >>> print(text)
    ### Same speaker
    Score 1.0000 (threshold 0.5000, from unknown data)
    """

    def __init__(self, model, max_duration=60.0):
        self.model = model
        self.max_duration = max_duration

    def verify(self, first, second):
        """Says whether two recordings are of one speaker.

        Arguments
        ---------
        first : str
            Audio file, or None where the visitor gave none.
        second : str
            Audio file, or None.

        Returns
        -------
        text : str
            Decision, score, threshold and, where calibrated, probability, in Markdown.
        first_figure : matplotlib.figure.Figure
            See `figure`.
        second_figure : matplotlib.figure.Figure
            See `figure`.

        Raises
        ------
        InputError
            See `embed`.
        """
        sides = [
            self.embed(path, name)
            for path, name in ((first, "first"), (second, "second"))
        ]
        (enrol, enrol_seconds), (test, test_seconds) = sides
        result = self.model.scoring.compare(
            enrol[None], test[None], [enrol_seconds], [test_seconds]
        )
        verdict = "Same speaker" if result.decision.item() else "Different speakers"
        basis = threshold_text(decision_basis(self.model.scoring))
        text = f"### {verdict}\nScore {result.score.item():.4f} ({basis})"
        if result.probability is not None:
            text += f"\n\nProbability of one speaker: {result.probability.item():.4f}"
        return text, self.figure(first), self.figure(second)

    def enrol(self, gallery, name, recording):
        """Adds a recording to a speaker of the gallery.

        Arguments
        ---------
        gallery : Gallery
            Gallery of the visitor.
        name : str
            Name of the speaker.
        recording : str
            Audio file, or None.

        Raises
        ------
        InputError
            If the name is empty, or as of `embed`.
        """
        name = " ".join((name or "").split())
        if not name:
            raise InputError("Give the speaker a name.")
        embedding, duration = self.embed(recording)
        gallery.enrol(
            name,
            [_label(recording)],
            embedding[None],
            [duration],
            self.model.fingerprint,
        )

    def identify(self, gallery, recording):
        """Says which enrolled speakers a recording resembles most.

        Arguments
        ---------
        gallery : Gallery
            Gallery of the visitor.
        recording : str
            Audio file, or None.

        Returns
        -------
        text : str
            Name of the speaker, or that it is nobody enrolled, in Markdown.
        rows : list of list
            Name, score, decision and probability ("" without calibration) of the
            candidates, the highest score first.

        Raises
        ------
        InputError
            If nobody is enrolled, or as of `embed`.
        """
        if not gallery.speakers():
            raise InputError("Nobody is enrolled. Enrol a speaker first.")
        embedding, duration = self.embed(recording)
        [candidates] = gallery.identify(self.model, embedding[None], [duration])
        best = candidates[0]
        # As code, so that a name is not read as Markdown
        who = f"`{best.name}`" if best.decision else "Nobody enrolled"
        basis = threshold_text(decision_basis(self.model.scoring))
        rows = [
            [
                one.name,
                f"{one.score:.4f}",
                "same speaker" if one.decision else "another speaker",
                "" if one.probability is None else f"{one.probability:.4f}",
            ]
            for one in candidates
        ]
        return f"### {who}\nScore {best.score:.4f} ({basis})", rows

    def embed(self, path, which=""):
        """Checks and embeds a recording.

        Arguments
        ---------
        path : str
            Audio file, or None.
        which : str
            Which recording it is, for the error where there is none.

        Returns
        -------
        embedding : torch.Tensor
            Embedding, of shape (dim,).
        duration : float
            Duration in seconds.

        Raises
        ------
        InputError
            If there is none, it cannot be read, or is too long, too short or silent.
            The message names the file without its folder.
        """
        if path is None:
            recording = " ".join(["the", which, "recording"]).replace("  ", " ")
            raise InputError(f"Record or drop {recording} first.")
        name = Path(path).name
        try:
            header = read_header(path)
            # Before anything is decoded
            if header.duration > self.max_duration:
                raise InputError(
                    f"it has {header.duration:.1f} s; at most {self.max_duration:g} s "
                    "are taken"
                )
            reason = why_not_resampled(header.sample_rate, self.model.sample_rate)
            reason = reason or doubt_about(path)
            if reason:
                raise InputError(reason)
            embedding = self.model.encode_file(path, WINDOW)
        except InputError as error:
            message = str(error).replace(f"'{path}'", "it").replace(str(path), name)
            raise InputError(f"{name}: {message.rstrip('.')}.") from error
        if not embedding.isfinite().all():
            raise InputError(f"{name}: the model gives no embedding of it (NaN).")
        return embedding, header.duration

    def figure(self, path):
        """Draws a recording, with the weights of layers where the model has them.

        Arguments
        ---------
        path : str
            Audio file that `embed` has taken.

        Returns
        -------
        matplotlib.figure.Figure
            Waveform, above the layers that are attended to over time.
        """
        model = self.model
        wav = model.load_audio(path)
        if not model.has_layer_weights:
            return waveform_figure(wav, model.sample_rate)
        n_windows = math.ceil(len(wav) / (WINDOW * model.sample_rate))
        weights = [model.layer_weights(part) for part in wav.tensor_split(n_windows)]
        return layer_attention_figure(wav, torch.cat(weights, dim=1), model.sample_rate)


def _label(path):
    """Name of a recording, by its content: microphones name all alike."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return f"{Path(path).name} {digest[:12]}"
