"""How Sphinx makes the site of the lessons: `make site`.

The start page has a card for each lesson; the notebooks with their outputs, the README, and how to
contribute become pages. A link that leads nowhere is an error. Once pyproject.toml names the
repository's address, pages have buttons for it and for Colab, and links to files that are no pages
lead there.
"""

import posixpath
import re
import shutil
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from jinja2 import Template
from PIL import Image
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from tools import lessons

ROOT = lessons.ROOT
ADDRESS = lessons.address(ROOT)
OWNER, _, NAME = ADDRESS.removeprefix("https://github.com/").partition("/")
PAGES = Path(__file__).parent / "pages"  # written for the site alone; links in them lead to pages
FILES = {  # what becomes a page, beside those and the lessons
    "about.md": "README.md",
    "zh.md": "README.zh.md",
    "contributing.md": ".github/CONTRIBUTING.md",
    "dependencies.md": ".github/DEPENDENCIES.md",
    "original.md": ".github/ORIGINAL.md",
}
# A lesson in the README: its title, name, promise and minutes.
ROW = re.compile(r"^\| \[(.*?)\]\(notebooks/(\w+)\.ipynb\).*? \| (.+) \| (\d+) \|$", re.M)
LESSONS = {
    name: {"title": title, "promise": f"{text[0].upper()}{text[1:]}.", "minutes": minutes}
    for title, name, text, minutes in ROW.findall((ROOT / "README.md").read_text("utf-8"))
}
COVERS = {  # in the code of the figure that a card shows; elsewhere it is the first
    "ch1_captcha_preview": "24 captchas",
    "ch2_cnn": "four channels",
    "ch4_gpu_training": "One rise",
    "ch5_loss_curves": "Captchas in training",
    "ch6_o0o0": "the share of ink",
}
TITLE = re.compile(r"title[=(]\s*f?\"([^{\"]+)\"")  # of a figure, in the code that draws it

project = html_title = "Captcha lessons"
extensions = ["myst_nb", "sphinx_copybutton"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "sphinx_book_theme"
html_theme_options = {"navbar_persistent": [], "footer_content_items": ["licence.html"]}
html_static_path, templates_path = ["static"], ["templates"]
html_favicon = "static/favicon.svg"
html_css_files = ["site.css"]
html_show_copyright = html_show_sphinx = html_use_index = False
html_math_renderer = "mathml"  # browsers lay it out themselves, without a download
html_context = {  # for templates/layout.html
    "promises": {f"notebooks/{name}": row["promise"] for name, row in LESSONS.items()},
    "summary": lessons.project(ROOT)["description"],
}
if ADDRESS:
    html_baseurl = f"https://{OWNER}.github.io/{NAME}/"
    html_theme_options |= {
        "repository_url": ADDRESS,
        "repository_branch": "main",
        "use_repository_button": True,
        "use_source_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }
    html_context |= {
        "base": html_baseurl,
        "files": FILES | {path.name: f"tools/site/pages/{path.name}" for path in PAGES.iterdir()},
        "edit_page_provider_name": "GitHub",
        "edit_page_url_template": ADDRESS + "/edit/main/{{ files.get(file_name, file_name) }}",
    }


def card(lesson: lessons.Lesson, folder: Path) -> dict:
    """Return what a lesson's card says, and write its picture into `folder`."""
    cells = [cell for _, cell in lessons.code_cells(lesson.read()) if lessons.pngs(cell.outputs)]
    if not cells:
        raise ValueError(f"{lesson} has no picture for its card: draw one, and `make refresh`")
    cover = max(cells, key=lambda cell: COVERS.get(lesson.name, "") in cell.source)
    lessons.write(folder / f"{lesson.name}.png", lessons.pngs(cover.outputs)[0])
    return LESSONS[lesson.name] | {"lesson": lesson}


def stage(app: Sphinx) -> None:
    """Copy what becomes a page into Sphinx's source folder, which is empty."""
    for folder in ("notebooks", "imgs"):
        shutil.copytree(ROOT / folder, app.srcdir / folder, ignore=shutil.ignore_patterns(".*"))
    for page, path in FILES.items():
        shutil.copy(ROOT / path, app.srcdir / page)
    shutil.copytree(PAGES, app.srcdir, dirs_exist_ok=True)
    taught = [lesson for lesson in lessons.find(ROOT) if lesson.name in LESSONS]
    cards = [card(lesson, Path(app.srcdir, "cards")) for lesson in taught]
    start = app.srcdir / "index.md"
    template = Template(start.read_text("utf-8"), trim_blocks=True)
    start.write_text(template.render(address=ADDRESS, cards=cards), "utf-8")


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
    """Use the titles of a cell's figures as their alt text; load no picture from another host.

    Sphinx makes a picture with a width a link to itself.
    """
    cells = [x for x in page.findall(nodes.container) if x.get("nb_element") == "cell_code"]
    for cell in cells:
        titles = TITLE.findall(next(cell.findall(nodes.literal_block)).astext())
        for picture in cell.findall(nodes.image):
            picture["alt"] = f"picture: {'; '.join(titles) or 'what the code above draws'}"
    for picture in list(page.findall(nodes.image)):
        if "://" in picture["uri"]:
            picture.replace_self(nodes.Text(picture["alt"]))
        elif not picture["uri"].startswith("cards/"):
            width = Image.open(app.srcdir / picture["uri"]).width
            picture["width"] = f"{width}px"
            picture["classes"] += ["wide"] if width > 600 else []


def write_math(writer: HTML5Translator, formula: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML."""
    writer.body.append(tex2mathml(formula.astext(), as_block=isinstance(formula, nodes.math_block)))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Connect the functions above; called by Sphinx."""
    app.connect("builder-inited", stage)
    app.connect("doctree-read", mend_links)
    app.connect("doctree-read", describe_pictures)
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
