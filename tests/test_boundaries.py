"""What imports what, in fresh processes, and what the source may not contain."""

import ast
import functools
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import steerlens

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "steerlens").rglob("*.py")) + sorted((ROOT / "analysis").rglob("*.py"))
OURS = [path for path in SOURCES if (ROOT / "steerlens") in path.parents]
HEAVY = ("numpy", "pandas", "plotly", "rich", "safetensors", "sklearn", "tqdm", "torch", "typer")
HEAVY += ("transformer_lens", "transformers", "httpx", "peft")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_source = pytest.mark.parametrize("path", SOURCES, ids=name_of)
each_of_ours = pytest.mark.parametrize("path", OURS, ids=name_of)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def loaded_by(statement: str) -> frozenset[str]:
    """The packages and modules that a fresh Python without test checks holds after `statement`."""
    code = f"import sys\n{statement}\nimport json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return frozenset(json.loads(done.stdout.splitlines()[-1]))


def imports(tree: ast.AST, whole: bool = True) -> set[str]:
    """The top-level packages that `tree` imports; with `whole=False` at module level alone."""
    found = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if whole or not inside:
                waiting.append(child)
    return found


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def test_the_files_under_test_are_found():
    names = {name_of(path) for path in SOURCES}
    assert {"steerlens/steering.py", "steerlens/methods/caa.py", "analysis/__init__.py"} <= names


def test_import_steerlens_loads_nothing_heavy():
    assert not set(HEAVY) & loaded_by("import steerlens")


def test_every_public_name_is_there_and_is_looked_up_lazily():
    loaded = loaded_by(
        "import steerlens\n"
        "assert set(steerlens.__all__) <= set(dir(steerlens))\n"
        "steerlens.Site(3)\n"
        "kinds = {n: type(getattr(steerlens, n)).__name__ for n in steerlens.__all__}\n"
        "assert 'module' not in kinds.values(), kinds"
    )
    assert "torch" in loaded


def test_a_name_that_steerlens_lacks_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'steerlens' has no attribute 'steer_everything'"):
        _ = steerlens.steer_everything


@pytest.mark.parametrize(
    "module", ["generation", "activations", "methods", "models", "saving", "prompts"]
)
def test_the_library_loads_no_table_picture_or_terminal_package_of_its_own(module):
    # transformer_lens brings pandas and rich along; it is none of our doing.
    own = loaded_by(f"import steerlens.{module}") - loaded_by("import torch, transformer_lens")
    found = {name.partition(".")[0] for name in own}
    assert not found & {"analysis", "httpx", "pandas", "peft", "plotly", "rich", "sklearn", "typer"}


PICTURES = sorted(path.stem for path in (ROOT / "analysis" / "figures").glob("[!_]*.py"))


@pytest.mark.parametrize(
    "module", ["figures", *(f"figures.{name}" for name in PICTURES), "reports.page"]
)
def test_pictures_need_neither_torch_nor_the_library(module):
    assert {"heatmaps", "tokens"} <= set(PICTURES)
    loaded = {name.partition(".")[0] for name in loaded_by(f"import analysis.{module}")}
    assert not loaded & {"torch", "steerlens", "transformer_lens", "transformers"}


@each_of_ours
def test_steerlens_does_not_import_analysis(path):
    if name_of(path) == "steerlens/analysis.py":
        return  # the alias: test_alias.py says what it loads, and when
    tree = tree_of(path)
    whole = "cli" in path.parts
    assert "analysis" not in imports(tree, whole=not whole), "import it inside the function, or not"


@each_of_ours
def test_no_module_level_import_is_heavy(path):
    heavy = {"analysis", "httpx", "pandas", "peft", "plotly", "rich", "sklearn"}
    if "cli" not in path.parts:
        heavy |= {"typer"}
    if name_of(path) == "steerlens/analysis.py":
        heavy -= {"analysis"}  # for type checkers, and what the alias is there for
    assert not imports(tree_of(path), whole=False) & heavy


FOREIGN = "steerlens/interchange/opening.py"


def opens_safely(node: ast.AST) -> bool:
    return ast.unparse(node) == "torch.load(path, map_location='cpu', weights_only=True)"


UNPICKLING = {"torch.load", "torch.save", "np.load", "joblib.load", "joblib.dump"}


@each_source
def test_no_pickle_is_written_or_read(path):
    tree = tree_of(path)
    # joblib sends the bench's arguments to its own workers; its files, which are pickles, are not
    # written or read there either.
    known = set() if str(path).endswith("analysis/bench/parallel.py") else {"joblib"}
    # lm-evaluation-harness reads no other file than one of torch.save: tensors, numbers and names.
    written = {"torch.save"} if path.name == "lm_eval_steered.py" else set()
    assert not imports(tree) & {"pickle", "dill", "cloudpickle", "shelve", "marshal", *known}
    # Other tools' vectors are in `.pt` files, of which torch takes the tensors and runs nothing:
    # by this one call, as it stands, and by no other.
    allowed = [node for node in ast.walk(tree) if name_of(path) == FOREIGN and opens_safely(node)]
    assert len(allowed) == (name_of(path) == FOREIGN)
    parts = {id(part) for call in allowed for part in ast.walk(call)}
    for node in (node for node in ast.walk(tree) if id(node) not in parts):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            assert called not in UNPICKLING - written, f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "joblib":
            assert not {alias.name for alias in node.names} & {"load", "dump", "Memory"}
        if isinstance(node, ast.keyword):
            assert node.arg not in {"allow_pickle", "weights_only"}, f"line {node.lineno}"


@each_source
def test_no_function_takes_any_keyword(path):
    # HookedModel.__call__, and what stands in its place or a block's, hands on what
    # TransformerLens gives or takes; a command's options, as typer has read them, are handed on,
    # and so are those of a group of commands; a generated command has the options of its method.
    # `generate` and `stream` take the fields of `Sampling`, which refuses all others, and `export`
    # the options of its target, which does so too. Decorators hand on what they stand before. A
    # model of Inspect has the options of its command line, and refuses those it does not know.
    known = {
        "steerlens/cli/fit/__init__.py": {"__init__"},
        "steerlens/cli/fit/generated.py": {"command"},
        "steerlens/cli/grouped.py": {"flat"},
        "steerlens/interchange/_inspect_provider.py": {"__init__"},
        "steerlens/types.py": {"__call__", "converting", "__init__"},
        "steerlens/generation.py": {"generate", "stream"},
        "steerlens/steering.py": {"export"},
        "steerlens/interchange/export.py": {"export"},
        "steerlens/runtime/turns.py": {"waiting"},
        "steerlens/runtime/forward.py": {"_hooked", "_hand_on"},
        "steerlens/runtime/bare.py": {"logits", "_between", "_nothing"},
        "steerlens/methods/cold/dual_pass.py": {"_block"},
    }
    found = {node.name for node in functions(tree_of(path)) if node.args.kwarg is not None}
    assert found <= known.get(name_of(path), set())


@each_source
def test_no_code_is_built_from_text(path):
    called = {
        node.func.id
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__"}


@each_of_ours
def test_no_steer_reads_the_name_of_its_hook(path):
    # A bridge names the point differently from a HookedTransformer.
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("hook", "name"), f"line {node.lineno}"


def public_things() -> list[tuple[str, object]]:
    found = []
    for info in pkgutil.walk_packages(steerlens.__path__, "steerlens."):
        if info.name.rpartition(".")[2].startswith("_"):
            continue
        module = importlib.import_module(info.name)
        found.append((info.name, module))
        for name, thing in vars(module).items():
            home = getattr(thing, "__module__", None) == info.name
            if home and not name.startswith("_") and (inspect.isclass(thing) or callable(thing)):
                found.append((f"{info.name}.{name}", thing))
    return found


def test_every_public_module_class_and_function_says_what_it_is():
    things = public_things()
    assert {"steerlens.sites.Site", "steerlens.saving.write_steering"} <= {n for n, _ in things}
    silent = [
        name
        for name, thing in things
        if not (thing.__doc__ or "").strip()
        # What @dataclass writes when there is none: the signature.
        or (inspect.isclass(thing) and thing.__doc__.startswith(f"{thing.__name__}("))
    ]
    assert not [name for name in silent if name != "steerlens.methods"]
    assert steerlens.__doc__


@each_of_ours
def test_every_public_method_has_a_docstring_or_a_name_that_the_class_explains(path):
    # Plain from the class, as ruff's D102 is switched off, or what `Scope` says of all scopes.
    plain = {"fit", "bind", "hook_name", "inside", "over", "holds_rest", "shown"}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    bare = (
                        isinstance(method.body[-1].value, ast.Constant)
                        if (isinstance(method.body[-1], ast.Expr))
                        else False
                    )
                    said = ast.get_docstring(method)
                    assert said or method.name in plain or bare, f"{node.name}.{method.name}"


def test_what_no_other_test_runs_can_be_imported() -> None:
    """Benchmarks and scripts: a name that the product lost turns red here."""
    folders = ["scripts/demo_model", "scripts/judges", "scripts/bench"]
    modules = [f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("[!_]*.py")]
    modules += [path.stem for folder in folders for path in (ROOT / folder).glob("*.py")]
    assert len(modules) > 20
    loaded_by(f"sys.path[:0] = {folders}\nimport " + ", ".join(sorted(modules)))
