"""The benchmark for GPUs runs with torch, torch_geometric and lightning alone, here on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu.py"

# Whatever else is installed is not there for it.
ALONE = """
import re, runpy, sys, tomllib

needs = tomllib.loads(open("pyproject.toml").read())["project"]["dependencies"]
names = {re.match("[a-z0-9-]+", need)[0].replace("-", "_") for need in needs}
hidden = names - {"torch", "torch_geometric", "lightning", "numpy"} | {"skimage", "sklearn", "PIL", "lazy_loader"}

class Hidden:
    def find_spec(self, name, path=None, target=None):
        # Lightning and torch ask for some of them, and do without.
        frame = sys._getframe(1)
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        ours = frame is not None and "hist2scrna" in frame.f_globals.get("__name__", "")
        if ours and name.partition(".")[0] in hidden and not any(type(f).__name__ == "StandIns" for f in sys.meta_path):
            raise ImportError(name)
        if ours and name.partition(".")[0] in hidden:
            return next(f for f in sys.meta_path if type(f).__name__ == "StandIns").find_spec(name)

sys.meta_path.insert(0, Hidden())
sys.argv = ["gpu.py", "--device", "cpu", "--quick", "--json", sys.argv[1]]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


@pytest.mark.skipif(not SCRIPT.exists(), reason="the source distribution has no benchmarks")
def test_it_runs_with_three_packages(tmp_path) -> None:
    command = [sys.executable, "-c", ALONE, str(tmp_path / "found.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["what"].partition(":")[0].partition(",")[0] for row in found["rows"]] == [
        *["hist2scrna tiny"] * 2,
        *["imagenet"] * 2,
        "ZINB",
    ]
    numbers = [value for row in found["rows"] for key, value in row.items() if key != "what" and value is not None]
    assert len(numbers) == 9 and min(numbers) > 0
