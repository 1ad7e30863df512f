"""The settings of the package, `hist2scrna.settings`: how much is said on the way, and where features are cached."""

from __future__ import annotations

import builtins
import logging
import os
import sys
from enum import IntEnum
from pathlib import Path

from hist2scrna.messages import require_known

CACHE_VARIABLE = "HIST2SCRNA_CACHE_DIR"
# Between info and debug, by the number and the name that Scanpy has given it.
HINT = 15
logging.addLevelName(HINT, "HINT")


class Verbosity(IntEnum):
    """How much is said: each level includes those before it. The numbers are those of Scanpy."""

    error = 0
    warning = 1
    info = 2
    hint = 3
    debug = 4

    @property
    def level(self) -> int:
        """The least level of the messages that are said, as :mod:`logging` counts."""
        return (logging.ERROR, logging.WARNING, logging.INFO, HINT, logging.DEBUG)[self]


OF_SCANPY = Verbosity.warning


class Settings:
    """Settings of the package. There is one, `hist2scrna.settings`."""

    def __init__(self) -> None:
        self._verbosity: Verbosity | None = None
        self._cache_dir: Path | None = None

    @property
    def verbosity(self) -> Verbosity:
        """How much is said on the way, by name or number.

        `"error"` (0), `"warning"` (1), `"info"` (2), `"hint"` (3) or `"debug"` (4). `"info"`, the default, says which
        model was chosen and why, what was assumed, and how a fit went; `"hint"` also what was read of each section.
        Where it was not set, and `scanpy.settings.verbosity` is other than Scanpy's default, it is that. None sets it
        back. Warnings of :mod:`warnings` are not affected. Messages go between progress bars; where the root logger has
        handlers, they go to these instead.

        Examples
        --------
        >>> hist2scrna.settings.verbosity = "hint"
        """
        if self._verbosity is not None:
            return self._verbosity
        scanpy = getattr(sys.modules.get("scanpy"), "settings", None)
        followed = OF_SCANPY if scanpy is None else Verbosity(int(scanpy.verbosity))
        return Verbosity.info if followed == OF_SCANPY else followed

    @verbosity.setter
    def verbosity(self, level: Verbosity | int | str | None) -> None:
        if level is None:
            self._verbosity = None
        elif isinstance(level, str):
            require_known("verbosity", level, Verbosity.__members__)
            self._verbosity = Verbosity[level]
        else:
            if level not in list(Verbosity):
                raise ValueError(
                    f"Expected `verbosity` to be one of {list(Verbosity.__members__)} or 0 to {max(Verbosity)}, found "
                    f"{level!r}."
                )
            self._verbosity = Verbosity(level)

    @property
    def cache_dir(self) -> Path | None:
        """Folder in which features by an encoder are kept, so that the same patches are never encoded twice.

        None, the default: they are not kept. Where it was not set, it is what the environment variable
        `HIST2SCRNA_CACHE_DIR` says, which the shell reads too. `fit`, `adapt`, `predict`, `evaluate`, `benchmark`, and
        `pp.extract_features` where it has no store, then look there first. Features are found by the image (path, size
        and time of change; pixels of one in memory), the spots, the geometry of the patches, their random variation,
        and the encoder with the SHA-256 of its weights; so that none is ever taken for another's. Encoders by name are
        cached; functions and modules of your own are not, since nothing tells whether their code has changed. A spot
        takes some 15 kB, with variation 30. Nothing is ever removed: delete the folder, or files in it, whenever you
        like.

        Examples
        --------
        >>> hist2scrna.settings.cache_dir = "cache/"
        """
        if self._cache_dir is not None:
            return self._cache_dir
        named = os.environ.get(CACHE_VARIABLE)
        return Path(named).expanduser() if named else None

    @cache_dir.setter
    def cache_dir(self, folder: str | Path | None) -> None:
        if not isinstance(folder, str | Path | None):
            raise TypeError(f"Expected `cache_dir` to be the path of a folder or None, found {type(folder).__name__}.")
        path = None if folder is None else Path(folder).expanduser()
        if path is not None and path.exists() and not path.is_dir():
            raise NotADirectoryError(f"Expected `cache_dir` to be a folder, but '{path}' is a file.")
        self._cache_dir = path

    def __repr__(self) -> str:
        cache = self.cache_dir
        return f"Settings(verbosity={self.verbosity.name!r}, cache_dir={None if cache is None else str(cache)!r})"


class _Speaker(logging.Handler):
    """Say what the verbosity allows: above progress bars, or to the root logger where that has handlers."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < settings.verbosity.level:
            return
        if others := logging.getLogger().handlers:
            for handler in others:
                # Pytest hangs its own on loggers that do not propagate, too.
                if record.levelno >= handler.level and handler not in _logger.handlers:
                    handler.handle(record)
            return
        from tqdm import tqdm

        loud = f"{record.levelname}: " * (record.levelno >= logging.WARNING)
        # A notebook shows the standard error on red.
        stream = sys.stdout if hasattr(builtins, "__IPYTHON__") else sys.stderr
        tqdm.write(loud + self.format(record), file=stream)


settings = Settings()
_logger = logging.getLogger(__package__)
_logger.setLevel(logging.DEBUG)
_logger.propagate = False
_logger.addHandler(_Speaker())
