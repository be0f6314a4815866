"""How Sphinx makes the site; tools/website.py calls it."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

project = html_title = "Read captchas with deep learning"
extensions = ["myst_nb"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = html_show_copyright = html_show_sphinx = html_use_index = False
pygments_dark_style = "github-dark"
html_math_renderer = "mathml"  # browsers lay it out themselves, without a download


def write_math(writer: HTML5Translator, formula: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML."""
    writer.body.append(tex2mathml(formula.astext(), as_block=isinstance(formula, nodes.math_block)))
    raise nodes.SkipNode


def name_language(app: Sphinx, page: str, template: str, context: dict, *_: object) -> None:
    """Say which page is in Chinese."""
    if page == "zh":
        context["language"] = "zh-Hans"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("html-page-context", name_language)
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
