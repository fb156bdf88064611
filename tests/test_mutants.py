"""The mutation run: what it changes, which tests it chooses, and its list of survivors."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="the mutation run limits its processes as POSIX does")
import mutant_tests
import mutants
from mutant_tests import OneTest, chosen

SOURCE = '''
LIMIT: int | None = 3


def f(a, b):
    """A formula."""
    if not b:
        return -a if a > b or b > a else b
    return a * b if a else "a" + "b"
'''


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one formula and one test, which knows of the product alone."""
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "TESTED", {"made.py": ("test_made.py",)})
    (tmp_path / "tests").mkdir()
    (tmp_path / "made.py").write_text(SOURCE)
    (tmp_path / "tests" / "test_made.py").write_text(
        "from made import f\n\n\ndef test_product():\n    assert f(2, 3) == 6\n"
    )
    return tmp_path


def test_every_place_of_a_formula_is_changed_once(small: Path) -> None:
    found = {mutant.said: mutant for mutant in mutants.mutants("made.py")}
    assert set(found) == {
        "made.py : 3 -> 4",
        "made.py f: not b -> not not b",
        "made.py f: -a if a > b or b > a else b -> b if a > b or b > a else -a",
        "made.py f: a > b or b > a -> a > b and b > a",
        "made.py f: a > b -> a >= b",
        "made.py f: b > a -> b >= a",
        "made.py f: -a -> +a",
        "made.py f: a * b -> a / b",
        "made.py f: a * b if a else 'a' + 'b' -> 'a' + 'b' if a else a * b",
    }
    product = found["made.py f: a * b -> a / b"]
    assert "return a / b if a" in product.text
    assert (product.line, product.around) == (range(9, 10), range(5, 10))


def test_the_fastest_tests_that_meet_a_line_are_chosen() -> None:
    tests = [
        OneTest("slow", 9.0, (3,), ""),
        OneTest("fast", 1.0, (3, 4), ""),
        OneTest("other", 0.1, (9,), ""),
    ]
    line, around = range(3, 4), range(1, 8)
    assert [test.name for test in chosen(tests, line, around)] == ["fast"]
    assert [test.name for test in chosen(tests[:1], line, around)] == ["slow"]
    assert [test.name for test in chosen(tests, range(5, 6), around)] == ["fast"]
    assert chosen(tests, range(20, 21), range(20, 30)) == []
    many = [OneTest(str(number), 3.0, (3,), "") for number in range(9)]
    assert sum(test.seconds for test in chosen(many, line, around)) <= mutant_tests.MOST


@pytest.mark.slow
def test_a_run_kills_what_a_test_notices_and_goes_on_from_its_record(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = small / "build" / "mutants.jsonl"
    every = {mutant.said.partition("f: ")[2]: mutant for mutant in mutants.mutants("made.py")}
    trial = mutants.Trial(mutants.copy_of(small / "copies"), mutants.Record(record))
    trial.ready("made.py")
    found = {said: trial.ends(mutant)[0] for said, mutant in every.items()}
    assert found["a * b -> a / b"] == "tests/test_made.py::test_product"
    assert found["-a -> +a"] is None
    again = mutants.Trial(small / "nowhere", mutants.Record(record))
    monkeypatch.setattr(mutants, "tried", lambda *_: pytest.fail("it was tried before"))
    again.ready("made.py")
    assert {said: again.ends(mutant)[0] for said, mutant in every.items()} == found


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="versions write code in other ways")
def test_what_is_said_to_survive_is_a_mutant_and_has_a_reason() -> None:
    """A formula that changes, or goes, takes its line with it."""
    every = {mutant.said for file in mutants.TESTED for mutant in mutants.mutants(file)}
    known = mutants.reasons()
    assert set(known) <= every
    assert all(len(reason) > 10 for reason in known.values())
