"""The structure of the package: who imports whom, what must never be imported, and what starting up costs."""

import ast
import statistics
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import pytest

import textladder

SOURCE = Path(textladder.__file__).parent
MODULES = {path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", "."): path for path in SOURCE.rglob("*.py")}
# From the ground up; a module may import from lower tiers and, inside its own package, from modules listed before it.
TIERS = [
    {"errors", "versions", "wording"},
    {"progress", "settings", "cores", "atomic_files", "scratch_file", "metrics", "significance", "onnx_check"},
    {"engines"},
    {"class_metrics", "pretrained", "bundle", "onnx_scorer", "fastai_archive"},
    {"data", "text"},
    {"networks", "batching", "language_models", "near_duplicates", "target_metric"},
    {"scoring", "encoders"},
    {"training"},
    {"levels"},
    {"classifier", "audit"},
    {"explain", "export", "predict_file"},
    {"predict_folder"},
    {"comparison"},
    {"serving", "flags"},
    {"setting_flags"},
    {"commands"},
    {"cli"},
    {"demo"},
]
# Each package from the ground up.
PACKAGES = {
    "data": "columns rows labels compression encodings file_streams file_options delimited_records dialects "
    "delimited_file json_file arrow_file spreadsheet_file fasttext_file row_files row_rewriting file_groups known_data "
    "row_sources mapped_tables inspection splits unlabelled labelled_table labelled_texts",
    "text": "ngrams plain_words document_counts tokenizer vocabulary vectors wordpieces word_rules fastai_words",
    "networks": "weights pooling lstm awd_lstm awd_classifier next_word_loss encoder cpu_kernels "
    "onnx_builder onnx_rewrites onnx_graphs",
    "commands": "command train lr_find audit compare evaluate explain export inspect levels predict pretrain serve "
    "__init__",
    "training": "precision word_streams frozen_states optimizers callbacks data_loaders learner checkpoints stages"
    " lr_plot pretraining",
    "levels": "base __init__ linear regression tfidf lstm ulmfit transformer",
    "engines": "base local __init__",
    "comparison": "hardware budget time_left shared_rows folds forms predictions label_errors curve verdict worker "
    "worker_process trainings level_result report_charts report_texts report results plan run_folder run compare",
    "serving": "connections limits measuring guard queue schemas service routes app server",
}
# Where a library may be imported; `training.*` is any module of the package.
ONLY_IN = {
    "fastai": {"training.*", "pretrained", "data.known_data"},
    "torch": {"networks.*", "training.*", "levels.*", "batching", "scoring", "encoders", "fastai_archive"},
    "chardet": {"data.encodings"},
    "python_calamine": {"data.spreadsheet_file"},
    "datasets": {"data.known_data"},
    "sklearn": {"levels.*", "class_metrics", "target_metric", "comparison.label_errors", "comparison.folds"},
    "cleanlab": {"comparison.label_errors"},
    "regex": {"text.ngrams", "text.plain_words"},
    "fastapi": {"serving.*"},
    "fastapi_swagger": {"serving.*"},
    "filelock": {"atomic_files"},
    "google": {"onnx_check"},
    "prometheus_client": {"serving.*"},
    "pydantic": {"serving.*"},
    "starlette": {"serving.*"},
    "uvicorn": {"serving.*"},
    "jinja2": {"comparison.report"},
    "matplotlib": {"training.lr_plot"},
    "onnx": {"networks.*", "levels.*", "classifier", "export"},
    "onnxruntime": {"networks.onnx_graphs", "onnx_scorer", "export"},
    "pandas": {"data.*", "comparison.results", "training.data_loaders"},
    "polars": {"text.tokenizer"},
    "tokenizers": {"encoders", "levels.transformer", "text.wordpieces"},
    "spacy": {"levels.ulmfit", "training.pretraining", "text.fastai_words", "text.word_rules"},
    "transformers": {"encoders", "levels.transformer"},
}
LONGEST_COPY = 12  # lines of a function that may stand in two places
FORBIDDEN = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def tier(module: str) -> int:
    top = module.split(".")[0]
    return next(place for place, names in enumerate(TIERS) if top in names)


def imports(path: Path) -> list[str]:
    """Every module that a file imports, wherever in the file, strings given to `import_extra` included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{name.name}" for name in node.names]
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "import_extra"
            and isinstance(node.args[0], ast.Constant)
        ):
            found.append(str(node.args[0].value))
    return found


def test_every_module_has_a_place() -> None:
    top = {module.split(".")[0] for module in MODULES} - {"__init__", "__main__"}
    assert sorted(name for names in TIERS for name in names) == sorted(top)
    inside: dict[str, list[str]] = {}
    for module in sorted(MODULES):
        package, _, name = module.partition(".")
        if name and (name != "__init__" or name in PACKAGES.get(package, "").split()):
            inside.setdefault(package, []).append(name)
    assert {package: sorted(names.split()) for package, names in PACKAGES.items()} == inside


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    if module in ("__init__", "__main__"):
        return
    module = "levels.__init__" if module == "levels" else module
    for name in imports(MODULES[module]):
        parts = name.split(".")
        if parts[0] == "textladder" and len(parts) > 1 and parts[1] in {n.split(".")[0] for n in MODULES}:
            package = module.split(".")[0]
            if parts[1] == package and package in PACKAGES:
                order = PACKAGES[package].split()
                below = order[: order.index(module.partition(".")[2])]
                assert (parts[2] if parts[2] in order else "__init__") in below, f"{module} imports {name}"
            else:
                assert tier(parts[1]) < tier(module), f"{module} imports {name}"
        elif parts[0] in ONLY_IN:
            allowed = any(fnmatch(module, pattern) for pattern in ONLY_IN[parts[0]])
            assert allowed, f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_that_runs_code_from_files(module: str) -> None:
    # fastai's word lists are pickles; an unpickler that imports nothing reads them
    excepted = {"pickle"} if module == "fastai_archive" else set()
    for name in imports(MODULES[module]):
        assert name.split(".")[0] not in FORBIDDEN - excepted, f"{module} imports {name}"
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "compile"), f"{module} calls {called}"
            assert called not in ("pickle.load", "pickle.loads", "pickle.Unpickler"), f"{module} calls {called}"
            if called in ("torch.load", "load_learner"):
                assert any(
                    word.arg == "weights_only" and getattr(word.value, "value", None) is True for word in node.keywords
                )
            if called.endswith("np.load"):
                assert any(
                    word.arg == "allow_pickle" and getattr(word.value, "value", 1) is False for word in node.keywords
                )


def test_the_house_has_no_junk_room() -> None:
    assert not {"utils", "common", "core", "helpers"} & {part for module in MODULES for part in module.split(".")}
    for module, path in MODULES.items():
        if module != "levels.__init__":
            assert "if level ==" not in path.read_text(), module


def test_no_function_is_written_twice() -> None:
    """Functions of some length that differ at most in their name and docstring."""
    places: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if (node.end_lineno or 0) - node.lineno + 1 > LONGEST_COPY:
                body = node.body[ast.get_docstring(node) is not None :]
                written = "\n".join(map(ast.dump, [node.args, *body]))
                places.setdefault(written, []).append(f"{module}.{node.name}")
    assert [copies for copies in places.values() if len(copies) > 1] == []


def test_public_names() -> None:
    assert sorted(textladder._HOMES) == sorted(set(textladder.__all__) - {"__version__"})
    for name in textladder.__all__:
        assert getattr(textladder, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = textladder.nothing
    assert sorted(dir(textladder)) == sorted(textladder.__all__)


HEAVY = "torch fastai transformers pandas sklearn datasets polars pyarrow numpy matplotlib rich"


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys, runpy\n"
        f"sys.argv = ['textladder', *{words!r}]\n"
        "try: runpy.run_module('textladder', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"loaded = set('{HEAVY}'.split()) & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "textladder" in done.stdout


UNIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios")


def test_every_module_imports_where_those_of_unix_do_not_exist() -> None:
    modules = [f"textladder.{name}" for name in sorted(MODULES) if name != "__main__"]
    script = (
        "import contextlib, importlib, sys\n"
        "with contextlib.suppress(ImportError): import psutil\n"  # of transformers; on Linux it needs `resource`
        f"sys.modules.update(dict.fromkeys({UNIX_ONLY!r}))\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_is_fast() -> None:
    def seconds(*words: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        return time.perf_counter() - started

    pairs = [(seconds("-m", "textladder", "--help"), seconds("-c", "pass")) for _ in range(7)]
    assert statistics.median(one for one, _ in pairs) <= 15 * statistics.median(other for _, other in pairs)
