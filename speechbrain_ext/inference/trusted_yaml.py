"""HyperPyYAML of somebody else, of which nothing but models is built.

A HyperPyYAML file names what to call: `!apply:os.system [...]` is valid in any
place of it, and so are the `!!python/...` tags of YAML itself. What comes from
elsewhere may call the classes and functions of an allow-list only.
"""

import inspect
import pydoc
import re

from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML, SafeLoader, YAMLError
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from speechbrain_ext.config import resolve, select_keys
from speechbrain_ext.utils.errors import InputError

# Whose subclasses of torch.nn.Module may be built
PACKAGES = (
    "speechbrain.lobes",
    "speechbrain.nnet",
    "speechbrain.processing",
    "speechbrain_ext.lobes",
    "speechbrain_ext.nnet",
    "torch.nn",
)
# Modules of these packages that unpickle, or read and load what they are told
EXCLUDED = (
    "speechbrain.lobes.models.MSTacotron2",
    "speechbrain.lobes.models.Tacotron2",
    "speechbrain.lobes.models.beats",
    "speechbrain.lobes.models.discrete",
    "speechbrain.lobes.models.fairseq_wav2vec",
    "speechbrain.lobes.models.huggingface_transformers",
    "speechbrain.nnet.adapters",
    "torch.nn.parallel",
)
# What else may be called, by name
NAMES = {
    "speechbrain.dataio.encoder.CategoricalEncoder",
    "speechbrain.dataio.preprocess.AudioNormalizer",
    "speechbrain.integrations.huggingface.hubert.HuBERT",
    "speechbrain.integrations.huggingface.wav2vec2.Wav2Vec2",
    "speechbrain.integrations.huggingface.wavlm.WavLM",
    "speechbrain_ext.inference.model_folder.FolderPretrainer",
    "speechbrain_ext.inference.model_scoring.Cohort",
    "speechbrain_ext.inference.model_scoring.ModelScoring",
    "speechbrain_ext.inference.teacher_frames.pooled_teacher_frames",
    "speechbrain_ext.inference.teacher_frames.trained_teacher_frames",
    "speechbrain_ext.lobes.encoders.cls_encoder.load_cls_encoder",
    "speechbrain_ext.lobes.encoders.factory.load_encoder",
    *(
        f"transformers.{family}Config"
        for family in (
            "Data2VecAudio", "Hubert", "UniSpeechSat", "Wav2Vec2", "Wav2Vec2Bert",
            "Wav2Vec2Conformer", "WavLM", "Whisper",
        )
    ),
}  # fmt: skip
# Arguments by which a file would trust another source, and what that would run
TRUST = {
    "trust_remote_code": "code of the Hugging Face hub",
    "trust_source": "what another model's YAML calls",
}
CALLS = ("!new:", "!name:", "!apply:")
# In the place of its value HyperPyYAML puts what this file or that one has, or
# what a function returns, while it resolves references.
BEFORE_BUILDING = ("!include:", "!applyref:")
PLAIN_TAGS = {tag for tag in SafeConstructor.yaml_constructors if tag is not None}
SHOWN = 200  # characters of a call in a message


def load_trusted_yaml(text, source, keys, optional=(), trust_source=False):
    """Builds some keys of a HyperPyYAML file.

    Arguments
    ---------
    text : str
        The YAML.
    source : str or Path
        Where it is from, for messages.
    keys : list of str
        What to build; nothing else is.
    optional : list of str
        What to build where the file has it.
    trust_source : bool
        Whether the file may call anything.

    Returns
    -------
    dict
        What was built for each key.

    Raises
    ------
    InputError
        If a key is missing, or something is not on the allow-list; the message
        says what would have run.

    Example
    -------
    >>> text = "rate: 8000\\nnorm: !new:torch.nn.LayerNorm [2]\\nsave: !apply:os.getcwd"
    >>> load_trusted_yaml(text, "a.yaml", ["rate", "norm"])["norm"]
    LayerNorm((2,), eps=1e-05, elementwise_affine=True)
    >>> load_trusted_yaml(text, "a.yaml", ["save"])
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: 'a.yaml': save would run os.getcwd, ...
    """
    if not trust_source:
        refuse_early_calls(text, source)
    content = resolve(text, source)
    chosen = [*keys, *(key for key in optional if key in content)]
    text = select_keys(content, chosen, source)
    if trust_source:
        return load_hyperpyyaml(text)
    # What was text before references were resolved must not be a call after.
    refuse_early_calls(text, source)
    loader = type("Loader", (AllowListLoader,), {"source": source})
    return load_hyperpyyaml(text, loader=loader)


def refuse_early_calls(text, source):
    """Refuses what HyperPyYAML runs or reads before anything is built.

    Arguments
    ---------
    text : str
        The YAML.
    source : str or Path
        Name of the file, for messages.

    Raises
    ------
    InputError
        If there is such a tag.
    """

    def walk(node, path):
        tag = getattr(getattr(node, "tag", None), "value", None) or ""
        if str(tag).startswith(BEFORE_BUILDING):
            raise _refusal(source, path, str(tag).lstrip("!"))
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, path or key)
        elif isinstance(node, list):
            for value in node:
                walk(value, path)

    try:
        walk(YAML().load(text), "")
    except RecursionError:
        raise InputError(f"'{source}': it contains itself") from None
    except YAMLError as error:
        what = " ".join(str(error).split())
        raise InputError(f"'{source}' is no YAML ({what})") from None


class AllowListLoader(SafeLoader):
    """Refuses a document that would call what is not on the allow-list."""

    source = "YAML"

    def get_single_node(self):
        """The root of the document, once it has been checked."""
        root = super().get_single_node()
        if isinstance(root, MappingNode):
            for key, value in root.value:
                self._check(key, "a key", [])
                self._check(value, key.value, [])
        elif root is not None:
            self._check(root, "it", [])
        return root

    def _check(self, node, key, above):
        if any(node is one for one in above):
            raise InputError(f"'{self.source}': {key} contains itself")
        self._check_tag(node, key)
        if isinstance(node, ScalarNode):
            return
        children = node.value
        if isinstance(node, MappingNode):
            children = [child for pair in node.value for child in pair]
            for name, value in node.value:
                for switch, what in TRUST.items():
                    if name.value == switch and value.value != "false":
                        raise _refusal(self.source, key, what)
        for child in children:
            self._check(child, key, [*above, node])

    def _check_tag(self, node, key):
        tag = str(node.tag)
        if tag == "!tuple" and isinstance(node, ScalarNode):
            # HyperPyYAML loads what is in it without any care for tags.
            if "!" in node.value:
                raise _refusal(self.source, key, node.value)
        elif tag.startswith(CALLS):
            name = tag.partition(":")[2]
            if name == "getattr" and _is_attribute(node):
                return
            if not is_allowed(name):
                raise _refusal(self.source, key, f"{name} {_shown(node)}".strip())
        elif tag not in PLAIN_TAGS:
            what = f"{tag.rpartition(',2002:')[2].lstrip('!')} {_shown(node)}"
            raise _refusal(self.source, key, what.strip())


def is_allowed(name):
    """Whether a file from elsewhere may call something.

    Nothing of a package is imported whose name is not on the list.

    Arguments
    ---------
    name : str
        Dotted path, as after `!new:`.

    Returns
    -------
    bool
        Whether it is on the allow-list, by name or as a subclass of
        torch.nn.Module that one of the packages defines.

    Example
    -------
    >>> is_allowed("torch.nn.Linear"), is_allowed("os.system")
    (True, False)
    >>> is_allowed("speechbrain_ext.lobes.LTDNN")
    True
    >>> is_allowed("speechbrain_ext.lobes.features.torch.hub.load")
    False
    """
    if name in NAMES:
        return True
    if not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", name):
        return False
    if not _is_within(name, PACKAGES) or _is_within(name, EXCLUDED):
        return False
    try:
        found = pydoc.locate(name)
    except pydoc.ErrorDuringImport:
        return False
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        return False
    # A path may lead out of the package, and an old one to another module.
    home = f"{found.__module__}.{found.__qualname__}"
    if home in NAMES:
        return True
    if not _is_within(home, PACKAGES) or _is_within(home, EXCLUDED):
        return False
    module = pydoc.locate("torch.nn.Module")
    return inspect.isclass(found) and issubclass(found, module)


def _is_within(name, packages):
    return any(name.startswith(f"{package}.") for package in packages)


def _is_attribute(node):
    """Whether `!apply:getattr` reads what `!ref <key.attribute>` stands for."""
    return (
        isinstance(node, SequenceNode)
        and len(node.value) == 2
        and isinstance(node.value[1], ScalarNode)
        and re.fullmatch(r"[A-Za-z]\w*", node.value[1].value) is not None
    )


def _shown(node):
    """The arguments of a call, as text."""

    def text(node):
        if isinstance(node, ScalarNode):
            return str(node.value)
        if isinstance(node, SequenceNode):
            return f"[{', '.join(text(child) for child in node.value)}]"
        pairs = (f"{text(key)}: {text(value)}" for key, value in node.value)
        return f"{{{', '.join(pairs)}}}"

    try:
        result = text(node)
    except RecursionError:
        return "..."
    return result if len(result) <= SHOWN else f"{result[:SHOWN]}..."


def _refusal(source, key, what):
    return InputError(
        f"'{source}': {key} would run {what}, which is not on the list of what a "
        "model from elsewhere may call (layers and lobes of torch.nn, speechbrain and "
        "speechbrain_ext); if you have read the file and trust it, give "
        "trust_source=True"
    )
