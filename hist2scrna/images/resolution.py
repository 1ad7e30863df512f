"""Microns per pixel, from the metadata of image files."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

MICRONS = {
    **dict.fromkeys(("um", "µm", "μm", "micrometer", "micrometre", "micron", "microns"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch"), 25_400.0),
}
# What TIFF's own tags say is mostly the density of print: 300 dots per inch would be 85 um a pixel, 4,800 still 5.3.
PLAUSIBLE_TAG_UM = (0.05, 5.0)
TIFF_UNITS = {2: "inch", 3: "cm"}
LARGEST_DIFFERENCE = 0.01


def in_microns(value: Any, unit: str | None) -> float | None:
    """Return a length in microns; None if it is no positive number or the unit is none of length."""
    try:
        number = float(value) * MICRONS.get(str(unit).strip(), float("nan"))
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None


def square(x: float | None, y: float | None, origin: str) -> float | None:
    """Return the side of a pixel; None, and it is logged, if its sides differ by more than 1 % or one is not known."""
    if x is None or y is None:
        return None
    if abs(x - y) > LARGEST_DIFFERENCE * max(x, y):
        log.warning("%s: ignoring its pixel size of %g x %g um, because the pixels are not square", origin, x, y)
        return None
    return (x + y) / 2


def aperio_mpp(description: str) -> float | None:
    """Return what `MPP` in the description of an Aperio file says; the magnification (`AppMag`) tells no scale."""
    match = re.search(r"\|\s*MPP\s*=\s*([0-9.,]+)", description) if description.startswith("Aperio") else None
    return in_microns(match[1].replace(",", "."), "um") if match else None


def ome_xml_mpp(xml: str, width: int, height: int, origin: str) -> float | None:
    """Return `PhysicalSizeX` and `Y` of the image of a given size in OME-XML; the default unit is microns."""
    try:
        every = ElementTree.fromstring(xml).iter()
    except ElementTree.ParseError:
        return None
    for element in every:
        attributes = element.attrib
        same = (attributes.get("SizeX"), attributes.get("SizeY")) == (str(width), str(height))
        if element.tag.rpartition("}")[2] == "Pixels" and same:
            sides = [(attributes.get(f"PhysicalSize{a}"), attributes.get(f"PhysicalSize{a}Unit", "µm")) for a in "XY"]
            x, y = (in_microns(*side) for side in sides)
            return square(x, y, origin)
    return None


def tiff_tags_mpp(resolution: tuple[Any, Any], unit: Any, origin: str) -> float | None:
    """Return what XResolution and YResolution (each a fraction) with ResolutionUnit say, where that may be tissue.

    The same tags are used for print densities, so only values of 0.05 to 5 um per pixel are accepted.
    """
    sides = []
    for value in resolution:
        try:
            sides.append(in_microns(value[1] / value[0], TIFF_UNITS.get(int(unit))))
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return None
    mpp = square(sides[0], sides[1], origin)
    return mpp if mpp is not None and PLAUSIBLE_TAG_UM[0] <= mpp <= PLAUSIBLE_TAG_UM[1] else None


def ngff_mpp(multiscales: Mapping[str, Any], dataset: Mapping[str, Any], origin: str) -> float | None:
    """Return the product of the scales that apply to a dataset of OME-Zarr, for x and y in a unit of length."""
    sides: dict[str, float | None] = {}
    for position, axis in enumerate(multiscales.get("axes") or []):
        if isinstance(axis, dict) and axis.get("name") in ("x", "y"):
            length = 1.0
            for holder in (dataset, multiscales):
                for transformation in holder.get("coordinateTransformations") or []:
                    if transformation.get("type") == "scale":
                        length *= float(transformation["scale"][position])
            sides[axis["name"]] = in_microns(length, axis.get("unit"))
    return square(sides.get("x"), sides.get("y"), origin)
