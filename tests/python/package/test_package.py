"""The names of the module, the same for programs and type checkers; and the metadata of both packages."""

import ast
import inspect
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import kerasoptimizers
import kerasoptimizers.keras3
from kerasoptimizers import methods, notices

pytestmark = pytest.mark.once

FILE = Path(kerasoptimizers.__file__)
CHECKOUT = FILE.parents[3]
#: Functions that take a model of either Keras, or none, and the category of warnings.
FOR_BOTH = {
    "KerasOptimizersWarning",
    "assign_average_vars",
    "average_width",
    "averages",
    "averaging_optimizer",
    "posthoc_average",
    "posthoc_scores",
}


def test_type_checkers_see_every_public_name():
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname or alias.name for node in imports for alias in node.names}
    seen |= set(methods.__all__)  # imported with a star
    assert set(kerasoptimizers.__all__) <= seen
    assert FILE.with_name("py.typed").exists()


def test_both_generations_have_every_public_name():
    tf_keras = pytest.importorskip("kerasoptimizers.tf_keras")
    public = set(kerasoptimizers.__all__) - FOR_BOTH
    assert set(kerasoptimizers.keras3.__all__) == set(tf_keras.__all__) == public
    for name in public:
        assert getattr(kerasoptimizers, name) is getattr(kerasoptimizers.keras3, name)
        assert getattr(tf_keras, name) is not getattr(kerasoptimizers.keras3, name)


@pytest.mark.parametrize("name", sorted(set(kerasoptimizers.__all__) - {"KerasOptimizersWarning"}))
def test_docstrings_say_arguments_and_errors(name):
    documented = inspect.getdoc(getattr(kerasoptimizers, name))
    assert "Args:" in documented or name == "SwapAverages"
    assert "Raises:" in documented
    assert "{settings}" not in documented


def test_every_warning_has_the_packages_category():
    """So that a filter on it means them all, and R makes R warnings of them."""
    categories = []
    for file in FILE.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
                categories.append(ast.unparse(node.args[1]) if len(node.args) > 1 else f"none in {file.name}")
    assert set(categories) == {"KerasOptimizersWarning", "DeprecationWarning"}


def test_warnings_are_handed_over_each_time_but_those_of_others_and_of_other_threads():
    heard = []
    with warnings.catch_warnings(record=True) as printed:
        warnings.resetwarnings()
        notices.hand_over(heard.append)

        def warn(category=kerasoptimizers.KerasOptimizersWarning):
            warnings.warn("ours", category, stacklevel=1)

        warn()
        warn()
        warn(UserWarning)
        thread = threading.Thread(target=warn)
        thread.start()
        thread.join()
        assert heard == ["ours", "ours"]
        assert [warning.category.__name__ for warning in printed] == ["UserWarning", "KerasOptimizersWarning"]
        warnings.simplefilter("ignore", category=kerasoptimizers.KerasOptimizersWarning)
        warn()
    assert len(heard) == 2


def test_importing_it_imports_no_keras():
    code = "import sys, kerasoptimizers; print(sorted({'keras', 'tf_keras', 'tensorflow'} & set(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FILE.parents[1]
    )
    assert output.stdout.strip() == "[]"


def project():
    """The contents of pyproject.toml."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))


def description(field):
    """A field of DESCRIPTION, in one line."""
    text = (CHECKOUT / "DESCRIPTION").read_text(encoding="utf-8")
    return " ".join(re.search(rf"^{field}:((?:.*\n)(?:[ \t].*\n)*)", text, re.MULTILINE)[1].split())


def test_the_version_stands_in_description_alone():
    settings = project()
    source = settings["tool"]["hatch"]["version"]
    assert settings["project"]["dynamic"] == ["version"] and "version" not in settings["project"]
    assert source["path"] == "DESCRIPTION"
    text = (CHECKOUT / source["path"]).read_text(encoding="utf-8")
    version = description("Version")
    assert re.search(source["pattern"], text, re.MULTILINE)["version"] == version
    files = [*CHECKOUT.glob("*.toml"), *CHECKOUT.glob("*.md"), *FILE.parent.rglob("*.py"), *CHECKOUT.glob("R/*.R")]
    assert [file.name for file in files if version in file.read_text(encoding="utf-8")] in (["NEWS.md"], [])


def test_news_begins_with_the_version():
    news = CHECKOUT / "NEWS.md"
    if not news.exists():
        pytest.skip("a source distribution for Python has no NEWS.md")
    assert news.read_text(encoding="utf-8").splitlines()[0] == f"# kerasoptimizers {description('Version')}"


def test_both_packages_name_the_same_authors_keywords_and_license():
    about = project()["project"]
    assert [f'person("{one["name"]}"' in description("Authors@R") for one in about["authors"]] == [True]
    assert [one["email"] in description("Authors@R") for one in about["authors"]] == [True]
    assert description("X-schema.org-keywords").split(", ") == about["keywords"]
    assert description("License") == "MIT + file LICENSE" and about["license"] == "MIT"
    assert about["license-files"] == ["LICENSE.md"]
    whole = (CHECKOUT / "LICENSE.md").read_text(encoding="utf-8")
    holder, year = about["authors"][0]["name"], re.search(r"\(c\) (\d+) (.+)", whole)
    assert "Permission is hereby granted" in whole and "WITHOUT WARRANTY OF ANY KIND" in whole
    assert year[2] == holder
    short = CHECKOUT / "LICENSE"
    if short.exists():
        assert short.read_text(encoding="utf-8").split("\n")[:2] == [f"YEAR: {year[1]}", f"COPYRIGHT HOLDER: {holder}"]
