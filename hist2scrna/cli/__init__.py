"""The command line: each command is a thin layer over a public function."""

from hist2scrna.cli.app import app

__all__ = ["app"]
