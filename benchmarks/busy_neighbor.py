"""What a job takes where another program holds one of two processors, as a multiple of its time alone.

python benchmarks/busy_neighbor.py [--repeats 3]

Run it on a quiet machine with two processors. Each job is a process of its own that chooses its threads by itself:
`hist2scrna` (`tiny`, 96 px) trained for three epochs, and the built-in encoder on 96 patches. The other program counts,
pinned to the last processor that this process may use. Prints the least of the repeats: importing is not counted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

COUNTS = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
COMMON = """
import time, warnings
warnings.simplefilter("ignore")
import hist2scrna as h2s
h2s.settings.verbosity = "error"
(section,) = h2s.datasets.simulate(n_sections=1, n_spots=96, n_genes=200, seed=0)
def work(epochs):
    {work}
work(1)
start = time.perf_counter()
work(3)
print(time.perf_counter() - start)
"""
TRAINING = 'training={"max_epochs": epochs, "validation": 0, "patience": 0}'
JOBS = {
    "training": f'h2s.tl.fit(section, model="hist2scrna", preset="tiny", patch_px=96, progress=False, {TRAINING})',
    "encoding": 'h2s.pp.extract_features(section.copy(), "imagenet", progress=False)',
}


def seconds(work: str) -> float:
    """Return the time of a job in a process of its own."""
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", COMMON.format(work=work)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=free).stdout
    return float(said.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for name, work in JOBS.items():
        alone = min(seconds(work) for _ in range(options.repeats))
        other = subprocess.Popen([sys.executable, "-c", COUNTS, str(max(os.sched_getaffinity(0)))])
        try:
            beside = min(seconds(work) for _ in range(options.repeats))
        finally:
            other.kill()
        print(f"{name}: {beside / alone:.2f} times as long beside a program on one processor", flush=True)


if __name__ == "__main__":
    main()
