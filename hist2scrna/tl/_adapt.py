"""Bring a model to a donor of whom a few spots were measured."""

from hist2scrna.trained.adapt import adapt

__all__ = ["adapt"]
