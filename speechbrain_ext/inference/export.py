"""From the folder of a training to a folder that holds a model."""

import dataclasses
import json
import shutil
from pathlib import Path

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from ruamel.yaml import YAML
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.checkpoints import average_checkpoints

import speechbrain_ext
from speechbrain_ext.config import resolve, select_keys
from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.inference.model_card import model_card
from speechbrain_ext.inference.model_folder import (
    CALIBRATION,
    CARD,
    CLASSIFIER,
    COHORT,
    DESCRIPTION,
    FILES,
    HYPERPARAMS,
    INTERFACE,
    LABEL_ENCODER,
    WEIGHTS,
    find_model,
    save_weights,
)
from speechbrain_ext.inference.model_scoring import Cohort
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes.models.speaker_embedder import SpeakerEmbedder
from speechbrain_ext.lobes.models.without_padding import MODELS
from speechbrain_ext.processing.calibration import Calibration
from speechbrain_ext.utils.checkpoints import best_checkpoint, best_checkpoints
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path, write_json

EXAMPLES = "examples"  # folder of recordings
ENCODERS = ("weights", "reference")
INTERFACE_TEXT = '''"""For speechbrain.inference.interfaces.foreign_class; needs speechbrain_ext."""

from speechbrain_ext.inference.plain_speechbrain import (  # noqa: F401
    CalibratedSpeakerRecognition,
)
'''
HYPERPARAMS_TEXT = """\
# A speaker model that speechbrain_ext {version} exported; README.md says more.

{model}
# Encoder and back end as one, which both get the lengths of a batch.
embedding_model: !new:speechbrain_ext.lobes.SpeakerEmbedder
    encoder: !ref <encoder>
    embedding_model: !ref <back_end>

# What SpeechBrain's interfaces call before and after it
compute_features: !new:torch.nn.Identity

mean_var_norm: !new:speechbrain.nnet.containers.LengthsCapableSequential
    - !new:torch.nn.Identity

mean_var_norm_emb: !new:speechbrain_ext.inference.model_scoring.Cohort
    n_speakers: {n_cohort}
    dim: {emb_dim}

scoring: !new:speechbrain_ext.inference.model_scoring.ModelScoring
    cohort: !ref <mean_var_norm_emb>

{label_encoder}modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
{modules}
pretrainer: !new:speechbrain_ext.inference.model_folder.FolderPretrainer
    loadables:
        {weights_file}: !ref <embedding_model>
        {calibration_file}: !ref <scoring>
{loadables}"""


def export_model(
    results,
    output,
    encoder="weights",
    verification=None,
    cohort=None,
    license="unknown",
    examples=(),
    trust_source=False,
):
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
        Of the model, as Hugging Face writes it, such as "apache-2.0".
    examples : list of str
        Recordings to add, for people who try the model.
    trust_source : bool
        As of `SpeakerRecognition.from_training`.

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
    foreign = output.is_dir() and {path.name for path in output.iterdir()}
    if foreign and HYPERPARAMS not in foreign or (output / "save").exists():
        raise InputError(
            f"'{output}' is there and is no model folder; give another one"
        )
    recordings = {f"{EXAMPLES}/{Path(path).name}": Path(path) for path in examples}
    if len(recordings) < len(list(examples)):
        raise InputError("two of the example recordings have the same file name")
    for path in recordings.values():
        read_crop(path, 16000)  # that it is a recording
    model = SpeakerRecognition.from_training(results, trust_source=trust_source)
    hparams_file = results / HYPERPARAMS
    content = resolve(hparams_file.read_text(encoding="utf-8"), hparams_file)
    reference = None
    if encoder == "reference":
        reference = _encoder_reference(model.encoder, content, results)
    metrics = _metrics(results, verification)
    scoring = _scoring(model.scoring, metrics, verification, cohort)
    data = {
        key: content[key]
        for key in ("dataset", "ssl_hub")
        if content.get(key) is not None
    }
    emb_dim = _embedding_dim(model)
    classifier = _classifier(results, content, model)
    yaml = _hyperparams(
        content, hparams_file, model, reference, scoring, emb_dim, classifier
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
    if scoring.has_cohort:
        save_weights(scoring.cohort, output / COHORT)
    if classifier is not None:
        save_weights(_Parameters(classifier.state), output / CLASSIFIER)
        label_encoder = CategoricalEncoder()
        label_encoder.update_from_iterable(classifier.speakers)
        label_encoder.save(output / LABEL_ENCODER)
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
    card = model_card(output.name, description, scoring, license, sorted(recordings))
    (output / CARD).write_text(card, encoding="utf-8")
    # Last, as a folder without it is no model.
    with atomic_path(output / HYPERPARAMS) as partial:
        partial.write_text(yaml, encoding="utf-8")
    return output


def push_model(folder, name, token=None, private=False):
    """Uploads a model folder to the Hugging Face hub.

    Arguments
    ---------
    folder : str or Path
        Of `export_model`.
    name : str
        user/name on the hub; made where it does not exist.
    token : str
        For the hub; the one that is logged in with if None.
    private : bool
        Whether a new one can be seen by its owner only.

    Returns
    -------
    str
        Address of the upload.

    Raises
    ------
    InputError
        If the folder is no model folder, or the hub refuses.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder '{folder}'; export a model first")
    find_model(folder)
    missing = [
        file for file in (WEIGHTS, CALIBRATION, CARD) if not (folder / file).is_file()
    ]
    if missing:
        raise InputError(f"'{folder}' lacks {', '.join(missing)}; export it again")
    api = HfApi(token=token)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        # What else lies in the folder is not ours to publish.
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[*FILES, f"{EXAMPLES}/*"],
            commit_message="Upload a speaker model of speechbrain_ext",
        )
    except HFValidationError as error:
        raise InputError(
            f"'{name}' is no name on the hub, which is user/name"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"'{name}' could not be uploaded to the Hugging Face hub ({reason[0]}); log "
            "in with `hf auth login`, or give a token that may write"
        ) from error
    return str(commit)


@dataclasses.dataclass
class _Classifier:
    """Of a training: how it is built, its parameters, and its speakers."""

    node: object
    state: dict
    speakers: list


class _Parameters(torch.nn.Module):
    """Parameters without the module that they are of."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def state_dict(self):
        """Returns the parameters."""
        return self.state


def _classifier(results, content, model):
    """The classifier of the best checkpoint; None where none was trained."""
    best = best_checkpoint(results / "save")
    speakers_file = results / "save" / "speakers.json"
    if "classifier" not in best.paramfiles or not speakers_file.is_file():
        return None
    checkpoints = best_checkpoints(
        results / "save", content.get("average_checkpoints", 1)
    )
    speakers = json.loads(speakers_file.read_text(encoding="utf-8"))
    state = average_checkpoints(checkpoints, "classifier")
    return _Classifier(content["classifier"], state, speakers)


def _hyperparams(content, source, model, reference, scoring, emb_dim, classifier):
    """Text of the YAML."""
    node = content["encoder"]
    if isinstance(node, dict) and "source" in node:
        node["source"] = reference or getattr(
            model.encoder, "architecture", node["source"]
        )
        for key in ("save_path", "gradient_checkpointing"):
            node.pop(key, None)
    masked = {
        f"!new:{old.__module__}.{old.__qualname__}": f"!new:{new.__module__}.{new.__qualname__}"
        for old, new in MODELS.items()
    }
    content["back_end"] = _plain(
        content.pop("embedding_model"), node, model.encoder, masked
    )
    keys = ["sample_rate", "encoder", "back_end", "audio_normalizer"]
    content["audio_normalizer"] = _tagged(
        "!new:speechbrain.dataio.preprocess.AudioNormalizer",
        sample_rate=model.sample_rate,
    )
    extra = {"label_encoder": "", "modules": "", "loadables": ""}
    if classifier is not None:
        path = classifier.node.tag.value.partition(":")[2]
        content["classifier"] = _tagged(
            f"!new:{path}", **classifier.node, out_neurons=len(classifier.speakers)
        )
        keys.append("classifier")
        extra["label_encoder"] = (
            "label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder\n\n"
        )
        extra["modules"] = "    classifier: !ref <classifier>\n"
        extra["loadables"] += (
            f"        {CLASSIFIER}: !ref <classifier>\n"
            f"        {LABEL_ENCODER}: !ref <label_encoder>\n"
        )
    if scoring.has_cohort:
        extra["loadables"] += f"        {COHORT}: !ref <mean_var_norm_emb>\n"
    return HYPERPARAMS_TEXT.format(
        version=speechbrain_ext.__version__,
        model=select_keys(content, keys, source),
        n_cohort=len(scoring.cohort) if scoring.has_cohort else 0,
        emb_dim=emb_dim,
        weights_file=WEIGHTS,
        calibration_file=CALIBRATION,
        **extra,
    )


def _tagged(tag, **values):
    """A mapping with a tag."""
    node = YAML().load(f"{tag} {{}}")
    node.fa.set_block_style()
    node.update(values)
    return node


def _plain(node, encoder_node, encoder, tags):
    """A node with what it takes from the encoder as values, and other tags."""
    tag = getattr(getattr(node, "tag", None), "value", None)
    if tag == "!apply:getattr" and node[0] == encoder_node:
        return getattr(encoder, str(node[1]))
    if isinstance(node, dict):
        for key in node:
            node[key] = _plain(node[key], encoder_node, encoder, tags)
    elif isinstance(node, list):
        for i, child in enumerate(node):
            node[i] = _plain(child, encoder_node, encoder, tags)
    if tag in tags:
        node.yaml_set_tag(tags[tag])
    return node


def _encoder_reference(encoder, content, results):
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


def _metrics(results, verification):
    """metrics.json of the verification, or of the training's test; or None."""
    folder = results / "test" if verification is None else Path(verification)
    try:
        return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        if verification is None:
            return None
        raise InputError(
            f"'{folder}' has no metrics.json; give the output_folder of a verification"
        ) from None


def _scoring(scoring, metrics, verification, cohort):
    """The scoring of the training, or of a verification of it."""
    settings = metrics or {}
    if settings.get("backend", "cosine") != "cosine":
        raise InputError(
            f"verification: a model folder scores by cosine, not {settings['backend']}"
        )
    scoring.score_norm = settings.get("score_norm")
    scoring.cohort_size = settings.get("cohort_size")
    scoring.subtract_mean = bool(settings.get("subtract_mean"))
    if verification is not None and (Path(verification) / CALIBRATION).is_file():
        scoring.calibration = Calibration.load(Path(verification) / CALIBRATION)
    if cohort is not None:
        scoring.cohort = Cohort.of(
            cohort.embeddings, cohort.speakers, scoring.subtract_mean
        )
    normalizes = scoring.score_norm is not None or scoring.subtract_mean
    if normalizes and cohort is None:
        raise InputError(
            "verification: its scores are compared with a cohort; give the embeddings "
            "of the training set as cohort"
        )
    if normalizes:
        if scoring.calibration is None:
            raise InputError(
                "verification: the threshold of the training is of plain cosine scores; "
                "verify with calibration: linear, so that the model can decide"
            )
        scoring.threshold = None
        scoring.threshold_from = "log-likelihood ratio of the calibration above 0"
    return scoring


def _embedding_dim(model):
    """Dimension of the embeddings."""
    return model.encode_batch(torch.zeros(1, model.sample_rate)).shape[-1]
