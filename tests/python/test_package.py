"""What a program sees that imports the module: the same names for every reader of them."""

import ast
import inspect
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
