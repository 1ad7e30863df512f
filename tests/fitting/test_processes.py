"""Several devices: a process each, or an error that says how to start them."""

from __future__ import annotations

import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
from builders import fast

from hist2scrna import TrainedModel
from hist2scrna.fitting.processes import is_first_process, require_processes
from hist2scrna.tl import fit

SCRIPT = """
import sys
import anndata
import hist2scrna as h2s

folder = sys.argv[1]
training = {"max_epochs": 2, "accelerator": "cpu", "devices": 2, "batch_size": 8, "checkpoint_dir": folder + "/kept"}
adata = anndata.read_h5ad(folder + "/section.h5ad")
model = h2s.tl.fit(adata, model="hist2scrna", preset="tiny", training=training, progress=False)
model.save(folder + "/model")
print("loss", model.history["validation_loss"].tolist())
"""


@pytest.fixture
def launched(monkeypatch):
    """Pretend that torchrun started so many processes, of which this has a rank."""

    def pretend(n, rank=0):
        for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": n, "RANK": rank, "LOCAL_RANK": rank}.items():
            monkeypatch.setenv(name, str(value))

    return pretend


def test_several_devices_say_how_to_start_them(make_section, launched):
    message = r"devices=2 needs one process a device, and here is 1\..*torchrun --nproc-per-node 2 script.py"
    with pytest.raises(ValueError, match=message):
        fit(make_section(), **fast(devices=2))
    launched(3)
    with pytest.raises(ValueError, match="devices=2 .* here is 3"):
        require_processes(2)
    launched(2)
    require_processes(2)
    require_processes(1)


def test_the_first_process_alone_writes(make_section, launched, tmp_path):
    model = fit(make_section(), **fast())
    launched(2, rank=1)
    assert not is_first_process()
    assert model.save(tmp_path / "m") == tmp_path / "m"
    assert not (tmp_path / "m").exists()
    launched(2, rank=0)
    model.save(tmp_path / "m")
    assert TrainedModel.load(tmp_path / "m").genes == model.genes


@pytest.mark.slow
def test_a_script_under_torchrun_trains_on_two_devices(make_section, tmp_path):
    adata = ad.concat([make_section(f"s{i}", seed=i) for i in range(4)], uns_merge="unique")
    adata.write_h5ad(tmp_path / "section.h5ad")
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(tmp_path / "script.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = [line for line in done.stdout.splitlines() if line.startswith("loss")]
    assert first == second
    for folder in (tmp_path / "model", tmp_path / "kept" / "best"):
        assert np.isfinite(TrainedModel.load(folder).history["validation_loss"]).all()
