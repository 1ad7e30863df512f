"""Sphinx configuration. `make docs` builds with warnings as errors and every reference checked."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.errors import ExtensionError
from sphinx.ext.napoleon import NumpyDocstring

import hist2scrna

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment
    from sphinx.writers.html5 import HTML5Translator

HERE = Path(__file__).parent

# Notebooks stand at the top of the repository, where readers look for them; Sphinx reads only below its own folder.
shutil.rmtree(HERE / "tutorials", ignore_errors=True)
(HERE / "tutorials").mkdir()
for notebook in sorted((HERE.parent / "tutorials").glob("*.ipynb")):
    shutil.copy(notebook, HERE / "tutorials")

project = "hist2scrna"
author = "hist2scrna authors"
copyright = f"2026, {author}"
version = release = hist2scrna.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
# The tables of the benchmark are included in its pages.
exclude_patterns = ["_build", "**.ipynb_checkpoints", "benchmark/*.md"]
templates_path = ["_templates"]
default_role = "code"
html_theme = "sphinx_book_theme"
# Browsers draw MathML themselves: equations need no script and no network, and take the colors of the page.
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"hist2scrna {version}"
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True, "navbar_persistent": []}
html_show_sourcelink = False

myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
# Progress bars are stored as widgets, with a text that serves as well.
suppress_warnings = ["mystnb.unknown_mime_type"]

autosummary_generate = True
autodoc_member_order = "bysource"
# Type aliases, that a signature would spell out over lines.
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "Floats": "numpy.ndarray", "Table": "ArrayLike"}
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False


def _returns_as_written(self: NumpyDocstring, section: str) -> list[str]:
    lines = self._dedent(self._consume_to_next_section())
    return [*self._format_block(":returns: ", lines), ""]


# Napoleon takes every line of a Returns section that is not indented for a type; ours hold sentences.
NumpyDocstring._parse_returns_section = _returns_as_written


def _public_class(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    name = node["reftarget"].rpartition(".")[2]
    if node.get("refdomain") != "py" or not node["reftarget"].startswith("hist2scrna.") or not name[:1].isupper():
        return None
    python = env.domains["py"]
    public = [full for full in python.objects if full.rpartition(".")[2] == name]
    if len(public) != 1:
        return None
    return python.resolve_xref(env, node["refdoc"], app.builder, "class", public[0], node, content)


def _plain_aliases(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str] | None:
    # Sphinx shows an alias within a union by its repr.
    if signature is None:
        return None
    pattern = re.compile(r"TypeAliasForwardRef\('([^']*)'\)")
    return pattern.sub(r"\1", signature), pattern.sub(r"\1", returns or "")


def _mathml(latex: str, display: str) -> str:
    converted = convert(latex, display=display)
    if "\\" in converted:
        raise ExtensionError(f"latex2mathml does not know a command in {latex!r}.")
    return converted


def _inline_math(self: HTML5Translator, node: Element) -> None:
    self.body.append(_mathml(node.astext(), "inline"))
    raise SkipNode


def _math_block(self: HTML5Translator, node: Element) -> None:
    self.body.append(f'<div class="equation">{_mathml(node.astext(), "block")}</div>')
    raise SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (_inline_math, None), (_math_block, None))
    app.connect("autodoc-process-signature", _plain_aliases)
    # Annotations name a class by the module that defines it; the API page has it under its public name.
    app.connect("missing-reference", _public_class)


# Our own references must resolve; those to other projects resolve where their inventories can be fetched.
nitpick_ignore_regex = [(r"py:.*", r"(?!hist2scrna\b).*")]
if os.environ.get("HIST2SCRNA_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "squidpy": ("https://squidpy.readthedocs.io/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
