"""Prepares VoxCeleb: manifests and trial lists, without training.

    python recipes/VoxCeleb/voxceleb_prepare.py --dataset voxceleb1 \\
        --data_folder='[/data/VoxCeleb1, /data/VoxCeleb2/test]' \\
        --save_folder results/voxceleb1

voxceleb1 trains on 1,211 speakers and tests on Vox1-O (cleaned), with
validation trials of the 118 speakers of VoxCeleb2's test part; voxceleb2
trains on 5,994 speakers, validates on Vox1-O and tests on those 118. VoxCeleb2
comes as m4a: install FFmpeg, or convert it once, for example
`for f in $(find . -name "*.m4a"); do ffmpeg -i $f -ar 16000 ${f%.m4a}.wav; done`.
train.py does the same by itself.
"""

import sys

from speechbrain_ext.training.recipes import prepare_only
from speechbrain_ext.utils.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        prepare_only(sys.argv[1:])
