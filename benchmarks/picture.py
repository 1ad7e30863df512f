"""The picture of the README: measured beside predicted expression on another donor.

python benchmarks/picture.py [--out docs/images/measured_predicted.png]

HER2ST C2 to C6 (patient C) train, and B4 (patient B) is predicted from its image, with default settings, on the 785
genes of the benchmark: the split `C to B4` of `benchmarks/peers.py`. Two genes are shown that are known from breast
cancer, one of tumor cells and one of stroma; the mean Pearson correlation of all genes is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from peers import SERIAL, her2st
from PIL import Image

import hist2scrna as h2s

GENES = ["FASN", "VIM"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/measured_predicted.png"))
    out = parser.parse_args().out
    sections, panel = her2st(["B4", *SERIAL])
    train = sections[sections.obs["donor"] == "C"].copy()
    unseen = sections[sections.obs["donor"] == "B"].copy()
    model = h2s.tl.fit(train, group_key="donor", **panel)
    unseen = h2s.tl.predict(unseen, model)
    print(f"Pearson, mean of the genes: {h2s.tl.evaluate(unseen, model).headline['pearson']:.3f}")
    out.parent.mkdir(parents=True, exist_ok=True)
    h2s.pl.spatial_compare(unseen, GENES, library="B4", same_scale=False, ncols=2, figsize=(11.5, 2.9), save=out)
    # 256 colors are enough, and a third of the size.
    Image.open(out).convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(out, optimize=True)


if __name__ == "__main__":
    main()
