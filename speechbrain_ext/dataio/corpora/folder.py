"""Own recordings, a folder for each speaker."""

from collections.abc import Iterator
from pathlib import Path

from speechbrain_ext.dataio.audio import AUDIO_EXTENSIONS
from speechbrain_ext.dataio.corpora.base import Corpus, LeftOut, Utterance, audio_files


class Folder(Corpus):
    """Recordings in <root>/<speaker>/**/<audio file>.

    Example
    -------
    >>> from pathlib import Path
    >>> root = Path(getfixture("tmpdir"))
    >>> (root / "anna").mkdir()
    >>> (root / "anna" / "1.wav").touch()
    >>> utterances, _ = Folder().list_utterances([root])
    >>> utterances[0].id, utterances[0].speaker
    ('anna/1.wav', 'anna')
    """

    name = "folder"
    expected = "<root>/<speaker>/**/<audio file> with one of " + ", ".join(
        AUDIO_EXTENSIONS
    )
    speaker_names_are_global = False

    def utterances(self, root: Path, left_out: LeftOut) -> Iterator[Utterance]:
        """Yields the utterances below a root, as `Corpus.utterances`."""
        for file in audio_files(root, left_out):
            below = file.path.relative_to(root)
            if len(below.parts) == 1:
                left_out.append((str(file.path), "in no speaker's folder"))
                continue
            yield Utterance.of_file(file, below.as_posix(), below.parts[0])


CORPORA = (Folder(),)
