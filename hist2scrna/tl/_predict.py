"""Predict counts and cell types for AnnData with an image."""

from hist2scrna.trained.predict import predict

__all__ = ["predict"]
