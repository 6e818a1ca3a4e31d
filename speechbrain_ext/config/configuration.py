"""A self-contained YAML, and what it builds."""

import dataclasses
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ext.config.building import (
    KeyNotingLoader,
    not_built,
    resolve,
    select_keys,
)
from speechbrain_ext.config.entries import (
    dump,
    entries_of,
    merged,
    references_first,
    references_of,
    without_comments,
)
from speechbrain_ext.config.keys import check_known
from speechbrain_ext.schema import BY_REFERENCE, check_effect, check_values
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path

# Keys that change where results go, how fast they come and what may be read for them,
# not the results
WITHOUT_INFLUENCE = (
    "output_folder", "save_folder", "ssl_folder", "train_log", "history",
    "num_workers", "trust_source",
)  # fmt: skip
# Keys of which it makes a difference whether they are given, but not where they point
# to: the caches there know themselves what they are of
PLACES = ("shards_folder", "hidden_state_cache", "targets_folder")
PLACEHOLDER = "!PLACEHOLDER"


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A YAML with all that goes into it.

    Arguments
    ---------
    path : Path
        The YAML that the command line named.
    header : str
        The comments at its top.
    entries : dict
        The entry of each key.
    given : dict
        Keys of the command line and their values.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's options.
    """

    path: Path
    header: str
    entries: dict
    given: dict = dataclasses.field(default_factory=dict)
    run_opts: RunOptions | None = None

    @property
    def text(self):
        """The self-contained YAML, which `load_hyperpyyaml` loads."""
        entries = references_first(self.entries)
        body = "".join(entry.above + entry.text for entry in entries.values())
        return self.header + body.lstrip("\n")

    def with_values(self, values, source=None):
        """The same with other values.

        Arguments
        ---------
        values : dict
            Values to merge into those of the YAML.
        source : str
            Where they are from, for messages.

        Returns
        -------
        Configuration
            The configuration with the values.

        Raises
        ------
        InputError
            If the YAML has no such key.
        """
        source = source or "the command line"
        check_known(values, self.entries, f"{source}: '{self.path}' has no key")
        return dataclasses.replace(
            self, entries=merged(self.entries, entries_of(values))
        )

    def values(self):
        """The values with references resolved and checked; nothing is built.

        Returns
        -------
        ruamel.yaml.comments.CommentedMap
            Value of each key.

        Raises
        ------
        InputError
            If a value is missing, out of range or refers to nothing.
        """
        # Plain values first: a reference may fail for what is wrong with them.
        plain = {key: entry.value for key, entry in self.entries.items()}
        check_values(plain, self.path)
        values = resolve(self.text, self.path)
        check_values(values, self.path)
        return values

    def check(self):
        """Checks the values; what is a !PLACEHOLDER may stay one.

        Raises
        ------
        InputError
            If a value is out of range or refers to nothing.
        """
        missing = {
            key: "missing"
            for key, entry in self.entries.items()
            if getattr(getattr(entry.value, "tag", None), "value", "") == PLACEHOLDER
        }
        values = resolve(self.with_values(missing).text, self.path)
        check_values({k: v for k, v in values.items() if k not in missing}, self.path)

    def check_effect(self, runs=None):
        """Checks that each key of the command line has an effect.

        Arguments
        ---------
        runs : list of dict
            The values of each stage, or of whatever is run; those of the YAML if None.

        Raises
        ------
        InputError
            If a key has no effect.
        """
        check_effect(self.given, [self.values()] if runs is None else runs)
        referred = {key for e in self.entries.values() for key in references_of(e)}
        for key in sorted(BY_REFERENCE.intersection(self.given) - referred):
            raise InputError(
                f"{key} has no effect with '{self.path}', where nothing refers to it; "
                "leave it out"
            )

    def build(self, keys=None):
        """Builds what the YAML says.

        Arguments
        ---------
        keys : list of str
            Only these; if None, all.

        Returns
        -------
        dict
            Value of each key.

        Raises
        ------
        InputError
            If something cannot be built; the message names its keys.
        """
        values = self.values()
        text = dump(values) if keys is None else select_keys(values, keys, self.path)
        try:
            return load_hyperpyyaml(text, loader=KeyNotingLoader)
        except (InputError, OSError):
            raise
        except Exception as error:
            key, tag = getattr(error, "of_yaml", (None, None))
            if key is None:
                raise
            references = references_of(self.entries[key])
            raise not_built(key, tag, error, references) from error

    def settings(self):
        """What the results of a run depend on, to compare runs.

        Returns
        -------
        dict
            The text of each key, as of `without_places`.
        """
        return without_places(
            {
                key: without_comments(entry)
                for key, entry in sorted(self.entries.items())
            }
        )

    def save(self, path):
        """Writes the self-contained YAML, to be used from any working directory.

        An encoder's folder gets its absolute path; a name on the hub stays.

        Arguments
        ---------
        path : str or Path
            The file.
        """
        source = self.entries["ssl_hub"].value if "ssl_hub" in self.entries else None
        portable = self
        if isinstance(source, str) and Path(source).is_dir():
            portable = self.with_values({"ssl_hub": str(Path(source).absolute())})
        with atomic_path(path) as partial:
            partial.write_text(portable.text, encoding="utf-8")


def without_places(settings):
    """Leaves out where results and caches are, on which no result depends.

    Arguments
    ---------
    settings : dict
        The text of each key.

    Returns
    -------
    dict
        The same without the keys of `WITHOUT_INFLUENCE`; those of `PLACES` are
        "given" or "null", and the script of a recipe is without the folders above it.

    Example
    -------
    >>> without_places({"lr": "0.1", "save_folder": "a", "shards_folder": "/b"})
    {'lr': '0.1', 'shards_folder': 'given'}
    """
    kept = {key: t for key, t in settings.items() if key not in WITHOUT_INFLUENCE}
    for key in kept.keys() & set(PLACES):
        kept[key] = "null" if kept[key] == "null" else "given"
    if "script" in kept:
        kept["script"] = "/".join(Path(kept["script"]).parts[-2:])
    return kept
