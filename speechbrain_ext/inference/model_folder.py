"""The files of an exported model, and how they are found and loaded."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from speechbrain.utils.fetching import FetchConfig, LocalStrategy, fetch
from torch import nn

from speechbrain_ext.inference.trusted_yaml import load_trusted_yaml
from speechbrain_ext.utils.checkpoints import load_parameters
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path

HYPERPARAMS = "hyperparams.yaml"
WEIGHTS = "embedding_model.safetensors"
COHORT = "cohort.safetensors"
CLASSIFIER = "classifier.safetensors"
CALIBRATION = "calibration.json"
LABEL_ENCODER = "label_encoder.txt"
DESCRIPTION = "model.json"
CARD = "README.md"
INTERFACE = "custom_interface.py"
APP, REQUIREMENTS = "app.py", "requirements.txt"  # of a Hugging Face Space
EXAMPLES = "examples"  # folder of recordings
FILES = (
    HYPERPARAMS, WEIGHTS, COHORT, CLASSIFIER, CALIBRATION, LABEL_ENCODER,
    DESCRIPTION, CARD, INTERFACE, APP, REQUIREMENTS,
)  # fmt: skip
# Entry of a weights file: what is not in it, as it has a source of its own
LEFT_OUT = "left_out"


class FolderPretrainer:
    """Loads the files of a model folder; the `pretrainer` of its YAML.

    Called by SpeechBrain's pretrained interfaces as its own Pretrainer is, which
    has no safetensors. Nothing is unpickled.

    Arguments
    ---------
    loadables : dict
        What each file is loaded into: a torch.nn.Module for .safetensors, else
        an object with a method `load`.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> layer, other = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> save_weights(layer, folder / "layer.safetensors")
    >>> pretrainer = FolderPretrainer({"layer.safetensors": other})
    >>> _ = pretrainer.collect_files(str(folder))
    >>> pretrainer.load_collected()
    >>> bool(layer.weight == other.weight)
    True
    """

    def __init__(self, loadables: dict[str, Any]) -> None:
        self.loadables = loadables
        self.collect_in: str | Path | None = None
        self.paths: dict[str, Path] = {}

    def set_collect_in(self, path: str | Path | None) -> None:
        """Sets the folder for downloads, or for links to the files.

        Arguments
        ---------
        path : str or Path
            The folder; None to use the files where they are.
        """
        self.collect_in = path

    def collect_files(
        self,
        default_source: str,
        local_strategy: LocalStrategy = LocalStrategy.SYMLINK,
        fetch_config: FetchConfig = FetchConfig(),
    ) -> dict[str, Path]:
        """Finds or downloads the files.

        Arguments
        ---------
        default_source : str
            Folder or hub name.
        local_strategy : speechbrain.utils.fetching.LocalStrategy
            See SpeechBrain's `fetch`.
        fetch_config : speechbrain.utils.fetching.FetchConfig
            See SpeechBrain's `fetch`.

        Returns
        -------
        dict
            Path of each file.
        """
        for name in self.loadables:
            self.paths[name] = fetch(
                name,
                default_source,
                savedir=self.collect_in,
                local_strategy=local_strategy,
                fetch_config=fetch_config,
            )
        return dict(self.paths)

    def load_collected(self) -> None:
        """Loads the files into what they are for."""
        for name, loadable in self.loadables.items():
            if isinstance(loadable, nn.Module):
                load_weights(loadable, self.paths[name])
            else:
                loadable.load(self.paths[name])


def save_weights(
    module: nn.Module, path: str | Path, left_out: str | None = None
) -> None:
    """Writes the parameters and buffers of a module as safetensors, atomically.

    Arguments
    ---------
    module : torch.nn.Module
        The module.
    path : str or Path
        The file.
    left_out : str
        Name of a part that is not written, as it has a source of its own.
    """
    state = {
        # Tensors that share memory are refused.
        name: value.detach().cpu().clone().contiguous()
        for name, value in module.state_dict().items()
        if left_out is None or not name.startswith(f"{left_out}.")
    }
    metadata = {"format": "pt", **({LEFT_OUT: left_out} if left_out else {})}
    with atomic_path(path) as partial:
        save_file(state, partial, metadata)


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Loads what `save_weights` wrote.

    Arguments
    ---------
    module : torch.nn.Module
        Gets the parameters.
    path : str or Path
        The file.

    Raises
    ------
    InputError
        If it is no such file, or of another architecture.
    """
    try:
        with safe_open(path, "pt") as file:
            left_out = (file.metadata() or {}).get(LEFT_OUT)
        state = load_file(path)
    except SafetensorError as error:
        raise InputError(f"'{path}' is no safetensors file ({error})") from None
    if left_out is not None:
        own = module.state_dict()
        state = {
            **{n: v for n, v in own.items() if n.startswith(f"{left_out}.")},
            **state,
        }
    load_parameters(module, state, f"'{path}'")


def find_model(
    source: str | Path,
    savedir: str | Path | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> Path:
    """The local folder of a model, downloaded where it is on the hub.

    Arguments
    ---------
    source : str or Path
        Folder, or a name on the Hugging Face hub.
    savedir : str or Path
        Where to download to; the hub's cache if None. A local folder is read
        where it is.
    revision : str
        Branch, tag or commit on the hub.
    token : str
        Token for the hub; the one that is logged in with if None.

    Returns
    -------
    Path
        A folder with hyperparams.yaml.

    Raises
    ------
    InputError
        If there is no such folder or model, or a revision of a folder is asked for.
    """
    folder = Path(source)
    if folder.is_file():
        raise InputError(
            f"'{source}' is a file; give the folder of a training, or one that "
            "`speechbrain-ext export` wrote"
        )
    if not folder.is_dir():
        try:
            folder = Path(
                huggingface_hub.snapshot_download(
                    str(source),
                    revision=revision,
                    token=token,
                    local_dir=savedir,
                    allow_patterns=list(FILES),
                )
            )
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(
                f"'{source}' is no folder, and no model could be downloaded from the "
                f"Hugging Face hub by that name ({reason[0]})"
            ) from None
    elif revision is not None:
        raise InputError(f"'{source}' is a folder, which has no revision; leave it out")
    if not (folder / HYPERPARAMS).is_file():
        raise InputError(
            f"'{source}' has no {HYPERPARAMS}; give the output_folder of a training, "
            "or a folder that `speechbrain-ext export` wrote"
        )
    return folder


def load_model(folder: Path, trust_source: bool = False) -> dict[str, Any]:
    """Builds an exported model and loads its files.

    Arguments
    ---------
    folder : Path
        Folder that `find_model` found.
    trust_source : bool
        See `load_trusted_yaml`.

    Returns
    -------
    dict
        sample_rate, embedding_model, scoring and, where exported, classifier
        and label_encoder.

    Raises
    ------
    InputError
        If the folder is not what `export_model` writes, or its YAML would run
        what is not on the allow-list.
    """
    hparams_file = folder / HYPERPARAMS
    built = load_trusted_yaml(
        hparams_file.read_text(encoding="utf-8"),
        hparams_file,
        ["sample_rate", "embedding_model", "scoring", "pretrainer"],
        ["classifier", "label_encoder"],
        trust_source,
    )
    pretrainer = built.pop("pretrainer")
    missing = [name for name in pretrainer.loadables if not (folder / name).is_file()]
    if missing:
        raise InputError(f"'{folder}' lacks {', '.join(missing)}; export it again")
    pretrainer.collect_files(str(folder))
    pretrainer.load_collected()
    if "label_encoder" in built:
        # As many classes as the file has; SpeechBrain asks for a word on that.
        built["label_encoder"].ignore_len()
    return built


def describe(
    source: str | Path, revision: str | None = None, token: str | None = None
) -> dict[str, Any]:
    """What a model folder holds, without building the model.

    Arguments
    ---------
    source : str or Path
        See `find_model`.
    revision : str
        See `find_model`.
    token : str
        See `find_model`.

    Returns
    -------
    dict
        model, encoder, back_end, parameters of each, sample_rate (Hz), emb_dim,
        data, version of this package, metrics where they were exported, and what
        calibration.json says.

    Raises
    ------
    InputError
        If it is no exported model.
    """
    folder = find_model(source, revision=revision, token=token)
    contents = []
    for name in (DESCRIPTION, CALIBRATION):
        try:
            contents.append(json.loads((folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            raise InputError(
                f"'{folder}' has no {name} that can be read; give a folder that "
                "`speechbrain-ext export` wrote"
            ) from None
    description, calibration = contents
    return {**description, "scoring": calibration}
