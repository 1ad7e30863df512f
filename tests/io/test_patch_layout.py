"""Names of patches."""

from __future__ import annotations

from hist2scrna.io import patch_layout


def test_names_of_patches():
    assert patch_layout.patch_name("AAACAAGTATCTCCCA-1") == "AAACAAGTATCTCCCA-1.png"
    assert patch_layout.patch_name("a/b\\c:é%") == "a%2Fb%5Cc%3A%C3%A9%25.png"
