"""How far what is exported is from the hooks, in llama.cpp, transformers and PEFT.

    make test-consumers                                        the tools, in .venv-consumers
    .venv-consumers/bin/python scripts/docs/exported.py        demo and smollm2, into the page
    .venv-consumers/bin/python scripts/docs/exported.py demo FOLDER --print

CAA at the middle third of the layers, at strengths -2, 1 and 4: the largest difference of a logit
on one sentence, in float32, at the worst of the strengths. Beside it what the same vectors do one
block off, and what steering changes at all. The table goes into docs/interchange.md, between its
marks.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import steerlens as sl
from steerlens.identity import loaded
from steerlens.whole import write_whole

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "interchange.md"
BEGIN, END = "<!-- exported -->\n", "<!-- /exported -->"
STRENGTHS = (-2.0, 1.0, 4.0)
WORDS = "I went to see the film last night, and the acting was better than the story."


@dataclass(frozen=True)
class Case:
    """A model, its steering at strength 1, and the tokens that it is measured on."""

    name: str
    model: Any
    steering: Any
    ids: list[int]
    folder: Path

    @classmethod
    def of(cls, name: str) -> "Case":
        model = sl.load(name, backend="bridge")
        layers = range(max(1, model.cfg.n_layers // 3), max(2, 2 * model.cfg.n_layers // 3))
        fitted = sl.CAA.fit(model, (["I loved it"], ["I hated it"]), layers).steering
        ids = model.tokenizer(WORDS)["input_ids"]
        return cls(Path(name).name, model, fitted, ids, loaded(model).folder)

    @torch.no_grad()
    def hooked(self, strength: float) -> np.ndarray:
        with (strength * self.steering).applied(self.model):
            return self.model(torch.tensor([self.ids]))[0].numpy()


def gguf_of(folder: Path, file: Path) -> Path:
    """The model in a folder as an F32 GGUF file without a vocabulary."""
    import json

    from llama_cpp import write_gpt2
    from tiny_gguf import write_gguf

    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind == "gpt2":
        return write_gpt2(file, folder)
    return write_gguf(file, folder, "F32", pre=None)


@torch.no_grad()
def transformers_of(folder: Path, ids: list[int], adapter: Path | None = None) -> Any:
    """What transformers computes with a folder, by strength where there is an adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.tensor([ids])
    if adapter is None:
        return model(tokens).logits[0].numpy()
    steered = PeftModel.from_pretrained(model, adapter).eval()
    found = {}
    for strength in STRENGTHS:
        for module in steered.modules():
            if hasattr(module, "set_scale"):
                module.set_scale("default", strength)
        found[strength] = steered(tokens).logits[0].numpy()
    return found


def worst(case: Case, computed: Callable[[float], np.ndarray]) -> float:
    return max(float(np.abs(computed(s) - case.hooked(s)).max()) for s in STRENGTHS)


def rows_of(case: Case, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Of each target: its name, the tool, and the difference."""
    from llama_cpp import directions_of, logits

    whole = gguf_of(case.folder, folder / "whole.gguf")

    def in_llama(strength: float, off: int = 0) -> np.ndarray:
        file = folder / f"{strength}.gguf"
        (strength * case.steering).export(file, to="gguf", model=case.model)
        rows = {n + off: v for n, v in directions_of(file).items()}
        return logits(whole, case.ids, rows)

    def baked(strength: float) -> Path:
        made = folder / f"baked{strength}"
        if not made.exists():
            (strength * case.steering).export(made, to="checkpoint", model=case.model)
        return made

    case.steering.export(folder / "adapter", to="peft", model=case.model)
    dialled = transformers_of(case.folder, case.ids, folder / "adapter")
    base = case.hooked(0.0)
    llama = f"llama.cpp (xllamacpp {version('xllamacpp')})"
    yield "nothing", llama, f"{np.abs(logits(whole, case.ids) - base).max():.1e}"
    yield "`gguf`", llama, f"{worst(case, in_llama):.1e}"
    yield "`gguf`, one block off", llama, f"{worst(case, lambda s: in_llama(s, 1)):.2g}"
    plain = f"transformers {version('transformers')}"
    yield (
        "`checkpoint`",
        plain,
        f"{worst(case, lambda s: transformers_of(baked(s), case.ids)):.1e}",
    )
    converted = worst(case, lambda s: logits(gguf_of(baked(s), folder / "baked.gguf"), case.ids))
    yield "`checkpoint`, converted to GGUF", llama, f"{converted:.1e}"
    yield "`peft`", f"PEFT {version('peft')}", f"{worst(case, dialled.__getitem__):.1e}"
    yield "no steering at all", "", f"{worst(case, lambda s: base):.2g}"


def table_of(names: list[str]) -> str:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        case = Case.of(name)
        with tempfile.TemporaryDirectory() as folder:
            for target, tool, difference in rows_of(case, Path(folder)):
                found.setdefault((target, tool), {})[case.name] = difference
    heads = [Path(name).name for name in names]
    lines = [
        f"| Written as | Read by | {' | '.join(heads)} |",
        f"|---|---|{'---:|' * len(heads)}",
        *(
            f"| {target} | {tool} | {' | '.join(each[head] for head in heads)} |"
            for (target, tool), each in found.items()
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=["demo", "smollm2"])
    parser.add_argument("--print", action="store_true", help="leave the page as it is")
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    table = table_of(asked.models)
    if asked.print:
        print(table)
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_whole(PAGE, f"{before}{BEGIN}\n{table}\n\n{END}{after}".encode())


if __name__ == "__main__":
    main()
