"""Several devices: a process each, or an error that says how to start them."""

from __future__ import annotations

import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from builders import fast

from hist2scrna import TrainedModel
from hist2scrna.fitting.processes import is_first_process, n_machines, place_among, require_processes
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


CURVES = """
import sys
import anndata
import hist2scrna as h2s

folder, model, devices, accumulate = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
training = {"max_epochs": 3, "accelerator": "cpu", "devices": devices, "batch_size": 7, "accumulate": accumulate}
training |= {"validation": ["s3"], "lr": 1e-2}
given = {"encoder": "morphology"}
if model == "hist2scrna":
    training["augment"], given = False, {}
model = h2s.tl.fit(
    anndata.read_h5ad(folder + "/section.h5ad"), model=model, preset="tiny", dropout=0.0, training=training,
    progress=False, labels_key="cell_type", **given,
)
history = model.history[["train_loss", "validation_loss"]]
if devices == 1 or h2s.fitting.processes.is_first_process():
    history.to_json(f"{folder}/{devices}.json")
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


def test_devices_are_those_of_all_machines(launched, monkeypatch):
    launched(4, rank=3)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (n_machines(4), place_among(4)) == (2, (3, 4))
    assert (n_machines(1), place_among(1)) == (1, (0, 1))


def test_the_first_process_alone_writes(make_section, launched, tmp_path):
    model = fit(make_section(), **fast())
    launched(2, rank=1)
    assert not is_first_process()
    assert model.save(tmp_path / "m") == tmp_path / "m"
    assert not (tmp_path / "m").exists()
    launched(2, rank=0)
    model.save(tmp_path / "m")
    assert TrainedModel.load(tmp_path / "m").genes == model.genes


def run_script(arguments, *, processes=1):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def four_sections(make_section):
    """Batches of 7 are of unlike sizes, and odd in number in training as in validation: the last round lacks one."""
    sections = [make_section(f"s{i}", seed=i, n_spots=40 if i < 2 else 33) for i in range(4)]
    return ad.concat(sections, uns_merge="unique")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["hist2scrna", "hist2scrna-lightweight"])
def test_two_processes_learn_what_one_learns_from_the_same_batches(make_section, tmp_path, model):
    four_sections(make_section).write_h5ad(tmp_path / "section.h5ad")
    (tmp_path / "script.py").write_text(CURVES)
    run_script([tmp_path / "script.py", tmp_path, model, 2, 1], processes=2)
    run_script([tmp_path / "script.py", tmp_path, model, 1, 2])
    two, one = (pd.read_json(tmp_path / f"{devices}.json") for devices in (2, 1))
    np.testing.assert_allclose(two, one, rtol=1e-4)
    assert one["train_loss"].is_monotonic_decreasing


@pytest.mark.slow
def test_a_script_under_torchrun_trains_on_two_devices(make_section, tmp_path):
    adata = ad.concat([make_section(f"s{i}", seed=i) for i in range(4)], uns_merge="unique")
    adata.write_h5ad(tmp_path / "section.h5ad")
    (tmp_path / "script.py").write_text(SCRIPT)
    printed = run_script([tmp_path / "script.py", tmp_path], processes=2)
    first, second = [line for line in printed.splitlines() if line.startswith("loss")]
    assert first == second
    for folder in (tmp_path / "model", tmp_path / "kept" / "best"):
        assert np.isfinite(TrainedModel.load(folder).history["validation_loss"]).all()
