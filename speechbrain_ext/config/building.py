"""References of a YAML resolved, and what it says built, or the key that cannot be."""

import re
import traceback

from hyperpyyaml import resolve_references
from ruamel.yaml import Loader

from speechbrain_ext.config.entries import dump, yaml_as_written
from speechbrain_ext.utils.errors import InputError


class KeyNotingLoader(Loader):
    """Notes of what cannot be built which key and tag it has."""

    def construct_document(self, node):
        """As in ruamel.yaml; an error gets the attribute of_yaml."""
        self._failed = []
        try:
            return super().construct_document(node)
        except Exception as error:
            tags = [n.tag for n in self._failed if str(n.tag).startswith("!")]
            for key, value in node.value:
                if any(value is failed for failed in self._failed):
                    error.of_yaml = key.value, tags[0] if tags else key.value
                    break
            raise

    def construct_object(self, node, *args, **kwargs):
        """As in ruamel.yaml; keeps the nodes that fail, the innermost first."""
        try:
            return super().construct_object(node, *args, **kwargs)
        except Exception:
            self._failed.append(node)
            raise


def resolve(text, source):
    """Resolves the references of a YAML.

    Arguments
    ---------
    text : str
        The YAML.
    source : str or Path
        Name of the file, for messages.

    Returns
    -------
    ruamel.yaml.comments.CommentedMap
        The value of each key.

    Raises
    ------
    InputError
        If a value is missing, or refers to nothing, or there are no keys.

    Example
    -------
    >>> resolve("lr: 0.1\\nmin_lr: !ref <lr> / 10\\n", "train.yaml")["min_lr"]
    0.01
    """
    try:
        content = yaml_as_written().load(resolve_references(text))
    except ValueError as error:
        reason = " ".join(str(part) for part in error.args)
        placeholder = re.match(r"'(\w+)' is a !PLACEHOLDER", reason)
        if placeholder:
            raise InputError(
                f"{placeholder[1]} has no value in '{source}'; give --{placeholder[1]}"
            ) from None
        raise InputError(f"'{source}': {reason}; mend the reference") from None
    except (ArithmeticError, TypeError, RecursionError) as error:
        raise InputError(
            f"'{source}': a reference cannot be computed ({error}); mend the values "
            "that it refers to"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"'{source}' has no keys; its lines are 'key: value'")
    return content


def select_keys(content, keys, hparams_file):
    """Keeps some keys, so that nothing else is built.

    Arguments
    ---------
    content : dict
        A YAML with its references resolved; the other keys are removed.
    keys : list of str
        Keys to keep.
    hparams_file : str or Path
        Name of the file, for messages.

    Returns
    -------
    str
        YAML for `load_hyperpyyaml`.

    Raises
    ------
    InputError
        If a key is missing.

    Example
    -------
    >>> select_keys({"lr": 0.1, "model": 1}, ["lr"], "train.yaml")
    'lr: 0.1\\n'
    """
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputError(f"'{hparams_file}' lacks {', '.join(missing)}")
    for key in [key for key in content if key not in keys]:
        del content[key]
    return dump(content)


def not_built(key, what, error, keys):
    """The error of something that cannot be built.

    Arguments
    ---------
    key : str
        Key of the YAML.
    what : str
        Its class or function.
    error : Exception
        Why.
    keys : list of str
        Keys of the YAML, that its arguments refer to.

    Returns
    -------
    InputError
        The error to raise.
    """
    # HyperPyYAML puts what it called before the message.
    message = str(error.args[-1] if error.args else "").strip()
    if isinstance(error, AssertionError) and error.__traceback__ is not None:
        # Layers often assert without a message.
        line = traceback.extract_tb(error.__traceback__)[-1].line
        message = f"{line} does not hold" if line.startswith("assert") else message
    reason = message.splitlines()[-1].strip() if message else type(error).__name__
    remedy = f"change {', '.join(keys)}" if keys else f"change {key}"
    return InputError(
        f"{key} ({str(what).partition(':')[2] or what}) cannot be built: {reason}; "
        f"{remedy}"
    )
