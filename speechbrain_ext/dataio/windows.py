"""Long recordings as overlapping windows."""

import dataclasses
import math

from speechbrain_ext.utils.errors import InputError

# Seconds that are embedded as a whole: attention takes memory by the square of
# the duration, in a base encoder some 43 GB for each layer at this one.
MAX_WHOLE_DURATION = 600.0


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of equal length that cover a recording evenly.

    Arguments
    ---------
    length : float
        Length of a window, in seconds; a shorter recording stays whole.
    overlap : float
        Overlap of two windows, in seconds. It is exceeded where that lets the last
        window be as long as the others.

    Raises
    ------
    InputError
        If the windows are longer than what is embedded as a whole, or the
        overlap is not shorter than they are.

    Example
    -------
    >>> Windows(10.0, overlap=5.0).cut(duration=25.0)
    [(0.0, 10.0), (5.0, 10.0), (10.0, 10.0), (15.0, 10.0)]
    """

    length: float
    overlap: float = 0.0

    def __post_init__(self):
        if not 0 < self.length <= MAX_WHOLE_DURATION:
            raise InputError(
                f"window_length {self.length}: give seconds above 0, up to "
                f"{MAX_WHOLE_DURATION:.0f}"
            )
        if not 0 <= self.overlap < self.length:
            raise InputError(
                f"window_overlap {self.overlap}: give seconds from 0 to less than "
                f"window_length ({self.length})"
            )

    @classmethod
    def of_settings(cls, window_length, window_overlap):
        """Reads the keys of a YAML.

        Arguments
        ---------
        window_length : float
            Length of a window in seconds; None for whole recordings.
        window_overlap : float
            Overlap of two windows in seconds; None for none.

        Returns
        -------
        Windows or None
            None for whole recordings.

        Raises
        ------
        InputError
            If there is an overlap without a length.
        """
        if window_length is not None:
            return cls(window_length, window_overlap or 0.0)
        if window_overlap:
            raise InputError(
                f"window_overlap {window_overlap} has no effect without window_length"
            )
        return None

    def cut(self, duration, start=0.0):
        """Cuts a recording.

        Arguments
        ---------
        duration : float
            Duration in seconds.
        start : float
            Start in seconds.

        Returns
        -------
        list of tuple
            Start and duration of each window, in seconds.
        """
        if duration <= self.length:
            return [(start, duration)]
        step = self.length - self.overlap
        n_windows = math.ceil((duration - self.overlap) / step)
        step = (duration - self.length) / (n_windows - 1)
        return [(start + i * step, self.length) for i in range(n_windows)]


def cut_recording(item, windows):
    """The pieces of an utterance that are embedded.

    Arguments
    ---------
    item : dict
        An utterance, as of `read_manifest`; one with a start (seconds) is a
        crop.
    windows : Windows
        How to cut; None for a whole utterance.

    Returns
    -------
    list of dict
        Items with a start; the utterance itself where it stays whole.

    Raises
    ------
    InputError
        If the utterance is too long to be embedded as a whole.

    Example
    -------
    >>> item = {"wav": "meeting.wav", "speaker": "a", "duration": 7200.0}
    >>> cut_recording(item, windows=None)
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: 'meeting.wav' has 7200 s, more than ...
    >>> len(cut_recording(item, Windows(60.0)))
    120
    """
    duration = item["duration"]
    if windows is not None and duration > windows.length:
        start = item.get("start") or 0.0
        return [
            {**item, "start": start, "duration": length}
            for start, length in windows.cut(duration, start)
        ]
    check_whole(
        duration,
        f"'{item['wav']}'",
        "give window_length (seconds), such as 60, to embed it in windows",
    )
    return [item]


def check_whole(duration, name, remedy):
    """Refuses a recording that is too long to be embedded as a whole.

    Arguments
    ---------
    duration : float
        Duration of the recording, in seconds.
    name : str
        What the message calls it.
    remedy : str
        What to do, for the message.

    Raises
    ------
    InputError
        If it is longer than `MAX_WHOLE_DURATION`.

    Example
    -------
    >>> check_whole(599.0, "'talk.wav'", "cut it")
    """
    if duration > MAX_WHOLE_DURATION:
        raise InputError(
            f"{name} has {duration:.0f} s, more than the {MAX_WHOLE_DURATION:.0f} s "
            f"that are embedded as a whole; {remedy}"
        )
