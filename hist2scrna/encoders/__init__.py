"""Encoders: from the patch of a spot to its features. They know nothing of AnnData, and are never trained here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "encoder": ["Encoder"],
        "prepare": ["encoder_from_card", "prepare_encoder"],
    },
)
