"""What a recipe's YAML says of its data."""

import dataclasses
from pathlib import Path

from speechbrain_ext.dataio.corpora import get_corpus
from speechbrain_ext.schema import check_values
from speechbrain_ext.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The data keys of hparams/data.yaml, checked.

    Arguments
    ---------
    dataset : str
        "folder" for <root>/<speaker>/**/<audio>; "voxceleb1", "voxceleb2" or
        "voxceleb12" for the speakers to train on, in VoxCeleb's layout;
        "vctk", release 0.80 or 0.92; "librispeech", whose dev and test parts
        are the valid and test sets; "cnceleb", CN-Celeb1 or both; "demo" for
        synthetic voices, which are made if need be.
    data_folder : str or list of str
        Root of the corpus, or several of them.
    sample_rate : int
        Sample rate of the model, in Hz; other files are resampled when read.
    verification_file : str
        Test trials: "vox1-o", "vox1-e", "vox1-h" (cleaned), "vox1-o-original",
        a path or a URL of a list in VoxCeleb's format; "vox2-test", drawn from
        the test part of VoxCeleb2, or "vox2-test-original", as drawn for arXiv
        2409.07770; "cnceleb-e", those of CN-Celeb. Their speakers are kept out
        of training. If None, Vox1-O for the training
        speakers of VoxCeleb1, "vox2-test" for those of VoxCeleb2, "cnceleb-e"
        for CN-Celeb, else drawn from held-out speakers.
    valid_verification_file : str
        Validation trials likewise. If None, for VoxCeleb "vox2-test", or Vox1-O
        where the test is on that; where the data lacks that part, and for
        other corpora, drawn from held-out speakers.
    valid_speakers : float or int
        Share or number of speakers held out for validation.
    test_speakers : float or int
        Share or number of speakers held out for the test.
    n_valid_trials : int
        Validation trials to draw.
    n_test_trials : int
        Test trials to draw.
    min_duration : float
        Shorter files, in seconds, count as broken.
    allow_broken : bool
        Whether to go on when more than 1 % of the files are broken.
    seed : int
        Seed of the split and the draws.

    Raises
    ------
    InputError
        If a value makes no sense; the key is named.

    Example
    -------
    >>> DataSettings("folder", "data", valid_speakers=-0.1)
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: valid_speakers: -0.1 must be a share ...
    """

    dataset: str
    data_folder: str | Path | list
    sample_rate: int = 16000
    verification_file: str | Path | None = None
    valid_verification_file: str | Path | None = None
    valid_speakers: float | int = 0.1
    test_speakers: float | int = 0.1
    n_valid_trials: int = 10000
    n_test_trials: int = 10000
    min_duration: float = 0.5
    allow_broken: bool = False
    seed: int = 1986

    def __post_init__(self) -> None:
        get_corpus(self.dataset)
        if self.data_folder is None:
            raise InputError("data_folder: null must be the root of the corpus")
        check_values(
            {
                field.name: _path_as_text(getattr(self, field.name))
                for field in dataclasses.fields(self)
            }
        )

    @property
    def roots(self) -> list[Path]:
        """Folders of the corpus, a list of Path."""
        folders = self.data_folder
        if not isinstance(folders, (list, tuple)):
            folders = [folders]
        return list(map(Path, folders))


def _path_as_text(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return list(map(_path_as_text, value))
    return str(value) if isinstance(value, Path) else value
