"""What the reader of an evaluation must know besides the numbers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Notes:
    """Gathered while an evaluation is read and scored.

    Attributes
    ----------
    not_scored
        What could not be scored, with the reason.
    remarks
        Sentences on what was scored.
    """

    not_scored: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
