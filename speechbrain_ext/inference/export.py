"""From the folder of a training to a folder that holds a model."""

import dataclasses
import inspect
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.checkpoints import average_checkpoints

import speechbrain_ext
from speechbrain_ext.config import resolve
from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.dataio.datasets import speaker_encoder
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.inference.model_card import model_card
from speechbrain_ext.inference.model_folder import (
    APP,
    CALIBRATION,
    CARD,
    CLASSIFIER,
    COHORT,
    DESCRIPTION,
    EXAMPLES,
    FILES,
    HYPERPARAMS,
    INTERFACE,
    LABEL_ENCODER,
    REQUIREMENTS,
    WEIGHTS,
    save_weights,
)
from speechbrain_ext.inference.model_scoring import Cohort, ModelScoring
from speechbrain_ext.inference.model_yaml import model_yaml
from speechbrain_ext.inference.space import (
    APP_TEXT,
    space_header,
    space_requirements,
)
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes.models.speaker_embedder import SpeakerEmbedder
from speechbrain_ext.processing.backends import CosineBackend
from speechbrain_ext.processing.calibration import Calibration
from speechbrain_ext.utils.checkpoints import best_checkpoint, best_checkpoints
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import (
    atomic_path,
    read_json,
    require_writable,
    write_json,
)

ENCODERS = ("weights", "reference")
BACKEND_SETTINGS = inspect.signature(CosineBackend).parameters
INTERFACE_TEXT = """\
# For speechbrain.inference.interfaces.foreign_class; needs speechbrain_ext.

from speechbrain_ext.inference.plain_speechbrain import (  # noqa: F401
    CalibratedSpeakerRecognition,
)
"""


def export_model(
    results: str | Path,
    output: str | Path,
    encoder: str = "weights",
    verification: str | Path | None = None,
    cohort: EmbeddingStore | None = None,
    license: str = "unknown",
    examples: Iterable[str | Path] = (),
    space: bool = False,
    trust_source: bool = False,
) -> Path:
    """Writes the best checkpoint of a training as a model folder.

    The folder is complete in itself, can be moved, and is loaded by
    `SpeakerRecognition.from_hparams`, by SpeechBrain's pretrained interfaces and
    by their `foreign_class`. It holds no pickle.

    Arguments
    ---------
    results : str or Path
        `output_folder` of a training.
    output : str or Path
        The folder to write; a model that is there is replaced.
    encoder : str
        "weights" to write the encoder's too; "reference" for its name and
        revision on the hub only, where it was not trained.
    verification : str or Path
        `output_folder` of a verification of the model, whose metrics, score
        normalisation and calibration the folder gets; if None, the metrics of
        the training's test.
    cohort : EmbeddingStore
        Embeddings of training utterances, for score normalisation and for
        `encode_batch(normalize=True)`.
    license : str
        Licence of the model, as Hugging Face writes it, such as "apache-2.0".
    examples : list of str
        Recordings to add, for people who try the model.
    space : bool
        Whether to add what makes the folder a Hugging Face Space with the page of
        `speechbrain-ext demo`: app.py, requirements.txt and a header of README.md.
    trust_source : bool
        See `SpeakerRecognition.from_training`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the training has no checkpoint, what is asked for does not fit, or the
        folder holds something else.
    """
    results, output = Path(results), Path(output)
    if encoder not in ENCODERS:
        raise InputError(f"encoder: '{encoder}' is none of {', '.join(ENCODERS)}")
    found = {path.name for path in output.iterdir()} if output.is_dir() else set()
    # What a killed export leaves is of a model folder, but has no YAML yet.
    foreign = {n for n in found - {*FILES, EXAMPLES} if not n.startswith(".partial-")}
    if foreign and HYPERPARAMS not in found or (output / "save").exists():
        raise InputError(
            f"'{output}' is there and is no model folder; give another one"
        )
    recordings = {f"{EXAMPLES}/{Path(path).name}": Path(path) for path in examples}
    if len(recordings) < len(list(examples)):
        raise InputError("two of the example recordings have the same file name")
    for path in recordings.values():
        read_crop(path, 16000)  # that it is a recording
    header = space_header(output.name) if space else {}
    require_writable(output / HYPERPARAMS)
    model = SpeakerRecognition.from_training(results, trust_source=trust_source)
    hparams_file = results / HYPERPARAMS
    content = resolve(hparams_file.read_text(encoding="utf-8"), hparams_file)
    reference = None
    if encoder == "reference":
        reference = _encoder_reference(model.encoder, content, results)
    metrics = _metrics(results, verification)
    scoring = _scoring(model.scoring, metrics, verification, cohort)
    kept_cohort = scoring.cohort if scoring.has_cohort else None
    if metrics is not None:
        # Paths of the machine are not for everybody.
        for key in ("command", "trained_model"):
            metrics.pop(key, None)
    data = {
        key: content[key]
        for key in ("dataset", "ssl_hub")
        if content.get(key) is not None
    }
    emb_dim = _embedding_dim(model)
    classifier = _classifier(results, content)
    yaml = model_yaml(
        content,
        hparams_file,
        model,
        reference,
        0 if kept_cohort is None else len(kept_cohort),
        emb_dim,
        None if classifier is None else len(classifier.speakers),
    )

    output.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (output / name).unlink(missing_ok=True)
    save_weights(
        SpeakerEmbedder(model.encoder, model.embedding_model),
        output / WEIGHTS,
        None if reference is None else "encoder",
    )
    scoring.save(output / CALIBRATION)
    if kept_cohort is not None:
        save_weights(kept_cohort, output / COHORT)
    if classifier is not None:
        save_weights(_Parameters(classifier.state), output / CLASSIFIER)
        speaker_encoder(classifier.speakers).save(output / LABEL_ENCODER)
    for name, path in recordings.items():
        (output / EXAMPLES).mkdir(exist_ok=True)
        shutil.copyfile(path, output / name)
    (output / INTERFACE).write_text(INTERFACE_TEXT, encoding="utf-8")
    description = {
        "speechbrain_ext": speechbrain_ext.__version__,
        "encoder": reference or data.get("ssl_hub") or type(model.encoder).__name__,
        "back_end": type(model.embedding_model).__name__,
        "parameters": {
            name: sum(p.numel() for p in module.parameters())
            for name, module in model.named_children()
        },
        "sample_rate": model.sample_rate,
        "emb_dim": emb_dim,
        "dataset": data.get("dataset"),
        "training_speakers": None if classifier is None else len(classifier.speakers),
        "metrics": metrics,
    }
    write_json(output / DESCRIPTION, description)
    if space:
        (output / APP).write_text(APP_TEXT, encoding="utf-8")
        (output / REQUIREMENTS).write_text(space_requirements(), encoding="utf-8")
    card = model_card(
        output.name, description, scoring, license, sorted(recordings), header
    )
    (output / CARD).write_text(card, encoding="utf-8")
    # Last, as a folder without it is no model.
    with atomic_path(output / HYPERPARAMS) as partial:
        partial.write_text(yaml, encoding="utf-8")
    return output


@dataclasses.dataclass
class _Classifier:
    """Of a training: its parameters, and its speakers."""

    state: dict[str, torch.Tensor]
    speakers: list[str]


class _Parameters(torch.nn.Module):
    """Parameters without the module that they are of."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.state = state

    def state_dict(self) -> dict[str, torch.Tensor]:  # type: ignore[override]
        """Returns the parameters."""
        return self.state


def _classifier(results: Path, content: dict[str, Any]) -> _Classifier | None:
    """The classifier of the best checkpoint; None where none was trained."""
    best = best_checkpoint(results / "save")
    speakers_file = results / "save" / "speakers.json"
    if "classifier" not in best.paramfiles or not speakers_file.is_file():
        return None
    checkpoints = best_checkpoints(
        results / "save", content.get("average_checkpoints", 1)
    )
    speakers = read_json(speakers_file)
    state = average_checkpoints(checkpoints, "classifier")
    return _Classifier(state, speakers)


def _encoder_reference(
    encoder: torch.nn.Module, content: dict[str, Any], results: Path
) -> str:
    """Name of the encoder on the hub, with the revision that was loaded."""
    hub = content.get("ssl_hub")
    if "encoder" in best_checkpoint(results / "save").paramfiles:
        raise InputError(
            "encoder: reference: the encoder was trained; export its weights"
        )
    if (
        not isinstance(hub, str)
        or Path(hub).is_dir()
        and not hub.startswith("speechbrain_ext/")
    ):
        raise InputError(
            f"encoder: reference: the encoder ({hub}) is not of the hub; export its "
            "weights"
        )
    revision = getattr(getattr(encoder, "config", None), "_commit_hash", None)
    return hub if revision is None or "@" in hub else f"{hub}@{revision}"


def _metrics(results: Path, verification: str | Path | None) -> dict[str, Any] | None:
    """metrics.json of the verification, or of the training's test; or None."""
    folder = results / "test" if verification is None else Path(verification)
    try:
        return read_json(folder / "metrics.json")
    except FileNotFoundError:
        if verification is None:
            return None
        raise InputError(
            f"'{folder}' has no metrics.json; give the output_folder of a verification"
        ) from None


def _scoring(
    scoring: ModelScoring,
    metrics: dict[str, Any] | None,
    verification: str | Path | None,
    cohort: EmbeddingStore | None,
) -> ModelScoring:
    """The scoring of the training, or of a verification of it."""
    settings = metrics or {}
    if settings.get("backend", "cosine") != "cosine":
        raise InputError(
            f"verification: a model folder scores by cosine, not {settings['backend']}"
        )
    scoring.backend = {
        key: value
        for key, value in settings.items()
        if key in BACKEND_SETTINGS and value is not None
    }
    backend = CosineBackend(**scoring.backend)
    if verification is not None and (Path(verification) / CALIBRATION).is_file():
        scoring.calibration = Calibration.load(Path(verification) / CALIBRATION)
    if cohort is not None:
        scoring.cohort = Cohort.of(cohort, backend)
    if backend.needs_cohort and cohort is None:
        raise InputError(
            "verification: its scores are compared with a cohort; give the embeddings "
            "of the training set as cohort"
        )
    if not backend.is_plain:
        if scoring.calibration is None:
            raise InputError(
                "verification: the threshold of the training is of plain cosine "
                "scores; verify with calibration: linear, so that the model can decide"
            )
        scoring.threshold = None
        scoring.threshold_from = "log-likelihood ratio of the calibration above 0"
    return scoring


def _embedding_dim(model: SpeakerRecognition) -> int:
    """Dimension of the embeddings."""
    return model.encode_batch(torch.zeros(1, model.sample_rate)).shape[-1]
