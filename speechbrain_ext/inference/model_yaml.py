"""The hyperparams.yaml of an exported model."""

from ruamel.yaml import YAML

import speechbrain_ext
from speechbrain_ext.config import select_keys
from speechbrain_ext.inference.model_folder import (
    CALIBRATION,
    CLASSIFIER,
    COHORT,
    LABEL_ENCODER,
    WEIGHTS,
)
from speechbrain_ext.lobes.models.without_padding import MODELS

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


def model_yaml(content, source, model, reference, n_cohort, emb_dim, n_classes):
    """Writes the hyperparams.yaml of an exported model.

    Arguments
    ---------
    content : dict
        YAML of the training with its references resolved; it is changed.
    source : str or Path
        Name of the file, for messages.
    model : SpeakerRecognition
        What it builds.
    reference : str
        Name of the encoder on the hub; None where its weights are exported.
    n_cohort : int
        Speakers of the cohort.
    emb_dim : int
        Dimension of the embeddings.
    n_classes : int
        Classes of the classifier; None where none is exported.

    Returns
    -------
    str
        The YAML, which loads in SpeechBrain too.
    """
    node = content["encoder"]
    if isinstance(node, dict) and "source" in node:
        node["source"] = reference or getattr(
            model.encoder, "architecture", node["source"]
        )
        for key in ("save_path", "gradient_checkpointing"):
            node.pop(key, None)
    masked = {_new(old): _new(masked) for old, masked in MODELS.items()}
    content["back_end"] = _plain(
        content.pop("embedding_model"), node, model.encoder, masked
    )
    keys = ["sample_rate", "encoder", "back_end", "audio_normalizer"]
    content["audio_normalizer"] = _tagged(
        "!new:speechbrain.dataio.preprocess.AudioNormalizer",
        sample_rate=model.sample_rate,
    )
    extra = {"label_encoder": "", "modules": "", "loadables": ""}
    if n_classes is not None:
        node = content["classifier"]
        path = node.tag.value.partition(":")[2]
        content["classifier"] = _tagged(f"!new:{path}", **node, out_neurons=n_classes)
        keys.append("classifier")
        extra["label_encoder"] = (
            "label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder\n\n"
        )
        extra["modules"] = "    classifier: !ref <classifier>\n"
        extra["loadables"] += (
            f"        {CLASSIFIER}: !ref <classifier>\n"
            f"        {LABEL_ENCODER}: !ref <label_encoder>\n"
        )
    if n_cohort:
        extra["loadables"] += f"        {COHORT}: !ref <mean_var_norm_emb>\n"
    return HYPERPARAMS_TEXT.format(
        version=speechbrain_ext.__version__,
        model=_without_comments(select_keys(content, keys, source)),
        n_cohort=n_cohort,
        emb_dim=emb_dim,
        weights_file=WEIGHTS,
        calibration_file=CALIBRATION,
        **extra,
    )


def _without_comments(text):
    """Text without the comments and blank lines of the training's YAML."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if line.split("#")[0].strip())


def _new(kind):
    """Tag that builds a class."""
    return f"!new:{kind.__module__}.{kind.__qualname__}"


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
