"""Every exercise leads to its solution. That solutions run is for test_lessons.py to show."""

import re

from conftest import ROOT


def test_every_exercise_leads_to_its_solution():
    linked, exercises = [], []
    for path in sorted(ROOT.glob("notebooks_py/ch*.py")):
        section = path.read_text("utf-8").partition("# ## On your own\n")[2].partition("\n# ## ")[0]
        numbers = re.findall(r"^# (\d+)\. ", section, re.MULTILINE)
        exercises += [f"lesson-{path.name[2]}-exercise-{number}" for number in numbers]
        linked += re.findall(r"\(solutions\.ipynb#([\w-]+)\)", section)
    solutions = (ROOT / "notebooks_py" / "solutions.py").read_text("utf-8").replace(" ", "-")
    assert linked == exercises == re.findall(r"^#-##-(lesson-.*)", solutions, re.MULTILINE) != []
