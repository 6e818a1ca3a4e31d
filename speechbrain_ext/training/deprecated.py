"""What other people's recipes called before the recipe read top to bottom.

It goes with the next release.
"""

import atexit
import runpy
import shutil
import tempfile
from pathlib import Path

from speechbrain_ext.config import HPARAMS, read_configuration


def train_and_verify(arguments, corpus=None):
    """Runs recipes/VoxCeleb/train.py.

    Arguments
    ---------
    arguments : list of str
        The YAML of a system, and overrides, as in sys.argv[1:].
    corpus : str or Path
        YAML of overrides for the recipe's corpus.
    """
    script = HPARAMS.parent / "recipes" / "VoxCeleb" / "train.py"
    runpy.run_path(str(script))["main"](arguments, corpus)


def parse_recipe_arguments(arguments, corpus=None):
    """Composes the YAML of a recipe into a file.

    Arguments
    ---------
    arguments : list of str
        Arguments of the command line, as in sys.argv[1:].
    corpus : str or Path
        YAML of overrides for the recipe's corpus.

    Returns
    -------
    hparams_file : str
        The self-contained YAML, which goes with the process.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's options.
    overrides : dict
        What the command line gives; it is in the YAML already.
    """
    configuration = read_configuration(arguments, corpus)
    folder = tempfile.mkdtemp(prefix="speechbrain_ext-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / configuration.path.name
    configuration.save(path)
    return str(path), configuration.run_opts, configuration.given
