"""From a template and its variables to one page that needs no other file."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hist2scrna.evaluation.plain import number
from hist2scrna.messages import percent
from hist2scrna.provenance import package_versions


def render(template: str, content: dict[str, Any], script: str | None = None) -> str:
    """Return the page.

    Parameters
    ----------
    template
        Name of the template in this folder.
    content
        Its variables; values are escaped.
    script
        Name of the script in this folder that the browser runs, and no other, whatever the data hold; None: none.
    """
    environment = Environment(
        loader=PackageLoader("hist2scrna.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, percent=percent)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    code = None if script is None else _file(script)
    digest = None if code is None else base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return environment.get_template(template).render(
        **content,
        css=Markup(_file("page.css")),
        script=None if code is None else Markup(code),
        script_hash=None if digest is None else Markup(f"sha256-{digest}"),
        versions=package_versions(),
    )


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
