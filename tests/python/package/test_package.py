"""What a program sees that imports the module: the same names for every reader of them."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import kerasoptimizers
import kerasoptimizers.keras3
from kerasoptimizers import methods

pytestmark = pytest.mark.once

FILE = Path(kerasoptimizers.__file__)
#: Functions that take a model of either Keras, or none.
FOR_BOTH = {
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


@pytest.mark.parametrize("name", kerasoptimizers.__all__)
def test_docstrings_say_arguments_and_errors(name):
    documented = inspect.getdoc(getattr(kerasoptimizers, name))
    assert "Args:" in documented or name == "SwapAverages"
    assert "Raises:" in documented
    assert "{settings}" not in documented


def test_importing_it_imports_no_keras():
    code = "import sys, kerasoptimizers; print(sorted({'keras', 'tf_keras', 'tensorflow'} & set(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FILE.parents[1]
    )
    assert output.stdout.strip() == "[]"
