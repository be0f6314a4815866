"""How Sphinx makes the site of the lessons: `make site`.

The README, the notebooks with their outputs, and how to contribute become pages. A link that leads
nowhere is an error. Once pyproject.toml names the repository's address, pages have buttons for it
and for Colab, and links to files that are no pages lead there.
"""

import posixpath
import re
import shutil

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from tools import lessons

ROOT = lessons.ROOT
ADDRESS = lessons.address(ROOT) if lessons.has_address(ROOT) else ""
FILES = {  # what becomes a page, beside the lessons
    "index.md": "README.md",
    "zh.md": "README.zh.md",
    "contributing.md": ".github/CONTRIBUTING.md",
    "dependencies.md": ".github/DEPENDENCIES.md",
    "original.md": ".github/ORIGINAL.md",
}
CONTENTS = """
```{toctree}
:hidden:
:glob:
:caption: Lessons
notebooks/ch*
```
```{toctree}
:hidden:
:glob:
:caption: More
notebooks/[!c]*
zh
*
```
"""
TITLE = re.compile(r"title[=(]\s*f?\"([^{\"]+)\"")  # of a figure, in the code that draws it

project = html_title = "Read captchas with deep learning"
extensions = ["myst_nb", "sphinx_copybutton"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "sphinx_book_theme"
html_theme_options = {"navbar_persistent": [], "footer_content_items": []}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = html_show_sphinx = html_use_index = False
html_math_renderer = "mathml"  # browsers lay it out themselves, without a download
if ADDRESS:
    html_theme_options |= {
        "repository_url": ADDRESS,
        "repository_branch": "main",
        "use_repository_button": True,
        "use_source_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }
    html_context = {
        "files": FILES,
        "edit_page_provider_name": "GitHub",
        "edit_page_url_template": ADDRESS + "/edit/main/{{ files.get(file_name, file_name) }}",
    }


def stage(app: Sphinx) -> None:
    """Copy what becomes a page into Sphinx's source folder."""
    shutil.rmtree(app.srcdir)
    for folder in ("notebooks", "imgs"):
        hidden = shutil.ignore_patterns(".*")
        shutil.copytree(ROOT / folder, app.srcdir / folder, ignore=hidden)
    for page, path in FILES.items():
        shutil.copy(ROOT / path, app.srcdir / page)
    with open(app.srcdir / "index.md", "a", encoding="utf-8") as front:
        front.write(CONTENTS)


def mend_links(app: Sphinx, page: nodes.document) -> None:
    """Lead links to the pages of the site, and those to other files into the repository."""
    pages = {path: name.removesuffix(".md") for name, path in FILES.items()}
    folder = posixpath.dirname(FILES.get(f"{app.env.docname}.md", app.env.docname))
    for link in list(page.findall(pending_xref)):
        target, _, anchor = link["reftarget"].partition("#")
        path = posixpath.normpath(posixpath.join(folder, target))
        if link["refdomain"] == "doc" or not target:
            continue  # it leads to a lesson, or stays on this page
        if path in pages:
            link["refdomain"], link["reftarget"], link["reftargetid"] = "doc", pages[path], anchor
        elif (ROOT / path).exists():  # without an address, its words remain
            address = f"{ADDRESS}/blob/main/{path}"
            words = link.children
            link.replace_self(nodes.reference("", "", *words, refuri=address) if ADDRESS else words)


def describe_pictures(app: Sphinx, page: nodes.document) -> None:
    """Give what a cell draws its titles as alt text; no picture is loaded from another host."""
    cells = [x for x in page.findall(nodes.container) if x.get("nb_element") == "cell_code"]
    for cell in cells:
        titles = TITLE.findall(next(cell.findall(nodes.literal_block)).astext())
        for picture in cell.findall(nodes.image):
            picture["alt"] = f"picture: {'; '.join(titles) or 'what the code above draws'}"
    for picture in list(page.findall(nodes.image)):
        if "://" in picture["uri"]:
            picture.replace_self(nodes.Text(picture["alt"]))


def write_math(writer: HTML5Translator, formula: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML."""
    writer.body.append(tex2mathml(formula.astext(), as_block=isinstance(formula, nodes.math_block)))
    raise nodes.SkipNode


def name_language(app: Sphinx, page: str, template: str, context: dict, *_: object) -> None:
    """Say which page is in Chinese."""
    if page == "zh":
        context["language"] = "zh-Hans"


def setup(app: Sphinx) -> None:
    """Connect the functions above; called by Sphinx."""
    app.connect("builder-inited", stage)
    app.connect("doctree-read", mend_links)
    app.connect("doctree-read", describe_pictures)
    app.connect("html-page-context", name_language)
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
