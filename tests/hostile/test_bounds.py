"""What could fill the machine or never end: sizes, pipes and templates of strangers."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import steerlens
from steerlens.bounded import COMPILED, MOST_STEPS, TooLong, bounded, require_small
from steerlens.models.names import local_folder
from steerlens.prompts import Conversation
from steerlens.reading import read_file
from steerlens.templates import rendered

DEMO = Path(steerlens.__file__).parent / "demo" / "model"
SIZES = {
    "num_hidden_layers": (7, 10**6, 10**30, 1e9),
    "hidden_size": (10**9, 10**30),
    "vocab_size": (10**9, 10**12),
    "intermediate_size": (10**9,),
    "num_attention_heads": (10**12,),
    "max_position_embeddings": (10**9, 10**30),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in DEMO.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def with_config(folder: Path, **changes: Any) -> None:
    config = json.loads((DEMO / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(("name", "size"), [(n, s) for n, sizes in SIZES.items() for s in sizes])
def test_an_absurd_size_is_refused_before_a_model_is_built(
    name: str, size: float, folder: Path
) -> None:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        n_tensors = len(file.keys())
    size = n_tensors + 1 if size == 7 else size
    for changes in ({name: size}, {"text_config": {name: size, "hidden_size": 64}}):
        if name == "hidden_size" and "text_config" in changes:
            continue
        with_config(folder, **changes)
        with pytest.raises(ValueError, match=f"says {name} = .*not the configuration of these"):
            local_folder(folder)


def test_the_demonstration_model_has_sensible_sizes(folder: Path) -> None:
    assert local_folder(folder) == folder


@pytest.mark.parametrize("name", ["generation_config.json", "x.safetensors", "chat_template.jinja"])
def test_a_pipe_in_a_model_folder_is_refused(name: str, folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ValueError, match="no regular file"):
        local_folder(folder)


def test_a_pipe_is_no_model_and_no_steering(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises((ValueError, OSError), match="pipe"):
        steerlens.load(tmp_path / "pipe.gguf")
    with pytest.raises((ValueError, OSError), match="pipe"):
        read_file(tmp_path / "pipe.safetensors")


# -- Templates -------------------------------------------------------------------------------------

R = "range(9999)"
ENDLESS = {
    "two loops": f"{{% for a in {R} %}}{{% for b in {R} %}}x{{% endfor %}}{{% endfor %}}",
    "three loops": "{% for a in range(999) %}{% for b in range(999) %}{% for c in range(999) %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "a macro": f"{{% macro m(n) %}}{{% for a in {R} %}}{{% if n %}}{{{{ m(n - 1) }}}}{{% endif %}}"
    "{% endfor %}{% endmacro %}{{ m(3) }}",
    "texts": "{% set ns = namespace(t='ab') %}{% for a in range(16) %}{% set ns.t = ns.t ~ ns.t %}"
    "{% endfor %}{% for c in ns.t %}{% for d in ns.t %}{% endfor %}{% endfor %}",
}
LARGE = {
    "a power": "{{ 'a' * 10 ** 9 }}",
    "a product": "{{ 'a' * 9999999999 }}",
    "products": "{{ 'a' * 99999 * 99999 }}",
    "a width": "{{ messages | tojson(indent=99999999) }}",
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return steerlens.load("demo").tokenizer


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("what", [*ENDLESS, *LARGE])
def test_a_template_without_bound_is_refused(
    what: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", {**ENDLESS, **LARGE}[what])
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"does not end|computes with large numbers"):
        rendered(tokenizer, [{"role": "user", "content": "Hello"}])
    assert time.monotonic() - start < 20
    assert sys.gettrace() is None


def test_usual_templates_stay_far_within_the_bounds() -> None:
    import real_templates

    templates = {**real_templates.INSIDE, **real_templates.APART, **real_templates.NO_SYSTEM}
    for template in (*templates.values(), real_templates.VICUNA):
        require_small(template)


def test_steps_are_counted_once_for_a_template_and_shape() -> None:
    code = compile("for i in range(10):\n  pass", COMPILED, "exec")
    for _ in range(2):
        with bounded("t", "shape"):
            exec(code)
    endless = compile(f"for i in range({MOST_STEPS}):\n  pass", COMPILED, "exec")
    with pytest.raises(TooLong), bounded("t", "another"):
        exec(endless)
    with bounded("t", "shape"):
        exec(endless)


def test_a_conversation_is_rendered_as_before(tokenizer: Any) -> None:
    asked = [{"role": "user", "content": "Hello"}]
    assert rendered(tokenizer, asked) == rendered(tokenizer, asked)
    assert Conversation("Hello").user in rendered(tokenizer, asked)


def test_a_packed_bench_that_unpacks_to_more_than_any_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a gzip bomb no more is unpacked than that."""
    import gzip

    from analysis.bench import packed

    bomb = tmp_path / "bench.json.gz"
    bomb.write_bytes(gzip.compress(b" " * 100_000))
    monkeypatch.setattr(packed, "LARGEST", 1000)
    with pytest.raises(ValueError, match=r"bench\.json\.gz.*unpacks to more than"):
        packed.unpacked(bomb)
