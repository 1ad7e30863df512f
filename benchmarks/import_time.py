"""Time of `import hist2scrna`, and that of `import anndata`, each in fresh processes, taken in turn.

The bound that the project sets itself: no longer than `import anndata` plus 10 %.

    python benchmarks/import_time.py [repeats]
"""

from __future__ import annotations

import statistics
import subprocess
import sys

PACKAGES = ("hist2scrna", "anndata")


def import_seconds(package: str) -> float:
    """Seconds that a fresh interpreter takes to import `package`, its own start left out."""
    code = f"import time; start = time.perf_counter(); import {package}; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main(repeats: int = 9) -> None:
    for package in PACKAGES:
        import_seconds(package)  # bytecode and file cache
    rounds = [{package: import_seconds(package) for package in PACKAGES} for _ in range(repeats)]
    medians = {package: statistics.median(r[package] for r in rounds) for package in PACKAGES}
    for package, seconds in medians.items():
        print(f"import {package:<11} {1000 * seconds:8.1f} ms (median of {repeats})")
    print(f"ratio {medians['hist2scrna'] / medians['anndata']:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
