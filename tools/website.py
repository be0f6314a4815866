"""Make the site of the lessons, a page for each: `make site`.

The README, the notebooks with their outputs, and how to contribute are copied to build/site-source,
with links that fit the site, and Sphinx makes build/site of them. A link that leads nowhere is an
error. Where the variable GITHUB_REPOSITORY (owner/name) is set, as on GitHub, lessons can be opened
in Colab and nbviewer, and what is no page of the site is a link to the repository.
"""

import os
import posixpath
import re
import shutil
import sys
from pathlib import Path

from tools import lessons
from tools.lessons import ROOT

FOLDER = ROOT / "build" / "site"
CONFIGURATION = Path(__file__).parent / "site"
PAGES = {  # what becomes a page, beside the lessons, where it exists
    "README.md": "index.md",
    "README.zh.md": "zh.md",
    ".github/CONTRIBUTING.md": "contributing.md",
    ".github/DEPENDENCIES.md": "dependencies.md",
    ".github/ORIGINAL.md": "original.md",
}
LINK = re.compile(r"(?<!!)\[([^][]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")  # to a file, and no picture
BADGE = re.compile(r"!\[([^][]*)\]\(https?:[^)]*\)")
CONTENTS = """
```{{toctree}}
:hidden:
{}

{}
```
"""
TITLE = re.compile(r"title[=(]\s*f?([\"'])(.+?)\1")  # of a figure, in the code that draws it
LAUNCH = """
[Open in Colab](https://colab.research.google.com/github/{repository}/blob/HEAD/{path}) ·
[nbviewer](https://nbviewer.org/github/{repository}/blob/HEAD/{path}) ·
[GitHub](https://github.com/{repository}/blob/HEAD/{path})
"""


def mend(text: str, path: str, pages: dict[str, str], root: Path, repository: str) -> str:
    """Point the links of the file `path` at pages, and those to other files at the repository.

    Without one, the words of such a link stay. One that leads nowhere is left for Sphinx to find.
    """

    def replace(link: re.Match) -> str:
        words, target, anchor = link.groups(default="")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if target in pages:
            start = posixpath.dirname(pages[path])
            return f"[{words}]({posixpath.relpath(pages[target], start or '.')}{anchor})"
        if target.startswith("..") or not (root / target).exists():
            return link[0]
        address = f"https://github.com/{repository}/blob/HEAD/{target}{anchor}"
        return f"[{words}]({address})" if repository else words

    return LINK.sub(replace, BADGE.sub(r"\1", text))


def describe(source: str) -> str:
    """Return the alt text of what a cell draws: its titles, without what the run puts into them."""
    titles = [re.sub(r"\{.*?\}", "…", words) for _, words in TITLE.findall(source)]
    titles = [words for words in titles if re.search(r"[^\W_]{2}", words)]
    return f"picture: {'; '.join(titles)}" if titles else "the picture that the code above draws"


def stage(root: Path, source: Path, repository: str) -> None:
    """Write what Sphinx reads into the folder `source`."""
    found = lessons.find(root)
    texts = {path: page for path, page in PAGES.items() if (root / path).exists()}
    pages = texts | {str(lesson): str(lesson) for lesson in found}
    shutil.copytree(root / "imgs", source / "imgs")
    for path, page in texts.items():
        text = mend((root / path).read_text("utf-8"), path, pages, root, repository)
        if page == "index.md":
            others = [other for other in texts.values() if other != page]
            text += CONTENTS.format(":numbered: 1\n:caption: Lessons", "\n".join(map(str, found)))
            text += CONTENTS.format(":caption: More", "\n".join(others))
        lessons.write(source / page, text)
    for lesson in found:
        notebook, path = lesson.read(), str(lesson)
        # The cell that Colab alone needs tells a reader of the site nothing.
        notebook.cells = [x for x in notebook.cells if lessons.COLAB not in lessons.tags(x)]
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = mend(cell.source, path, pages, root, repository)
            else:
                cell.metadata["mystnb"] = {"image": {"alt": describe(cell.source)}}
        if repository:
            title, _, rest = notebook.cells[0].source.partition("\n")
            launch = LAUNCH.format(repository=repository, path=path)
            notebook.cells[0].source = f"{title}\n{launch}\n{rest}"
        lessons.write_notebook(source / path, notebook)


def build(root: Path = ROOT, folder: Path = FOLDER, repository: str = "") -> bool:
    """Make the site anew in `folder`; say whether all went well, without a single warning."""
    from sphinx.cmd.build import main as sphinx

    source = folder.with_name(f"{folder.name}-source")
    for old in (source, folder):
        shutil.rmtree(old, ignore_errors=True)
    stage(root, source, repository)
    words = ["--quiet", "--fail-on-warning", "--keep-going", "-c", CONFIGURATION]
    words += ["-d", source / ".doctrees", source, folder]
    return sphinx(list(map(str, words))) == 0


def main() -> int:
    """Build the site; 1 if anything is wrong with it."""
    if not build(repository=os.environ.get("GITHUB_REPOSITORY", "")):
        return 1
    print(f"site: open {lessons.shown(FOLDER, ROOT)}/index.html, or put the folder on a web server")
    return 0


if __name__ == "__main__":
    sys.exit(main())
