"""On another device everything is what it is on the processor.

A GPU is not needed: the device is none (`pretend_device`).
"""

import os

import pytest
from conftest import ROOT
from processes import run_python

CHECKS = ("systems", "encoders", "models", "scoring", "losses", "trainings")


@pytest.mark.parametrize("check", CHECKS)
def test_on_a_device(check, tmp_path):
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    script = ROOT / "tests" / "device_checks.py"
    done = run_python([script, check, tmp_path], env=environment)
    assert done.returncode == 0, done.stderr


def test_the_device_refuses_what_a_gpu_does(tmp_path):
    script = tmp_path / "mixed.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "import pytest, torch\n"
        "from pretend_device import DEVICE, PretendDevice\n"
        "with PretendDevice():\n"
        "    there = torch.ones(2, device=DEVICE)\n"
        "    assert there.device == DEVICE and (there + 1).device == DEVICE\n"
        "    assert there.cpu().device.type == 'cpu' and there.tolist() == [1, 1]\n"
        "    assert (there * torch.tensor(3.0)).tolist() == [3, 3]\n"
        "    with pytest.raises(RuntimeError, match='two devices'):\n"
        "        there + torch.ones(2)\n"
        "    with pytest.raises(TypeError, match='numpy'):\n"
        "        there.numpy()\n"
    )
    done = run_python([script])
    assert done.returncode == 0, done.stderr
