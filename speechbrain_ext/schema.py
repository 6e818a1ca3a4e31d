"""What the values of the YAMLs may be, and which of them belong together.

`KEYS` has the type of each key, `TOGETHER` what must hold between keys, and
`WITHOUT_EFFECT` what a user cannot have meant. A key that is not here, of a YAML
of one's own, may have any value, and so may what `!new:` and its like build.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import AllowInfNan, ConfigDict, Field, TypeAdapter, ValidationError

from speechbrain_ext.utils.errors import InputError


class Kind(NamedTuple):
    """A type of values and how a message calls it.

    Arguments
    ---------
    type : type
        Type in a form that pydantic takes.
    description : str
        What a message says after "must be".
    is_text : bool
        Whether text on the command line stays as it is, as 001 does.
    is_list : bool
        Whether `[a, b]` on the command line is a list.
    """

    type: object
    description: str
    is_text: bool = False
    is_list: bool = False

    def or_null(self):
        """Gives the kind that takes null too."""
        return self._replace(
            type=self.type | None, description=f"{self.description}, or null"
        )


def _number(description, **bounds):
    return Kind(Annotated[float, AllowInfNan(False), Field(**bounds)], description)


def _whole(minimum):
    return Kind(
        Annotated[int, Field(ge=minimum)], f"a whole number of at least {minimum}"
    )


def _choice(*names):
    return Kind(Literal[names], f"one of {', '.join(names)}", is_text=True)


_Text = Annotated[str, Field(min_length=1)]
_Share = Annotated[float, AllowInfNan(False), Field(gt=0, lt=1)]

PRECISION = _choice("auto", "fp32", "fp16", "bf16")
TEXT = Kind(_Text, "text", is_text=True)
TEXTS = Kind(
    Annotated[list[_Text], Field(min_length=1)],
    "a list of names such as [a, b]",
    is_text=True,
    is_list=True,
)
PATHS = Kind(
    _Text | Annotated[list[_Text], Field(min_length=1)],
    "a folder, or a list of folders such as [/a, /b]",
    is_text=True,
    is_list=True,
)
SWITCH = Kind(bool, "True or False")
MAPPING = Kind(dict, "a mapping such as {lr: 0.001}")
NUMBER = _number("a number")
ABOVE_ZERO = _number("a number above 0", gt=0)
FROM_ZERO = _number("a number of at least 0", ge=0)
SHARE = _number("a share from 0 to 1", ge=0, le=1)
COUNT = _whole(1)
COUNT_OR_ZERO = _whole(0)
SPEAKERS = Kind(
    Annotated[int, Field(ge=2)] | _Share,
    "a share of the speakers between 0 and 1, or a whole number of at least 2",
)
SPEEDS = Kind(
    Annotated[
        list[Annotated[int, Field(ge=50, le=200)]], Field(min_length=1)
    ],
    "a list of whole per cents from 50 to 200, such as [100]",
)  # fmt: skip
COUNTS = Kind(
    Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)],
    "a list of whole numbers of at least 1",
)

KEYS = {
    # Data
    "seed": COUNT_OR_ZERO,
    "dataset": TEXT,
    "data_folder": PATHS.or_null(),
    "save_folder": TEXT,
    "output_folder": TEXT,
    "verification_file": TEXT.or_null(),
    "valid_verification_file": TEXT.or_null(),
    "valid_speakers": SPEAKERS,
    "test_speakers": SPEAKERS,
    "n_valid_trials": _whole(2),  # a target and a non-target trial
    "n_test_trials": _whole(2),
    "min_duration": FROM_ZERO,
    "allow_broken": SWITCH,
    "sample_rate": _whole(1000),
    "shards": COUNT.or_null(),
    "shards_folder": TEXT.or_null(),
    # Training
    "train_log": TEXT,
    "start_from": TEXT.or_null(),
    "stage": TEXT.or_null(),
    "stages": MAPPING,
    "number_of_steps": COUNT,
    "steps_per_epoch": COUNT,
    "validate_after": COUNT_OR_ZERO,
    "max_grad_norm": ABOVE_ZERO,
    "batch_size": COUNT,
    "grad_accumulation_factor": COUNT,
    "sentence_len": ABOVE_ZERO,
    "speeds": SPEEDS,
    "lr": ABOVE_ZERO,
    "min_lr": ABOVE_ZERO,
    "encoder_lr": ABOVE_ZERO,
    "encoder_frozen_steps": COUNT_OR_ZERO,
    "layer_lr_decay": _number("a number above 0, at most 1", gt=0, le=1),
    "warmup": SHARE,
    "weight_decay": FROM_ZERO,
    "classifier_weight_decay": FROM_ZERO.or_null(),
    "patience": COUNT,
    "precision": PRECISION,
    "eval_precision": PRECISION,
    "keep_checkpoints": COUNT,
    "average_checkpoints": COUNT,
    "ckpt_interval_minutes": FROM_ZERO,
    "num_workers": COUNT_OR_ZERO,
    "max_batch_duration": ABOVE_ZERO,
    "modules": MAPPING,
    # Augmentation
    "augment": SWITCH,
    "augment_fine_tuning": SWITCH,
    "augment_prob": SHARE,
    "noise_annotation": TEXT.or_null(),
    "noise_folder": TEXT.or_null(),
    "noise_url": TEXT.or_null(),
    "rir_folder": TEXT.or_null(),
    "rir_url": TEXT.or_null(),
    "n_rooms": COUNT,
    "vocal_tract_low": ABOVE_ZERO,
    "vocal_tract_high": ABOVE_ZERO,
    "fea_augment": Kind(None, "null, or an augmentation that !new: builds"),
    "max_freq_mask": COUNT,
    "max_time_mask": COUNT,
    "span_drop_utterance_prob": SHARE,
    "span_drop_start_prob": SHARE,
    "span_drop_length": COUNT,
    # Features and encoders
    "n_mels": COUNT,
    "n_mfcc": COUNT,
    "f_min": FROM_ZERO,
    "f_max": ABOVE_ZERO,
    "preemphasis": _number("a number from 0 to below 1", ge=0, lt=1),
    "keep_spectrum": SWITCH,
    "n_fft": COUNT,
    "normalization": _choice("mean", "mean-variance", "frame-length"),
    "frame_channels": COUNT,
    "ssl_hub": TEXT,
    "ssl_folder": TEXT,
    "freeze": SWITCH,
    "freeze_feature_extractor": SWITCH,
    "freeze_feature_projection": SWITCH,
    "mask_time_prob": SHARE,
    "mask_time_length": COUNT,
    "gradient_checkpointing": SWITCH,
    "lora_rank": COUNT_OR_ZERO,
    "lora_alpha": ABOVE_ZERO,
    "lora_targets": TEXTS.or_null(),
    "hidden_state_cache": TEXT.or_null(),
    # Embedding models
    "emb_dim": COUNT,
    "n_heads": COUNT,
    "mhfa_heads": COUNT,
    "context": COUNT_OR_ZERO,
    "compressed_channels": COUNT,
    "conv_channels": COUNT,
    "pooled_channels": COUNT,
    "projected_channels": COUNT,
    "dilations": COUNTS,
    "attentive": SWITCH,
    "unbiased_context": SWITCH,
    "recompute": SWITCH,
    "mean_layer": Kind(int, "a whole number"),
    "adapter_channels": COUNT,
    "ecapa_channels": COUNT,
    "ecapa_attention_channels": COUNT,
    "xvector_channels": COUNT,
    "growth_channels": COUNT,
    "bottleneck_channels": COUNT,
    "n_components": COUNT,
    "student_channels": COUNT,
    "vgg_width": COUNT,
    "vgg_channels": COUNTS,
    "vgg_out_channels": COUNT,
    "vgg_pooled_channels": COUNT,
    "head_dropout": _number("a share from 0 to below 1", ge=0, lt=1),
    "classifier_dropout": _number("a share from 0 to below 1", ge=0, lt=1),
    "pool": _choice("max", "sum", "mean"),
    "frame_pooling": Kind(None, "null, or a pooling that !new: builds"),
    # I-vectors
    "vad_range": ABOVE_ZERO,
    "ubm_components": COUNT,
    "covariance": _choice("diagonal", "full"),
    "n_ubm_frames": COUNT,
    "ubm_start_iterations": COUNT,
    "ubm_iterations": COUNT_OR_ZERO,
    "tv_iterations": COUNT,
    # Losses
    "loss": _choice("softmax", "am-softmax", "aam-softmax"),
    "scale": ABOVE_ZERO,
    "margin": FROM_ZERO,
    "margin_course": _choice("log", "exp", "cos"),
    "margin_steps": COUNT_OR_ZERO,
    "margin_schedule": Kind(None, "null, or a schedule that !new: builds"),
    "n_subcenters": COUNT,
    "top_k": COUNT_OR_ZERO,
    "penalty": FROM_ZERO,
    # Distillation
    "teacher": TEXT,
    "teacher_hparams": TEXT,
    "teacher_overrides": MAPPING,
    "teacher_training": MAPPING,
    "aggregations": MAPPING,
    "aggregation_overrides": MAPPING,
    "aggregated_layers": TEXTS,
    "frame_layers": TEXTS,
    "channels_first": SWITCH,
    "targets": TEXTS,
    "targets_folder": TEXT,
    "target_models": MAPPING,
    "separate_heads": SWITCH,
    "subtract_target_mean": SWITCH,
    "max_target_dim": COUNT.or_null(),
    "mse_weight": FROM_ZERO,
    "aam_weight": FROM_ZERO,
    # Pre-training
    "first_iteration": TEXT.or_null(),
    "history": TEXT,
    "encoder_layers": COUNT,
    "encoder_channels": COUNT,
    "n_units": _whole(2),
    "n_units_utterances": COUNT,
    "units_layer": COUNT_OR_ZERO,
    "mask_prob": _number("a share above 0, at most 1", gt=0, le=1),
    "mask_length": COUNT,
    "masked_weight": SHARE,
    "contrast_layer": COUNT_OR_ZERO,
    "contrast_weight": FROM_ZERO,
    # Verification
    "trained_model": TEXT,
    "trust_source": SWITCH,
    "trials_from": TEXT.or_null(),
    "test_folder": PATHS.or_null(),
    "trial_lists": Kind(
        Annotated[list[_Text | None], Field(min_length=1)],
        "a list of trial lists such as [vox1-o, vox1-e]",
        is_text=True,
        is_list=True,
    ),
    "window_length": ABOVE_ZERO.or_null(),
    "window_overlap": FROM_ZERO.or_null(),
    "speaker_genders": TEXT.or_null(),
    "steps": MAPPING,
    "subtract_mean": SWITCH,
    "score_norm": _choice("z-norm", "t-norm", "s-norm").or_null(),
    "cohort_size": COUNT.or_null(),
    "utterances_per_cohort_speaker": COUNT.or_null(),
    "utterances_per_training_speaker": COUNT.or_null(),
    "calibration": _choice("linear", "quality").or_null(),
    "n_calibration_trials": COUNT,
    "threshold": NUMBER.or_null(),
    "lda_dim": Kind(
        Annotated[int, Field(ge=1)] | Literal["auto"] | None,
        "a whole number of at least 1, auto, or null",
    ),
    "unbiased_std": SWITCH,
    "unit_length_cohort": SWITCH,
    "backend": Kind(None, "null, or a Backend that !new: builds"),
    "enrolments": TEXT.or_null(),
    "average": _choice("embeddings", "scores"),
    "adapt": SWITCH,
}

# Keys; what must hold between their values; what to say where it does not
TOGETHER = [
    (
        ("keep_checkpoints", "average_checkpoints"),
        lambda keep, average: average <= keep,
        "of {0} kept checkpoints {1} cannot be averaged; keep more or average fewer",
    ),
    (
        ("min_lr", "lr"),
        lambda low, high: low <= high,
        "min_lr {0} is above lr {1}; lower min_lr or raise lr",
    ),
    (
        ("f_min", "f_max"),
        lambda low, high: low < high,
        "f_min {0} is not below f_max {1}; lower f_min or raise f_max",
    ),
    (
        ("f_max", "sample_rate"),
        lambda high, rate: high <= rate / 2,
        "f_max {0} is above half of sample_rate {1}; lower f_max",
    ),
    (
        ("ssl_hub", "sample_rate"),
        lambda hub, rate: rate == 16000,
        "{0} was pre-trained on speech at 16000 Hz, not {1}; give 16000, to which "
        "other recordings are resampled",
    ),
    (
        ("first_iteration", "sample_rate"),
        lambda encoder, rate: encoder is None or rate == 16000,
        "{0} was pre-trained on speech at 16000 Hz, not {1}; give 16000, to which "
        "other recordings are resampled",
    ),
    (
        ("valid_speakers", "test_speakers"),
        lambda *shares: any(share > 1 for share in shares) or sum(shares) < 1,
        "shares of {0} and {1} leave no speakers to train on; give smaller ones",
    ),
    (
        ("vocal_tract_low", "vocal_tract_high"),
        lambda low, high: low <= high,
        "vocal_tract_low {0} is above vocal_tract_high {1}; swap them",
    ),
    (
        ("window_overlap", "window_length"),
        lambda overlap, length: None in (overlap, length) or overlap < length,
        "windows of {1} s cannot share {0} s; lower window_overlap",
    ),
    (
        ("contrast_layer", "encoder_layers"),
        lambda layer, n_layers: layer <= n_layers,
        "contrast_layer {0} is not among the {1} layers; give a lower one",
    ),
    (
        ("hidden_state_cache", "freeze"),
        lambda cache, freeze: cache is None or freeze,
        "hidden states of an encoder that is trained change; leave the cache out, or "
        "give it to the stage with freeze: True alone",
    ),
    (
        ("hidden_state_cache", "lora_rank"),
        lambda cache, rank: cache is None or rank == 0,
        "hidden states of an encoder that LoRA trains change; leave the cache out, or "
        "give lora_rank 0",
    ),
    (
        ("hidden_state_cache", "augment"),
        lambda cache, augment: cache is None or not augment,
        "waveforms of which the hidden states are stored cannot be augmented; leave "
        "the cache out, or give augment False (fea_augment, of hidden states, works)",
    ),
    (
        ("hidden_state_cache", "speeds"),
        lambda cache, speeds: cache is None or set(speeds) == {100},
        "waveforms of which the hidden states are stored have one speed; leave the "
        "cache out, or give speeds [100]",
    ),
    (
        ("hidden_state_cache", "shards_folder"),
        lambda cache, shards: None in (cache, shards),
        "hidden states are read in place of shards; leave the cache or the shards out",
    ),
    (
        ("ubm_components", "n_ubm_frames"),
        lambda n_components, n_frames: n_components <= n_frames,
        "{0} components cannot start at {1} frames; raise n_ubm_frames",
    ),
    (
        ("n_mfcc", "n_mels"),
        lambda n_mfcc, n_mels: n_mfcc <= n_mels,
        "{0} coefficients of {1} mel bands; lower n_mfcc or raise n_mels",
    ),
]  # fmt: skip

# Keys of earlier releases, which have no effect any more, and what they are called now
RENAMED_KEYS = {"span_drop": "fea_augment"}

# Keys that some YAMLs inherit and do not refer to; no code reads them by name, so that
# they have no effect there
BY_REFERENCE = frozenset(
    {
        "add_noise", "drop_chunk", "drop_freq", "encoder_channels", "encoder_lr",
        "first_iteration", "frame_channels", "frame_pooling", "layer_pooling",
        "n_heads", "pooled_channels", "recompute", "warmup",
    }
)  # fmt: skip

# For keys that a user gives: values of other keys with which they have no effect, and
# the remedy
WITHOUT_EFFECT = {
    "shards_folder": ({"shards": None}, "give --shards, their number"),
    "encoder_lr": ({"freeze": True}, "give --freeze=False to train the encoder"),
    "layer_lr_decay": ({"freeze": True}, "give --freeze=False to train the encoder"),
    "encoder_frozen_steps": (
        {"freeze": True}, "give --freeze=False to train the encoder",
    ),
    "freeze_feature_extractor": (
        {"freeze": True}, "give --freeze=False to train the encoder",
    ),
    "freeze_feature_projection": (
        {"freeze": True}, "give --freeze=False to train the encoder",
    ),
    "mask_time_prob": ({"freeze": True}, "give --freeze=False to train the encoder"),
    "mask_time_length": ({"mask_time_prob": 0}, "give a --mask_time_prob above 0"),
    "gradient_checkpointing": (
        {"freeze": True, "lora_rank": 0}, "give --freeze=False to train the encoder",
    ),
    "noise_annotation": ({"augment": False}, "give --augment=True"),
    "noise_folder": ({"augment": False}, "give --augment=True"),
    "rir_folder": ({"augment": False}, "give --augment=True"),
    "noise_url": ({"noise_folder": None}, "give --noise_folder, where it goes"),
    "rir_url": ({"rir_folder": None}, "give --rir_folder, where it goes"),
    "augment_prob": ({"augment": False}, "give --augment=True"),
    "lora_alpha": ({"lora_rank": 0}, "give a --lora_rank above 0"),
    "lora_targets": ({"lora_rank": 0}, "give a --lora_rank above 0"),
    "emb_dim": (
        {"separate_heads": False},
        "the targets say it; give --separate_heads=True for another one",
    ),
    "unbiased_context": ({"attentive": False}, "give --attentive=True"),
    "penalty": ({"top_k": 0}, "give a --top_k above 0"),
    "margin_course": ({"margin_steps": 0}, "give --margin_steps above 0"),
    "test_folder": ({"trials_from": None}, "give --trials_from, the kind of corpus"),
    "window_overlap": ({"window_length": None}, "give --window_length"),
    "n_test_trials": ({"trials_from": None}, "give --trials_from and --test_folder"),
    "verification_file": (
        {"trials_from": None}, "give --trials_from and --test_folder",
    ),
    "enrolments": ({"trials_from": None}, "give --trials_from and --test_folder"),
    "trial_lists": ({"trials_from": None}, "give --trials_from and --test_folder"),
    "cohort_size": ({"score_norm": None}, "give --score_norm"),
    "unbiased_std": ({"score_norm": None}, "give --score_norm"),
    "unit_length_cohort": ({"score_norm": None}, "give --score_norm"),
    "n_calibration_trials": ({"calibration": None}, "give --calibration"),
}  # fmt: skip


def check_values(values, source=None):
    """Checks the values of a YAML, or of a call.

    Arguments
    ---------
    values : dict
        Values of the YAML, with its references resolved.
    source : str or Path
        The YAML, for messages; None for a call.

    Raises
    ------
    InputError
        If a value is of another type or out of range, or values of several keys
        do not go together.

    Example
    -------
    >>> check_values({"lr": 0.1, "batch_size": 0}, "train.yaml")
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: batch_size: 0 in 'train.yaml' must ...
    """
    for old, new in RENAMED_KEYS.items():
        if old in values:
            raise InputError(f"{old} is called {new} now; rename it in '{source}'")
    plain = {
        key: plain_value(value)
        for key, value in values.items()
        # A list may refer to other keys item by item, as vgg_channels does.
        if key in KEYS
        and not has_tag(value)
        and not (isinstance(value, list) and any(map(has_tag, value)))
    }
    where = f" in '{source}'" if source else ""
    for key, value in plain.items():
        kind = KEYS[key]
        try:
            TypeAdapter(kind.type, config=ConfigDict(strict=True)).validate_python(
                _as_utf8(value)
            )
        except ValidationError:
            hint = ""
            if kind.is_text and isinstance(value, (int, float)):
                hint = "; text that looks like a number needs quotes in a YAML"
            raise InputError(
                f"{key}: {_shown(value)}{where} must be {kind.description}{hint}"
            ) from None
    for keys, holds, message in TOGETHER:
        if all(key in plain for key in keys):
            given = [plain[key] for key in keys]
            if not holds(*given):
                raise InputError(f"{' and '.join(keys)}: {message.format(*given)}")


def check_effect(given, runs):
    """Checks that each key that a user gives has an effect.

    Arguments
    ---------
    given : collection of str
        Keys of the command line.
    runs : list of dict
        The values of a training, or of each stage of it.

    Raises
    ------
    InputError
        If a key has no effect in any of the runs.

    Example
    -------
    >>> check_effect(["encoder_lr"], [{"freeze": True}, {"freeze": False}])
    >>> check_effect(["encoder_lr"], [{"freeze": True}])
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: encoder_lr has no effect with freeze: ...
    """
    for key in given:
        if key not in WITHOUT_EFFECT:
            continue
        others, remedy = WITHOUT_EFFECT[key]
        if all(others.items() <= run.items() for run in runs):
            shown = " and ".join(f"{k}: {_shown(v)}" for k, v in others.items())
            raise InputError(
                f"{key} has no effect with {shown}; {remedy}, or leave {key} out"
            )


def has_tag(value):
    """Whether HyperPyYAML builds a value, as with `!new:`.

    Arguments
    ---------
    value : object
        Value of a YAML that ruamel.yaml has loaded.

    Returns
    -------
    bool
        Whether it has a tag.

    Example
    -------
    >>> from ruamel.yaml import YAML
    >>> content = YAML().load("a: !new:torch.nn.ReLU\\nb: {c: 1}")
    >>> has_tag(content["a"]), has_tag(content["b"])
    (True, False)
    """
    tag = getattr(getattr(value, "tag", None), "value", None)
    return tag is not None and tag.startswith("!")


def plain_value(value):
    """A value of ruamel.yaml as Python's own types have it.

    Arguments
    ---------
    value : object
        Value of a YAML that ruamel.yaml has loaded.

    Returns
    -------
    object
        Mappings, lists, numbers, text; what has a tag stays as it is.

    Example
    -------
    >>> from ruamel.yaml import YAML
    >>> plain_value(YAML().load("{lr: 1e-3, speeds: [90, 100]}"))
    {'lr': 0.001, 'speeds': [90, 100]}
    """
    if has_tag(value):
        return value
    if isinstance(value, dict):
        return {key: plain_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _as_utf8(value):
    """Names that are not UTF-8, which pydantic refuses and the data says so itself."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return list(map(_as_utf8, value)) if isinstance(value, list) else value


def _shown(value):
    return "null" if value is None else str(value)
