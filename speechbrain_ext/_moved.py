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
    "lobes.models.cls_encoder": "lobes.encoders.cls_encoder",
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
    "processing.verification": "inference.verification",
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
    "utils.recipes": "training.recipes",
}


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
        if name.startswith("__"):
            raise AttributeError(name)
        new = MOVED[self.__name__.removeprefix(PACKAGE)]
        if isinstance(new, dict):
            new = new.get(name)
        if new is None:
            raise AttributeError(f"{self.__name__} has no {name}")
        value = getattr(importlib.import_module(PACKAGE + new), name)
        warnings.warn(
            f"{self.__name__}.{name} has moved to {PACKAGE}{new}.{name}; the old "
            "path goes with the next release",
            FutureWarning,
            stacklevel=2,
        )
        return value


def install():
    """Makes the old paths importable, once."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
