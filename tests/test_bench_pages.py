"""The pages of the benches say what the cells say that are kept beside them."""

import re
from dataclasses import replace
from pathlib import Path

import claims_after
import claims_page
import measured
import numpy as np
import pytest
import results
from claims_alone import Alone
from scipy import stats

from analysis.bench import page as bench_page
from analysis.bench.catalogue import METHODS
from analysis.bench.collect import Collected
from analysis.bench.estimates import mean_score
from analysis.bench.found import listed
from analysis.bench.packed import unpacked
from analysis.figures.style import METHODS as LOOKS
from analysis.figures.style import SHORT_NAMES, marker_of

CELLS = results.RESULTS / "cells"
PACKED = {path.name.split(".")[0]: path for path in sorted(CELLS.glob("*.jsonl.gz"))}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?")


@pytest.fixture(scope="module")
def found() -> dict[str, Collected]:
    return {name: Collected(unpacked(path)) for name, path in PACKED.items()}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are left as they are."""
    monkeypatch.setattr(bench_page, "save", lambda *_, **__: None)


def require_same(made: str, kept: str) -> None:
    """The same words, and numbers that agree to what is printed but for a rounding."""
    assert NUMBER.sub("#", made) == NUMBER.sub("#", kept)
    ours, theirs = (np.array(NUMBER.findall(text), dtype=float) for text in (made, kept))
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=0.011)


@pytest.mark.parametrize("name", PACKED)
def test_every_number_of_a_page_follows_from_its_cells(
    name: str, found: dict[str, Collected], tmp_path: Path
) -> None:
    path = bench_page.write_page(found[name], tmp_path / "page.md", name, results.COMMAND)
    kept = (results.RESULTS / f"bench_{name}.md").read_text(encoding="utf-8")
    require_same(path.read_text(encoding="utf-8"), kept)


@pytest.mark.skipif(not PACKED, reason="no bench has been finished")
def test_every_verdict_follows_from_the_cells(found: dict[str, Collected], tmp_path: Path) -> None:
    made = claims_page.page(found, Alone.read(CELLS), tmp_path)
    require_same(made, (results.RESULTS / "claims.md").read_text(encoding="utf-8"))


@pytest.mark.skipif(not PACKED, reason="no bench has been finished")
def test_the_page_of_another_run_says_that_its_paragraphs_are_not_about_it(
    found: dict[str, Collected], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_page, "CLAIMS", ())
    monkeypatch.setattr(claims_page, "GROUPS", ())
    alone = Alone.read(CELLS)
    for made, is_another in ((claims_page.FROM_CELLS, False), ("`another`", True)):
        page = claims_page.page(found, alone, tmp_path, made)
        assert f"Written by {made}." in page
        assert (claims_page.OF_ANOTHER in page) == is_another


@pytest.mark.skipif(not PACKED, reason="no bench has been finished")
def test_all_that_is_drawn_has_a_look_of_its_own(found: dict[str, Collected]) -> None:
    for collected in found.values():
        names = [SHORT_NAMES.get(name, name) for name in collected.scores("harmonic")]
        looks = [LOOKS[name] for name in names]
        for strength in ("", "equal KL"):
            drawn = {(look.colour, marker_of(look, strength)) for look in looks}
            assert len(drawn) == len({look.colour for look in looks}) == len(looks)


def test_another_number_is_noticed() -> None:
    with pytest.raises(AssertionError):
        require_same("a 12.3 b", "a 12.4 b")


@pytest.mark.skipif(not PACKED, reason="no bench has been finished")
def test_the_methods_pages_say_what_was_measured(found: dict[str, Collected]) -> None:
    for name, methods in measured.PAGES.items():
        kept = (results.RESULTS.parent / "methods" / f"{name}.md").read_text(encoding="utf-8")
        begun = kept.split(f"<!-- measured: {name} -->\n")[1]
        require_same(measured.section(found, methods), begun.split("<!-- end of measured -->")[0])


README = (results.RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")
WHICH_ONE = README.split("### Which one?")[1].split("\n## ")[0]


@pytest.mark.skipif(not PACKED, reason="no bench has been finished")
def test_readme_has_the_score_of_every_method(found: dict[str, Collected]) -> None:
    table = WHICH_ONE.split("<!-- measured: README -->\n")[1].split("<!-- end of measured -->")[0]
    require_same(measured.readme_table(found), table)
    for collected in found.values():
        known = set(collected.standings("harmonic")["method"])
        assert all(f"| {method} |" in table for method in known & set(METHODS))
    text = " ".join(WHICH_ONE.split())
    told = re.search(r"(\d+) other methods are not told apart from S-PSR_MSE", text)
    standing = found["demo"].standings("harmonic").set_index("method")
    tied = standing.index[standing["tied_with_best"].fillna(value=False)]
    assert told is not None
    rivals = [name for name in tied if name in METHODS][1:]
    assert int(told[1]) == len(rivals)
    (said,) = [sentence for sentence in found["demo"].found if "highest mean" in sentence]
    assert f"must hold together: {listed(rivals)} (one by one" in said
    standing = found["smollm2"].standings("harmonic").set_index("method")
    tied = set(standing.index[standing["tied_with_best"].fillna(value=False)])
    named = re.search(r"On SmolLM2, ([^.]*) are not told apart, nor is the prompt", text)
    assert named is not None
    assert set(re.split(r", | and ", named[1])) | {"prompt"} == tied


def test_numbers_of_the_claims_in_readme_are_those_of_their_page() -> None:
    quoted = WHICH_ONE.split("What the papers claim")[1]
    page = (results.RESULTS / "claims.md").read_text(encoding="utf-8").split("<details>")[0]
    numbers = [number for number in NUMBER.findall(quoted) if "." in number]
    assert len(numbers) > 4
    assert set(numbers) <= set(NUMBER.findall(page))


@pytest.mark.skipif("smollm2" not in PACKED, reason="no bench of SmolLM2 has been finished")
def test_a_method_that_is_planned_and_has_not_run_is_told_so(found: dict[str, Collected]) -> None:
    plan, absent = found["smollm2"].plan, "BiPO"
    wider = replace(plan, spec=replace(plan.spec, methods=(*plan.spec.methods, absent)))
    collected = Collected(wider)
    (row,) = [row for row in measured.rows(collected, "smollm2", [absent]) if row[1] == absent]
    assert row[2] == "not run yet"
    asked = replace(plan, spec=replace(plan.spec, methods=(*plan.spec.methods, "S-PSR_LL")))
    assert "S-PSR_LL" in claims_page.narrower("smollm2", Collected(asked))


def test_correlations_over_methods_are_spearmans_and_p_is_that_of_chance() -> None:
    rng = np.random.default_rng(1)
    sides = [[mean_score(rng.uniform(40, 60, (3, 5))) for _ in range(8)] for _ in range(2)]
    pairs = dict(zip("abcdefgh", zip(*sides, strict=True), strict=True))
    near, score = ([one.value for one in side] for side in sides)
    assert claims_after.rho(pairs) == pytest.approx(stats.spearmanr(near, score).statistic)
    exact = stats.permutation_test(
        (near,), lambda x: stats.spearmanr(x, score).statistic, permutation_type="pairings",
        n_resamples=2000, rng=0,
    )  # fmt: skip
    assert claims_after.p_of(pairs) == pytest.approx(exact.pvalue, abs=0.05)
    alike = {name: (one, one) for name, (one, _) in pairs.items()}
    assert claims_after.rho(alike) == pytest.approx(1)
    assert claims_after.p_of(alike) < 0.01


def test_every_method_of_the_bench_has_a_page() -> None:
    listed = [method for methods in measured.PAGES.values() for method in methods]
    assert sorted([*listed, "random direction"]) == sorted(METHODS)
