"""Bad command lines: each is exit code 2 and one line on stderr, before the model runs.

The table says what each line says. No file is left behind or lost, and no traceback is shown.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import steerlens
from analysis.bench.spec import Spec, write_spec
from steerlens.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
LONG = "word " * 3000
BIG = str(10**400)

FITS = {
    "act-add": "--positive good --negative bad --layer 2",
    "caa": "--pairs {contrasts} --layer 2",
    "psr": "--pairs {pairs} --layers 2",
    "direction": "--pairs {contrasts} --layers 2",
    "clas": "--pairs {pairs} --layers 2 --direction random",
    "cold-kernel": "--pairs {contrasts} --layers 2",
    "cold-fd": "--pairs {contrasts} --layers 2",
    "angular": "--pairs {contrasts} --layers 2",
    "loreft": "--pairs {pairs} --validation {held} --layers 2",
    "reft-r1": "--pairs {pairs} --layers 2",
    "instruction": "--pairs {pairs} --layers 2",
}
MEASURES = {
    "compare": "--pairs {pairs} --steering {caa}",
    "faithfulness": "--pairs {pairs} --steering {caa}",
    "explore": "--pairs {pairs} --steering {caa}",
    "sweep": "--pairs {pairs} --method CAA",
}
WRITING = {f"fit {name}": usual for name, usual in FITS.items()} | MEASURES
"""Every command that writes a file, with what it needs."""
GENERATE = "generate --prompt Hello"

# What stands for every command that writes. {x} are files of `scene`.
EVERYWHERE = (
    ("--out {folder}", "it is a folder"),
    ("--out {folder}/no/such/x", "its folder does not exist"),
    ("--out {pairs}/x", "is a file, no folder"),
    ("--out {pipe}", "it is a pipe"),
    ("--out {link}", "it is a symbolic link"),
    ("--out {readonly}", "it is read-only"),
    ("--out {new} --backend gpu", "Unknown backend 'gpu'"),
    ("--out {new} --dtype float8", "Unknown dtype 'float8'"),
    ("--out {new} --device tpu", "Unknown or absent device"),
    ("--out {new} --model no-such-model", "Unknown model 'no-such-model'"),
    ("--out {new} --nonsense", "No such option"),
    ("--out", "requires an argument"),
)
OTHER_NAMES = ("{folder}", "{pipe}", "{link}", "{readonly}")
"""With another ending these are free, and so for `sweep`, which writes OUT.csv and others."""
OF_ONE = (
    # Outputs that are inputs.
    ("fit caa", "--out {contrasts}", "is the file of --pairs, which would be overwritten"),
    ("fit psr", "--out {pairs}", "is the file of --pairs"),
    ("fit psr", "--out {new} --checkpoint {new}", "are one file"),
    ("fit psr", "--out {new} --checkpoint {pairs}", "is the file of --pairs"),
    ("fit psr", "--out {caa} --direction {caa}", "is the file of --direction"),
    ("fit clas", "--out {held} --validation {held}", "is the file of --validation"),
    ("fit clas", "--out {caa} --direction {caa}", "is the file of --direction"),
    ("fit loreft", "--out {held}", "is the file of --validation"),
    ("fit direction", "--out {hard}", "is the file of --pairs"),
    ("fit angular", "--out {contrasts}", "is the file of --pairs"),
    ("compare", "--out {caa}", "is the file of --steering"),
    ("faithfulness", "--out {caa}", "is the file of --steering"),
    ("explore", "--out {caa}", "is the file of --steering"),
    ("explore", "--out {pairs}", "is the file of --pairs"),
    ("sweep", "--out {json_pairs} --pairs {json_pairs}", "is the file of --pairs"),
    ("sweep", "--out {json_pairs} --train {json_pairs}", "is the file of --train"),
    ("sweep", "--out {json_pairs} --contrasts {json_pairs}", "is the file of --contrasts"),
    ("fit act-add", "--out {model}/config.json --model {model}", "is the file of --model"),
    ("fit act-add", "--out {demo}/model.safetensors", "is the file of --model"),
    # Numbers.
    ("fit psr", "--out {new} --rank 999999999999", "--rank is at most 1000000000"),
    ("fit psr", "--out {new} --rank 999999", "rank is from 1 to d_model = 192"),
    ("fit psr", "--out {new} --rank 0", "--rank is at least 1"),
    ("fit psr", "--out {new} --rank -3", "--rank is at least 1"),
    ("fit psr", f"--out {{new}} --rank {BIG}", "--rank is at most"),
    ("fit loreft", "--out {new} --rank 999999", "rank is from 1 to d_model = 192"),
    ("fit loreft", "--out {new} --rank 0", "rank is from 1 to"),
    ("fit reft-r1", "--out {new} --k 0", "k is at least 1"),
    ("fit reft-r1", "--out {new} --l1 -1", "l1 at least 0"),
    ("fit reft-r1", "--out {new} --l1 inf", "--l1 must be a finite number"),
    ("fit psr", "--out {new} --regularise -1", "--regularise is a weight, 0 or more"),
    ("fit psr", "--out {new} --regularise nan", "--regularise must be a finite number"),
    ("fit psr", "--out {new} --shift inf", "--shift must be a finite number"),
    ("fit psr", "--out {new} --learning-rate 0", "learning_rate must be above 0"),
    ("fit psr", "--out {new} --learning-rate inf", "--learning-rate must be a finite number"),
    ("fit psr", "--out {new} --epochs 0", "epochs must be at least 1"),
    ("fit psr", "--out {new} --steps -5", "steps must be at least 1"),
    ("fit psr", "--out {new} --batch-size 0", "batch_size must be at least 1"),
    ("fit psr", "--out {new} --epochs 1e3", "Invalid value for '--epochs'"),
    ("fit psr", "--out {new} --objective LL --ll-weight 2", "ll_weight"),
    ("fit psr", "--out {new} --objective both --ll-weight 0", "ll_weight"),
    ("fit psr", "--out {new} --objective XX", "Unknown objective"),
    ("fit psr", "--out {new} --surface Q", "Unknown surface"),
    ("fit psr", "--out {new} --learn-shift", "b_m is learnt"),
    ("fit psr", "--out {new} --objective DiM --epochs 3", "DiM is not trained"),
    ("fit psr", "--out {new} --constant --regularise 0.5", "--constant has no gates"),
    ("fit psr", "--out {new} --max-new-tokens 0", "max_new_tokens must be at least 1"),
    ("fit psr", "--out {new} --max-new-tokens 999999", "context holds"),
    ("fit clas", "--out {new} --limit -1", "limit bounds |alpha|"),
    ("fit clas", "--out {new} --limit inf", "--limit must be a finite number"),
    ("fit clas", "--out {new} --steps 0", "steps is a number of updates"),
    ("fit clas", "--out {new} --kind other", "Unknown kind"),
    ("fit cold-kernel", "--out {new} --kernel rbf --width inf", "--width must be a finite number"),
    ("fit cold-kernel", "--out {new} --kernel rbf --width 0", "needs a width above 0"),
    ("fit cold-kernel", "--out {new} --kernel rbf --width -1", "needs a width above 0"),
    ("fit cold-kernel", "--out {new} --width 3", "Only the 'rbf' kernel has a width"),
    ("fit cold-kernel", "--out {new} --eta nan", "--eta must be a finite number"),
    ("fit cold-kernel", "--out {new} --loss x", "Unknown loss"),
    ("fit cold-kernel", "--out {new} --compat x", "Unknown compat"),
    ("fit cold-fd", "--out {new} --mode fd --eps 0", "eps is a step"),
    ("fit cold-fd", "--out {new} --eps 0.1", "has no step"),
    ("fit cold-fd", "--out {new} --eta inf", "--eta must be a finite number"),
    ("fit cold-fd", "--out {new} --stored x", "Unknown stored"),
    ("fit caa", "--out {new} --sinks 0", "sinks=0.0"),
    ("fit caa", "--out {new} --sinks nan", "sinks=nan"),
    ("fit caa", "--out {new} --layer 99", "does not have"),
    ("fit caa", "--out {new} --layer -99", "counts 99 layers from the end"),
    ("fit caa", f"--out {{new}} --layer {BIG}", "--layer is at most"),
    ("fit caa", "--out {new} --scope nowhere", "Unknown scope"),
    ("fit caa", "--out {new} --read nowhere", "Unknown scope"),
    ("fit caa", "--out {new} --strength much", "--strength is a number, or auto"),
    ("fit caa", "--out {new} --strength nan", "--strength is a finite number"),
    ("fit caa", "--out {new} --share 0", "--share must be a number above 0"),
    ("fit caa", "--out {new} --target-kl inf", "--target-kl must be a number above 0"),
    ("fit caa", "--out {new} --strength 2 --share 1", "each choose the strength"),
    ("fit angular", "--out {new} --angle inf", "--angle must be a finite number"),
    ("fit act-add", "--out {new} --coefficient nan", "--coefficient must be a finite number"),
    ("fit act-add", "--out {new} --positive bad", "Both prompts are the same tokens"),
    ("fit act-add", f"--out {{new}} --positive '{LONG}'", "context holds"),
    ("fit direction", "--out {new} --kind other", "Unknown kind"),
    # Layers.
    *(
        (command, f"--out {{new}} --layers {layers}", says)
        for command in ("fit psr", "fit clas", "fit cold-kernel", "fit angular", "sweep")
        for layers, says in (
            ("0-99999999999", "--layers is like"),
            ("0-9999", "which this model does not have: it has 6 layers"),
            ("5-2", "holds no layer"),
            ("two", "--layers is like"),
            ("''", "--layers is like"),
        )
    ),
    ("fit psr", f"--out {{new}} --layers {BIG}", "--layers is like"),
    # Seeds.
    *(
        (command, f"--out {{new}} --seed {seed}", says)
        for command in ("fit psr", "fit clas", "fit direction", "fit loreft", *MEASURES)
        for seed, says in (
            ("-1", "--seed must be a whole number from 0"),
            ("4294967296", "--seed must be a whole number from 0"),
            (BIG, "--seed must be a whole number from 0"),
            ("1.5", "Invalid value for '--seed'"),
        )
    ),
    # Files.
    ("fit caa", "--out {new} --pairs {nothing}", "There is no file"),
    ("fit caa", "--out {new} --pairs {folder}", "is a folder, and no data set"),
    ("fit caa", "--out {new} --pairs {empty}", "is empty"),
    ("fit caa", "--out {new} --pairs {deep}", "line 1: it is nested too deeply"),
    ("fit caa", "--out {new} --pairs {utf16}", "line 1: this is no UTF-8 text"),
    ("fit caa", "--out {new} --pairs {pairs}", "the field 'positive' is missing"),
    ("fit psr", "--out {new} --pairs {null}", "'response' must be text; found NoneType"),
    ("fit psr", "--out {new} --pairs {bignumber}", "line 1"),
    ("fit psr", "--out {new} --pairs {toolong}", "Line 3 of the pairs"),
    ("fit clas", "--out {new} --pairs {one}", "One pair cannot be fitted and validated on"),
    ("fit clas", "--out {new} --pairs {toolong}", "Line 3 of the pairs"),
    ("fit loreft", "--out {new} --pairs {toolong}", "Line 3 of the pairs"),
    ("fit loreft", "--out {new} --validation {toolong}", "of the pairs: "),
    ("fit psr", "--out {new} --checkpoint {caa_copy}", "is no training checkpoint"),
    ("fit psr", "--out {new} --checkpoint {folder}", "it is a folder"),
    ("fit psr", "--out {new} --direction {pairs}", "is damaged or is no safetensors file"),
    ("fit psr", "--out {new} --direction {caa} --layers 4", "has no vector at layer 4"),
    ("fit clas", "--out {new} --direction nothing.st", "There is no steering file"),
    ("compare", "--out {new} --steering {nothing}", "There is no steering file"),
    ("compare", "--out {new} --steering {broken}", "is damaged"),
    ("compare", "--out {new} --steering {caa}", "Two steering files are called"),
    ("compare", "--out {new} --pairs {one}", "With one pair there are no other"),
    ("sweep", "--out {linked}", "it is a symbolic link"),
    ("sweep", "--out {linked}.csv", "it is a symbolic link"),
    ("sweep", "--out {linked}.html", "it is a symbolic link"),
    ("compare", "--out {new} --pairs {toolong}", "Line 3 of the pairs"),
    ("compare", f"--out {{new}} --equivalent '{LONG}'", "Line 1 of the pairs"),
    ("compare", f"--out {{new}} --neutral '{LONG}'", "Line 1 of the pairs"),
    ("compare", "--out {new} --baseline ''", "baseline"),
    ("faithfulness", "--out {new} --pairs {toolong}", "Line 3 of the pairs"),
    ("faithfulness", "--out {new} --max-new-tokens -1", "max_new_tokens must be at least 1"),
    ("explore", "--out {new} --temperature -1", "temperature must be 0"),
    ("explore", "--out {new} --temperature nan", "--temperature must be a finite number"),
    ("explore", "--out {new} --texts -1", "--texts is how many"),
    ("explore", "--out {new} --strengths a", "--strengths is numbers"),
    ("explore", "--out {new} --pairs {toolong}", "Line 3 of the pairs"),
    ("sweep", "--out {new} --pairs {one}", "every second one is for fitting"),
    ("sweep", "--out {new} --method Nothing", "Nothing"),
    ("sweep", "--out {new} --steering {broken}", "is damaged"),
    ("sweep", "--out {new} --strengths 1,1", "each once"),
    ("sweep", "--out {new} --scopes response,response", "has one twice"),
    ("sweep", "--out {new} --strength-unit x", "--strength-unit is fitted or kl"),
    ("sweep", "--out {new} --pairs {toolong}", "Line 3 of the pairs"),
    ("sweep", "--out {new} --train {toolong}", "Line "),
)
OTHERS = (
    ("", "a command is missing"),
    ("fit", "a command is missing"),
    ("bench", "a command is missing"),
    ("nonsense", "No such command 'nonsense'"),
    ("fit nonsense", "No such command 'nonsense'"),
    ("--nonsense", "No such option"),
    ("generate", "Missing option '--prompt'"),
    ("generate --prompt", "requires an argument"),
    (f"{GENERATE} extra", "unexpected extra argument"),
    (f"{GENERATE} --n 0", "--n is from 1 to 100000"),
    (f"{GENERATE} --n -1", "--n is from 1 to 100000"),
    (f"{GENERATE} --n 1000000000", "--n is from 1 to 100000"),
    (f"{GENERATE} --n {BIG}", "--n is at most"),
    (f"{GENERATE} --n many", "Invalid value for '--n'"),
    (f"{GENERATE} --seed -1", "--seed must be a whole number from 0"),
    (f"{GENERATE} --seed {2**32}", "--seed must be a whole number from 0"),
    (f"{GENERATE} --temperature -0.1", "temperature must be 0"),
    (f"{GENERATE} --temperature inf", "--temperature must be a finite number"),
    (f"{GENERATE} --top-p 0", "top_p must be above 0"),
    (f"{GENERATE} --top-p 1.01", "top_p must be above 0 and at most 1"),
    (f"{GENERATE} --top-k -1", "top_k must be at least 0"),
    (f"{GENERATE} --min-p 2", "min_p is a share"),
    (f"{GENERATE} --repetition-penalty 0", "repetition_penalty must be above 0"),
    (f"{GENERATE} --frequency-penalty nan", "--frequency-penalty must be a finite number"),
    (f"{GENERATE} --max-new-tokens 0", "max_new_tokens must be at least 1"),
    (f"{GENERATE} --max-new-tokens 999999", "context holds"),
    (f"{GENERATE} --stop ''", "A stop string is empty"),
    (f"{GENERATE} --strength 2", "A strength was given, and no steering"),
    (f"{GENERATE} --steering {{nothing}}", "There is no steering file"),
    (f"{GENERATE} --steering {{broken}}", "is damaged"),
    (f"{GENERATE} --steering {{pairs}}", "is damaged or is no safetensors file"),
    (f"{GENERATE} --steering {{forged}}", "holds no steering"),
    (f"{GENERATE} --raw --system x", "--raw has no turns"),
    (f"{GENERATE} --template-argument x", "--template-argument is NAME=VALUE"),
    (f"{GENERATE} --instruction-in nowhere", "instruction"),
    (f"{GENERATE} --model {{empty_folder}}", "has no config.json"),
    (f"{GENERATE} --model {{code}}", "needs Python code from the folder itself"),
    (f"{GENERATE} --model {{list_config}}", "holds a list"),
    (f"{GENERATE} --model {{pickle}}", "weights as pickle"),
    ("info {nothing}", "There is no steering file"),
    ("info {pairs}", "is damaged or is no safetensors file"),
    ("info {broken}", "is damaged"),
    ("info {forged}", "holds no steering"),
    ("info", "Missing argument"),
    ("models extra", "unexpected extra argument"),
    ("demo --out {pairs}", "Cannot make the folder"),
    ("demo --out {linked_report} --model demo", "it is a symbolic link"),
    ("demo --out {new} --model other", "Unknown model"),
    ("demo --out {new} --seed -1", "seed must be a whole number from 0"),
    ("bench plan --out {new} --seeds 0", "seeds must be from 1 to"),
    ("bench plan --out {new} --seeds 1000000", "seeds must be from 1 to"),
    ("bench plan --out {new} --samples 1000000000", "samples must be from 1 to"),
    ("bench plan --out {new} --questions=-1,1,1", "--questions is three numbers"),
    ("bench plan --out {new} --strengths 1e300", "The factors must be numbers from"),
    ("bench plan --out {new} --strengths 1e-300", "The factors must be numbers from"),
    ("bench plan --out {new} --questions 1", "--questions is three numbers"),
    ("bench plan --out {new} --questions a,b,c", "--questions is numbers"),
    ("bench plan --out {new} --strengths 0", "The factors must be numbers from"),
    ("bench plan --out {new} --strengths nan", "The factors must be numbers from"),
    ("bench plan --out {new} --methods Nothing", "Nothing"),
    ("bench plan --out {new} --rules x", "A strength is chosen by"),
    ("bench plan --out {new} --data {deep}", "it is nested too deeply"),
    ("bench plan --out {new} --data {nothing}", "could not be read"),
    ("bench plan --out ''", "it is the name of a folder"),
    ("bench run --out=", "it is the name of a folder"),
    ("demo --out ' '", "it is the name of a folder"),
    ("bench run --out {nothing}", "holds no bench"),
    ("bench run --out {nothing} --workers 0", "workers must be from 1 to"),
    ("bench run --out {nothing} --workers 1000000000", "workers must be from 1 to"),
    ("bench run --out {nothing} --backend dask --scheduler x", "such as tcp://127.0.0.1:8786"),
    ("bench run --out {nothing} --shard 0/99999999", "at most 10000 shards"),
    ("bench run --out {nothing} --shard 3/2", "Shard i of n counts from 0"),
    ("bench run --out {nothing} --shard x", "--shard is i/n"),
    ("bench run --out {nothing} --backend x", "A backend is one of"),
    ("bench run --out {badbench}", "is damaged, or was changed"),
    ("bench collect --out {nothing}", "holds no bench"),
    ("bench collect --out {badbench}", "is damaged, or was changed"),
    ("bench script --out {nothing}", "holds no bench"),
    ("bench script --out {bench} --shards 1000000000", "shards must be from 1 to"),
    ("bench script --out {bench} --cpus 0", "cpus must be from 1 to"),
)


def table() -> Iterator[tuple[str, str]]:
    """Every bad command line, and what it says."""
    for command, usual in WRITING.items():
        for options, says in EVERYWHERE:
            if command == "sweep" and options[6:] in OTHER_NAMES:
                continue
            yield f"{command} {usual} {options}", says
    for command, options, says in OF_ONE:
        yield f"{command} {WRITING[command]} {options}", says
    yield from OTHERS


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files good and bad, by the names of the table."""
    root = tmp_path_factory.mktemp("scene")
    pair = {"user": "Review a film.", "system": "Be positive.", "response": "Superb, all of it!"}
    asked = [{**pair, "user": f"Review film {i}."} for i in range(6)]
    del asked[0]["response"]
    toolong = [asked[0], asked[1], {**pair, "response": LONG}, asked[3]]
    contrasts = [{"positive": f"I loved it {i}", "negative": f"I hated it {i}"} for i in range(4)]
    written: dict[str, Any] = {
        "pairs": asked, "json_pairs": asked, "held": asked[3:], "one": asked[:1],
        "toolong": toolong, "contrasts": contrasts, "null": [{**pair, "response": None}] * 2,
        "empty": [],
    }  # fmt: skip
    found = {name: root / f"{name}.jsonl" for name in written}
    found["json_pairs"] = root / "json_pairs.json"
    for name, lines in written.items():
        found[name].write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = {
        "deep": "[" * 100_000,
        "bignumber": f'{{"user": "a", "system": "b", "response": {"9" * 5000}}}',
        "broken": "no steering",
    }
    for name, text in texts.items():
        found[name] = root / f"{name}.txt"
        found[name].write_text(text)
    found["utf16"] = root / "utf16.jsonl"
    found["utf16"].write_text(json.dumps(contrasts[0]), encoding="utf-16")
    for name in ("folder", "empty_folder", "out", "linked_report", "bench", "badbench"):
        found[name] = root / name
        found[name].mkdir()
    found["nothing"] = root / "nothing"
    (root / "linked_report" / "report.html").symlink_to(found["pairs"])
    (root / "badbench" / "bench.json").write_text('{"format": 1}')
    write_spec(Spec(attributes=("positive",), methods=("CAA",)), root / "bench")
    found |= _odd_targets(root, found) | _steerings(root) | _models(root)
    return found


def _odd_targets(root: Path, found: dict[str, Path]) -> dict[str, Path]:
    odd = {name: root / name for name in ("pipe", "link", "readonly", "hard")}
    os.mkfifo(odd["pipe"])
    odd["link"].symlink_to(found["pairs"])
    (root / "linked.csv").symlink_to(found["pairs"])
    odd["linked"] = root / "linked"
    odd["readonly"].write_text("precious")
    odd["readonly"].chmod(0o444)
    os.link(found["contrasts"], odd["hard"])
    return odd


def _steerings(root: Path) -> dict[str, Path]:
    from safetensors import safe_open
    from safetensors.torch import save_file

    from steerlens.digests import digest_over

    model = steerlens.load("demo")
    fit = steerlens.CAA.fit(model, (["I loved it"], ["I hated it"]), 2)
    caa = fit.steering.save(root / "caa.safetensors")
    shutil.copy(caa, root / "caa_copy.safetensors")
    with safe_open(caa, "pt") as file:
        header = json.loads(file.metadata()["steerlens"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header |= {"origin": [], "digest": ""}
    header["digest"] = digest_over({k: v for k, v in header.items() if k != "digest"}, tensors)
    save_file(tensors, root / "forged.safetensors", {"steerlens": json.dumps(header)})
    names = ("caa", "caa_copy", "forged")
    return {name: root / f"{name}.safetensors" for name in names}


def _models(root: Path) -> dict[str, Path]:
    demo = Path(steerlens.__file__).parent / "demo" / "model"
    config = json.loads((demo / "config.json").read_text())
    code = {**config, "model_type": "ours", "auto_map": {"AutoConfig": "ours.Config"}}
    for name, content in (("model", config), ("code", code), ("list_config", [])):
        shutil.copytree(demo, root / name)
        (root / name / "config.json").write_text(json.dumps(content))
    (root / "code" / "ours.py").write_text("raise SystemExit('it ran')")
    shutil.copytree(demo, root / "pickle", ignore=shutil.ignore_patterns("*.safetensors"))
    (root / "pickle" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    found = {name: root / name for name in ("model", "code", "list_config", "pickle")}
    return found | {"demo": demo}


def _contents(root: Path) -> dict[str, Any]:
    """What every path below holds: files by size and time, links by goal."""
    return {
        str(path.relative_to(root)): (
            os.readlink(path)
            if path.is_symlink()
            else (path.stat().st_size, path.stat().st_mtime_ns)
        )
        for path in sorted(root.rglob("*"))
        if not path.is_dir()
    }


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is asked to write, or to be trained, has come too far."""
    for work in ("steerlens.generation._steps", "steerlens.training.loop.train"):
        monkeypatch.setattr(work, lambda *_, **__: pytest.fail("the model was put to work"))


def kinds(rows: Sequence[tuple[str, str]]) -> set[int]:
    """Some rows, by number: one for everything that is said, and each command in turn.

    What begins alike is of one kind: "--rank is at most", "is the file of --pairs".
    """
    commands = [*WRITING]
    by_said: dict[str, list[int]] = {}
    for number, (_, says) in enumerate(rows):
        by_said.setdefault(says[:KIND], []).append(number)
    chosen = set[int]()
    for turn, numbers in enumerate(by_said.values()):
        wanted = commands[turn % len(commands)]
        chosen.add(next((n for n in numbers if rows[n][0].startswith(wanted)), numbers[0]))
    return chosen


KIND = 12
ROWS = [*table()]
FAST = kinds(ROWS)
"""One of each kind runs each time; `make test-all` has all."""


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(*row, id=f"{i} {row[0][:60]}", marks=[pytest.mark.slow] * (i not in FAST))
        for i, row in enumerate(ROWS)
    ],
)
def test_a_bad_command_line_is_one_line_and_costs_nothing(
    words: str, says: str, scene: dict[str, Path], run: Any
) -> None:
    import shlex

    root = scene["folder"].parent
    files = {name: str(path) for name, path in scene.items()} | {"new": str(root / "out" / "new")}
    arguments = [word.format(**files) for word in shlex.split(words)]
    before = _contents(root)
    code, _, err = run(*arguments)
    said = [line for line in err.splitlines() if not line.startswith(("warning: ", "note: "))]
    assert (code, len(said)) == (2, 1), err
    assert said[0].startswith("error: ")
    assert says in said[0]
    assert "Traceback" not in err
    assert _contents(root) == before


def test_the_table_is_long_enough_and_every_kind_is_tried_each_time() -> None:
    assert len(set(ROWS)) >= 150
    said = {ROWS[number][1][:KIND] for number in FAST}
    assert said == {says[:KIND] for _, says in ROWS}
    tried = [ROWS[number][0] for number in FAST]
    assert not [name for name in WRITING if not any(row.startswith(name) for row in tried)]


def test_a_mistake_of_the_program_is_one_line_too_and_another_code(
    monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("what nobody thought of")

    monkeypatch.setattr("steerlens.models.listing.listed", broken)
    code, _, err = run("models")
    assert code == 1
    assert err.count("\n") == 1
    assert "This is a mistake in steerlens" in err
    with pytest.raises(KeyError):
        main(["models", "--debug"])


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "there is too little memory"),
        (RecursionError("maximum recursion depth"), "nested too deeply"),
        (ImportError("No module named 'x'"), "No module named 'x'"),
        (RuntimeError("two\nlines"), "two lines"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_what_a_machine_may_lack_is_one_line(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("steerlens.models.listing.listed", broken)
    code, _, err = run("models")
    assert (code, err.count("\n")) == (2, 1)
    assert says in err
