"""Old dotted paths, which go on working for one release.

Trained folders hold a YAML with the paths of their day, and so do other
people's recipes.
"""

import importlib
import importlib.abc
import importlib.util
import sys
import types
import warnings

PACKAGE = "speechbrain_ext."

# Old module: new module, or for a module that was split, the new module of
# each name.
MOVED = {
    "core": "training.brains",
    "distillation": "training.distillation",
    "pretraining": "training.pretraining",
    "dataio.demo_corpus": "dataio.corpora.demo",
    "dataio.pipelines": "dataio.datasets",
    "dataio.prepare": {
        "Utterance": "dataio.corpora.base",
        "manifest_paths": "dataio.manifests",
        "read_manifest": "dataio.manifests",
        "write_manifest": "dataio.manifests",
    },
    "lobes.models.cls_encoder": "lobes.encoders.cls_encoder",
    "lobes.models.last_layer_mean": {"LastLayerMean": "lobes.models.layer_mean"},
    "lobes.models.small_wavlm": "lobes.encoders.small_wavlm",
    "lobes.models.ssl_encoder": "lobes.encoders.ssl_encoder",
    "lobes.models.teacher_frames": "inference.teacher_frames",
    "lobes.models.w2v_bert": "lobes.encoders.w2v_bert",
    "processing.cka": "analysis.cka",
    "processing.conditions": "metrics.conditions",
    "processing.embedding_store": {
        "EmbeddingStore": "dataio.embedding_store",
        "extract_embeddings": "inference.extraction",
        "model_fingerprint": "utils.fingerprints",
    },
    "processing.frame_attention": "analysis.frame_attention",
    "processing.layer_attention": {
        "attends_to_layers": "nnet.pooling",
        "layer_usage": "analysis.layer_attention",
    },
    "processing.probing": "analysis.probing",
    "processing.verification": {
        "CosineBackend": "processing.backends",
        "PLDABackend": "processing.backends",
        "calibration_metrics": "inference.verification",
        "cohort_embeddings": "inference.verification",
        "report": "inference.verification",
        "summary": "inference.verification",
        "train_calibration": "inference.verification",
        "verification_metrics": "inference.verification",
        "verify": "inference.verification",
        "write_scores": "dataio.scores",
    },
    "training": {"train_and_verify": "training.deprecated"},
    "tools.lay_out_corpus": "dataio.layouts",
    "tools.random_encoder": "lobes.encoders.random_encoder",
    "tools.results_table": "training.results_table",
    "utils.bootstrap": "metrics.bootstrap",
    "utils.calibration_metrics": "metrics.calibration",
    "utils.grids": "training.grids",
    "utils.hparams": "config",
    "utils.metrics": "metrics.detection",
    "utils.official_checkpoints": "lobes.official_checkpoints",
    "utils.onnx_export": "inference.onnx",
    "utils.plots": {
        "plot_calibration": "plots.detection",
        "plot_costs": "plots.training",
        "plot_cumulative_weights": "plots.attention",
        "plot_det": "plots.detection",
        "plot_frame_weights": "plots.attention",
        "plot_layer_attention": "plots.attention",
        "plot_layer_usage": "plots.attention",
        "plot_losses": "plots.training",
        "plot_probes": "plots.representations",
        "plot_scores": "plots.detection",
        "plot_similarities": "plots.representations",
    },
    "utils.recipes": {
        "init_process_group": "training.recipes",
        "model_names": "training.recipes",
        "parse_recipe_arguments": "training.deprecated",
        "prepare_only": "training.recipes",
        "run_details": "training.recipes",
        "training_stages": "config",
    },
}

# Names that were also SpeechBrain's, of something else
RENAMED = {
    "lobes.AttentiveStatisticsPooling": "ChannelAttentiveStatisticsPooling",
    "lobes.models.ecapa.ECAPA_TDNN": "MaskedECAPA",
    "lobes.models.layer_mean.LastLayerMean": "LayerMean",
    "nnet.pooling.AttentiveStatisticsPooling": "ChannelAttentiveStatisticsPooling",
}


def renamed(module, name):
    """Looks up what a module has by a new name; its `__getattr__`.

    Arguments
    ---------
    module : str
        `__name__` of the module.
    name : str
        The old name.

    Returns
    -------
    object
        What has the new name.

    Raises
    ------
    AttributeError
        If the module has never had the name.
    """
    new = RENAMED.get(f"{module.removeprefix(PACKAGE)}.{name}")
    if new is None:
        raise AttributeError(f"module '{module}' has no attribute '{name}'")
    warnings.warn(
        f"{module}.{name} is called {new} now; the old name goes with the next release",
        FutureWarning,
        stacklevel=3,
    )
    return getattr(sys.modules[module], new)


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of `MOVED` under their old names."""

    def find_spec(self, fullname, path=None, target=None):
        """Gives a module that looks its names up in their new places."""
        if fullname.removeprefix(PACKAGE) in MOVED and fullname.startswith(PACKAGE):
            return importlib.util.spec_from_loader(fullname, self)
        return None

    def create_module(self, spec):
        """Makes the stand-in for an old module."""
        return _MovedModule(spec.name)

    def exec_module(self, module):
        """Runs nothing: the stand-in has all that it needs."""


class _MovedModule(types.ModuleType):
    def __getattr__(self, name):
        return find_moved(self.__name__, name)


def find_moved(module, name):
    """Finds what has moved from a module, and warns.

    A module that is still there, but lost some of its names, calls it from its
    own `__getattr__`.

    Arguments
    ---------
    module : str
        Old module, in full.
    name : str
        What was looked up in it.

    Returns
    -------
    object
        What the new module has by that name.

    Raises
    ------
    AttributeError
        If nothing of that name has moved.
    """
    if name.startswith("__"):
        raise AttributeError(name)
    new = MOVED[module.removeprefix(PACKAGE)]
    if isinstance(new, dict):
        new = new.get(name)
    if new is None:
        raise AttributeError(f"module '{module}' has no attribute '{name}'")
    value = getattr(importlib.import_module(PACKAGE + new), name)
    warnings.warn(
        f"{module}.{name} has moved to {PACKAGE}{new}.{name}; the old path goes "
        "with the next release",
        FutureWarning,
        stacklevel=3,
    )
    return value


def install():
    """Makes the old paths importable, once."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
