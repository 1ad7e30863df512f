"""Names in a published checkpoint of GHIST, and what of it does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

GENERAL = "general"
PARTS = {"embed_hist.model": "embedding", "estimate_comp.mlp": "composition", "mlp_hist.mlp": "cell_type"}
ATTENTION = {
    "value_transform.": "0.",
    "attention.in_proj_": "1.",
    "attention.out_proj.": "2.",
    "linear_out.": "3.",
}
NAMES = [
    (r"cnn\.conv(\d)\.conv(\d)\.(\d)\.(\w+)", r"backbone.encoder.\1.\2.\3.\4"),
    (r"cnn\.hd?(\d)_\w+_hd(\d)_conv\.(\w+)", r"backbone.decoder.\2.\1.0.\3"),
    (r"cnn\.hd?(\d)_\w+_hd(\d)_bn\.(\w+)", r"backbone.decoder.\2.\1.1.\3"),
    (r"cnn\.conv(\d)d_1\.(\w+)", r"backbone.fuse.\1.0.\2"),
    (r"cnn\.bn(\d)d_1\.(\w+)", r"backbone.fuse.\1.1.\2"),
    (r"cnn\.outconv_seg\.(\w+)", r"type_map.\1"),
    (r"mlp_genes\.mlp\.(\w+\.\w+)", r"type_of_expression.\1"),
    *((rf"{theirs}\.(\w+\.\w+)".replace(".model", r"\.model"), rf"{ours}.\1") for theirs, ours in PARTS.items()),
    (r"mlp_weights\.mlp\.(\w+\.\w+)", rf"expression.{GENERAL}.mixture.\1"),
    (r"mlp_weights_(\w+)\.mlp\.(\w+\.\w+)", r"expression.\1.mixture.\2"),
    *((rf"refine_expr\.{theirs}(\w+)", rf"expression.{GENERAL}.refine.{ours}\1") for theirs, ours in ATTENTION.items()),
    *(
        (rf"refine_expr_([a-z]+)\.{theirs}(\w+)", rf"expression.\1.refine.{ours}\2")
        for theirs, ours in ATTENTION.items()
    ),
]
QUERY_AND_KEY = ("query_transform", "key_transform")


def without_queries_and_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint without the queries and keys of its attention; of packed projections the values are last."""
    kept = {name: value for name, value in state.items() if not any(part in name for part in QUERY_AND_KEY)}
    return {name: value[-(len(value) // 3) :] if "in_proj_" in name else value for name, value in kept.items()}
