"""Prepares CN-Celeb: manifests and trial lists, without training.

    python recipes/CNCeleb/cnceleb_prepare.py \\
        --data_folder='[/data/CN-Celeb_flac, /data/CN-Celeb2_flac]' \\
        --save_folder results/cnceleb

Trains on the speakers of dev/dev.lst of CN-Celeb1 (797) and, where its folder
is given, on those of CN-Celeb2 (1,996); a share of them validates. The test is
that of the corpus, eval/lists/trials.lst, where each model is one recording of
several utterances in a row. test_enrolments.txt has the same models as single
utterances, for `speechbrain-ext score --enrolments`. train.py does the same by
itself.
"""

import sys

from speechbrain_ext.config import HPARAMS
from speechbrain_ext.training.recipes import prepare_only
from speechbrain_ext.utils.errors import one_line_errors

CORPUS = HPARAMS / "corpora" / "cnceleb.yaml"

if __name__ == "__main__":
    with one_line_errors():
        prepare_only(sys.argv[1:], CORPUS)
