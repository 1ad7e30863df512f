"""State dicts of the published implementations: renamed to ours, and loaded whole or not at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn


def load_renamed(
    model: nn.Module, state: Mapping[str, Tensor], names: Sequence[tuple[str, str]], *, may_lack: Sequence[str] = ()
) -> None:
    """Load the state dict of a published implementation into our module.

    Parameters
    ----------
    model
        Our module.
    state
        State dict of the original, as `torch.load(path, weights_only=True)` gives it.
    names
        Pairs of a regular expression that matches the whole of an original name, and our name for it.
    may_lack
        Beginnings of names that the original does not have, and that keep what they hold here.

    Raises
    ------
    ValueError
        If a name or a shape does not fit: the model was made with other options.
    """
    renamed = {}
    for name, value in state.items():
        ours = [re.sub(pattern, new, name) for pattern, new in names if re.fullmatch(pattern, name)]
        renamed[ours[0] if ours else name] = value
    expected = model.state_dict()
    missing = [name for name in expected if name not in renamed and not name.startswith(tuple(may_lack))]
    unknown = [name for name in renamed if name not in expected]
    wrong = [
        f"{name} {tuple(value.shape)} where this model has {tuple(expected[name].shape)}"
        for name, value in renamed.items()
        if name in expected and value.shape != expected[name].shape
    ]
    if missing or unknown or wrong:
        parts = [f"{len(missing)} entries are missing, such as {missing[0]!r}"] if missing else []
        parts += [f"{len(unknown)} are not known, such as {unknown[0]!r}"] if unknown else []
        parts += [f"{len(wrong)} are of another shape, such as {wrong[0]}"] if wrong else []
        raise ValueError(
            f"The state dict does not fit this {type(model).__name__}: {'; '.join(parts)}. Create the model with the "
            "options, the number of genes and the size that the checkpoint was trained with."
        )
    model.load_state_dict(renamed, strict=False)
