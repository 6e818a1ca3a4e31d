"""CN-Celeb 1 and 2 (arXiv 1911.01799 and 2012.12468), from openslr.org/82."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from speechbrain_ext.dataio.audio import AUDIO_EXTENSIONS
from speechbrain_ext.dataio.corpora.base import (
    Corpus,
    LaidOut,
    LeftOut,
    SourceSpeaker,
    Utterance,
    audio_files,
    speaker_folders,
)
from speechbrain_ext.dataio.trials import LABELS, Trials, require_both_labels
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import read_fields
from speechbrain_ext.utils.files import write_lines

SPEAKER = r"id\d{5}"
TRIALS = "cnceleb-e"
N_DEV_SPEAKERS = 800  # numbers from id00000 on; from id00800 on they are for the test


class CNCeleb(Corpus):
    """CN-Celeb as the archives are unpacked, in flac or converted to wav.

    CN-Celeb1 has data/idNNNNN/<genre>-NN-NNN.flac of all speakers,
    dev/dev.lst with the speakers to train on, and eval with the test of the
    others: each model in eval/enroll/idNNNNN-enroll.flac, which is several
    utterances in a row, against each file of eval/test. CN-Celeb2 has data
    alone, and all its speakers are trained on. Either archive is a root, and
    several roots are taken together.

    The lists of eval/lists name a model and what stands for it: enroll.lst its
    file, enroll.map its utterances below data, and each line of trials.lst
    `model test/<file>.wav 1`, with 0 for non-target trials; all say .wav,
    whatever the files are.

    Example
    -------
    >>> from pathlib import Path
    >>> root = Path(getfixture("tmpdir"))
    >>> for name in ("data/id00001/speech-01-001", "eval/test/id00800-speech-01-001"):
    ...     (root / name).parent.mkdir(parents=True)
    ...     (root / f"{name}.flac").touch()
    >>> (root / "dev").mkdir()
    >>> _ = (root / "dev" / "dev.lst").write_text("id00001\\n")
    >>> [(u.speaker, u.split) for u in CNCeleb().utterances(root, [])]
    [('id00001', None), ('id00800', 'test')]
    """

    name = "cnceleb"
    expected = (
        "data/idNNNNN/<genre>-NN-NNN, and in CN-Celeb1 dev/dev.lst, eval/enroll, "
        "eval/test and eval/lists; audio with one of " + ", ".join(AUDIO_EXTENSIONS)
    )
    own_trials = {TRIALS: "eval/lists/trials.lst"}

    def trial_sources(
        self, test: str | None = None, valid: str | None = None
    ) -> dict[str, str | None]:
        """Where trials are from, as `Corpus.trial_sources`."""
        return {"test": test or TRIALS, "valid": valid}

    def utterances(self, root: Path, left_out: LeftOut) -> Iterator[Utterance]:
        """Yields the utterances below a root, as `Corpus.utterances`."""
        trained_on = self._training_speakers(root)
        data, test = root / "data", root / "eval"
        for speaker in (
            speaker_folders(data, SPEAKER, left_out) if data.is_dir() else ()
        ):
            trainable = trained_on is None or speaker.name in trained_on
            for file in audio_files(speaker, left_out):
                name = file.path.relative_to(root).as_posix()
                yield Utterance.of_file(file, name, speaker.name, trainable)
        for folder in (test / "enroll", test / "test"):
            for file in audio_files(folder, left_out) if folder.is_dir() else ():
                name = file.path.relative_to(root).as_posix()
                speaker_name = file.path.name.partition("-")[0]
                yield Utterance.of_file(file, name, speaker_name, False, "test")

    def _training_speakers(self, root: Path) -> set[str] | None:
        """The speakers of dev.lst; None for CN-Celeb2, where it is all."""
        dev_list = root / "dev" / "dev.lst"
        if dev_list.is_file():
            lines = read_fields(dev_list, "list of speakers", [1])
            return {speaker for _, (speaker,) in lines}
        if (root / "eval").is_dir():
            raise InputError(
                f"data_folder: '{root}' has no dev/dev.lst, which tells the "
                "speakers to train on from those of eval"
            )
        return None

    def read_own_trials(self, path: str | Path) -> Trials:
        """Reads trials.lst, whose lines are `model test label`."""
        labels: list[int] = []
        enrol: list[str] = []
        test: list[str] = []
        for number, fields in read_fields(path, "trial list"):
            if len(fields) != 3 or fields[2] not in LABELS:
                raise InputError(
                    f"'{path}', line {number}: '{' '.join(fields)}'; a trial of "
                    "CN-Celeb is 'model test label', with 1 for target trials"
                )
            enrol.append(fields[0])
            test.append(fields[1])
            labels.append(LABELS[fields[2]])
        trials = Trials(labels, enrol, test)
        require_both_labels(trials, path)
        return trials

    def enrolments(self, root: Path) -> dict[str, list[str]]:
        """Utterances of each model, of enroll.map, as `Corpus.enrolments`."""
        path = root / "eval" / "lists" / "enroll.map"
        if not path.is_file():
            return {}
        return {
            f"eval/enroll/{model}": [f"data/{name}" for name in names]
            for _, (model, *names) in read_fields(path, "map of enrolments")
        }


CORPORA = (CNCeleb(),)


def lay_out(
    speakers: Iterable[SourceSpeaker], root: Path, n_trials: int, sample_rate: int
) -> LaidOut:
    """Folders, names and lists as in CN-Celeb1, as `LayOut`.

    A test speaker is enrolled from the first half of the utterances, and
    tested on the others, against all models.
    """
    numbers = {"dev": iter(range(N_DEV_SPEAKERS)), "test": iter(range(800, 1000))}
    dev, enrolled, tested = [], {}, []
    for split, utterances, _ in speakers:
        is_test = split == "test"
        number = next(numbers["test" if is_test else "dev"], None)
        if number is None:
            raise InputError(
                "CN-Celeb has names for 800 and 200 speakers; take fewer, or "
                "another layout"
            )
        speaker = f"id{number:05}"
        names = [f"speech-{i:02}-001" for i in range(1, len(utterances) + 1)]
        for source, name in zip(utterances, names):
            yield source, root / "data" / speaker / f"{name}.flac", sample_rate
        if not is_test:
            dev.append(speaker)
            continue
        half = (len(utterances) + 1) // 2
        enrolled[f"{speaker}-enroll"] = [f"{speaker}/{n}.wav" for n in names[:half]]
        target = root / "eval" / "enroll" / f"{speaker}-enroll.flac"
        yield utterances[:half], target, sample_rate
        for source, name in zip(utterances[half:], names[half:]):
            file_name = f"{speaker}-{name}"
            yield source, root / "eval" / "test" / f"{file_name}.flac", sample_rate
            tested.append(f"test/{file_name}.wav")
    lists = root / "eval" / "lists"
    write_lines(root / "dev" / "dev.lst", dev)
    write_lines(lists / "enroll.lst", (f"{m} enroll/{m}.wav" for m in enrolled))
    write_lines(lists / "enroll.map", (" ".join([m, *u]) for m, u in enrolled.items()))
    write_lines(lists / "test.lst", tested)
    write_lines(
        lists / "trials.lst",
        (
            f"{model} {name} {int(name.startswith('test/' + model[:7]))}"
            for model in enrolled
            for name in tested
        ),
    )
