"""Two threads, or two asyncio tasks, on one model: each gets what it would get alone."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from typing import Any

import pytest
import torch
from tiny_models import D_MODEL, PROMPTS

import steerlens
from steerlens import CAA, PromptPair, Site, analysis, at, capture, generate, prompt, stream
from steerlens.runtime import forward as forward_pass
from steerlens.runtime import turns
from steerlens.runtime.turns import alone_with, here, hooked, in_turn

WAIT = 60.0
"""Seconds after which a test that waits for the other thread has failed."""
V = torch.linspace(-1, 1, D_MODEL)
STEERING = at(1, CAA(4 * V))


def in_a_thread(work: Callable[[], Any]) -> Any:
    """What `work` returns, or raises, in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(WAIT)


class Meeting:
    """A steer that lets another thread go on and waits for it, in the middle of a pass."""

    def __init__(self, passes: int = 1) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()

    def __call__(self, activation: Any, hook: Any = None) -> Any:
        self.inside.set()
        assert self.go_on.wait(WAIT)
        return activation + 4 * V.to(activation)


def forward(model: Any, text: str = PROMPTS[0]) -> torch.Tensor:
    """The user's own pass."""
    tokens, _ = steerlens.batch(model, [text])
    with torch.no_grad():
        return model(tokens)


# -- Calls of ours -----------------------------------------------------------------------------


def test_an_unsteered_generate_is_unsteered_while_a_steered_one_runs(model: Any) -> None:
    plain = generate(model, PROMPTS[:2], seed=3, max_new_tokens=8).texts
    steered = generate(model, PROMPTS[:2], STEERING, seed=3, max_new_tokens=8).texts
    meeting = Meeting()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(
            lambda: generate(model, PROMPTS[:2], at(1, meeting), seed=3, max_new_tokens=8).texts
        )
        assert meeting.inside.wait(WAIT)  # hooks are on, a pass is under way
        second = pool.submit(lambda: generate(model, PROMPTS[:2], seed=3, max_new_tokens=8).texts)
        meeting.go_on.set()
        assert second.result(WAIT) == plain
        assert first.result(WAIT) == steered
    assert plain != steered


def test_many_threads_with_steerings_of_their_own_get_their_own_texts(model: Any) -> None:
    jobs = [None, STEERING, at(2, CAA(-3 * V)), None, STEERING.only(prompt)]
    alone = [generate(model, PROMPTS[:2], job, seed=1, max_new_tokens=6).texts for job in jobs]
    start = threading.Barrier(len(jobs))

    def work(job: Any) -> Any:
        start.wait(WAIT)
        return [generate(model, PROMPTS[:2], job, seed=1, max_new_tokens=6).texts for _ in "abc"]

    with ThreadPoolExecutor(len(jobs)) as pool:
        found = list(pool.map(work, jobs, timeout=WAIT))
    assert found == [[texts] * 3 for texts in alone]


def test_capture_and_streams_in_two_threads(model: Any) -> None:
    """Reading ends a pass by an exception: that of another thread must not end with it."""
    wanted = capture(model, PROMPTS, 2, steering=STEERING).at(2)
    pieces = list(stream(model, PROMPTS[0], at(2, CAA(V)), seed=5, max_new_tokens=8))
    start = threading.Barrier(2)

    def streaming() -> Any:
        start.wait(WAIT)
        return [list(stream(model, PROMPTS[0], at(2, CAA(V)), seed=5, max_new_tokens=8))] * 2

    def capturing() -> Any:
        start.wait(WAIT)
        return [capture(model, PROMPTS, 2, steering=STEERING).at(2) for _ in range(6)]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(streaming), pool.submit(capturing)
        assert first.result(WAIT) == [pieces] * 2
        assert all(torch.equal(found, wanted) for found in second.result(WAIT))


def test_a_stream_may_be_read_by_a_thread_for_each_piece(model: Any) -> None:
    """As web servers do with plain generators."""
    options = {"seed": 2, "max_new_tokens": 6}
    wanted = list(stream(model, PROMPTS[1], STEERING, **options))
    pieces = stream(model, PROMPTS[1], STEERING, **options)
    assert [in_a_thread(lambda: next(pieces)) for _ in wanted] == wanted


def test_cold_makes_other_threads_wait_for_its_weights(
    monkeypatch: pytest.MonkeyPatch, gpt2: Any
) -> None:
    examples = (
        [steerlens.Conversation("a", response=" kind")],
        [steerlens.Conversation("a", response=" not")],
    )
    monkeypatch.setattr(gpt2.tokenizer, "chat_template", steerlens.PLAIN)
    for mode in ("jvp", "fd"):
        steering = steerlens.ColdFD.fit(
            gpt2, examples, 1, eta=3.0, mode=mode, scope=steerlens.everywhere
        ).steering
        options = {"seed": 4, "max_new_tokens": 5}
        wanted = [generate(gpt2, PROMPTS[:1], s, **options).tokens for s in (steering, None)]
        start = threading.Barrier(2)

        def work(job: Any, start: threading.Barrier = start, options: Any = options) -> Any:
            start.wait(WAIT)
            return [generate(gpt2, PROMPTS[:1], job, **options).tokens for _ in range(4)]

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(work, (steering, None), timeout=WAIT))
        for tokens, same in zip(wanted, found, strict=True):
            assert all(torch.equal(tokens, one) for one in same), mode


def _jobs(model: Any) -> dict[str, Callable[[], Any]]:
    """What a lab lets several threads do, each with an answer that can be compared exactly."""
    pairs = [
        PromptPair.with_system(question, "Be kind.", " is it kind?")
        for question in ("What?", "How?", "Who is it?")
    ]
    both, once = (PROMPTS[:2], PROMPTS[2:4]), steerlens.Schedule(epochs=1)
    sides = tuple([steerlens.Conversation("a", response=text)] for text in (" kind", " not"))

    def does(fit: Any) -> Any:
        return capture(model, PROMPTS, 2, steering=fit.steering).at(2).tolist()

    told = {"positive": STEERING}
    return {
        "generate": lambda: generate(model, PROMPTS[:2], STEERING, seed=1).texts,
        "capture": lambda: capture(model, PROMPTS, 2, steering=STEERING).at(2).tolist(),
        "faithfulness": lambda: analysis.faithfulness(model, pairs, told).to_csv(),
        "coefficients": lambda: analysis.coefficients(model, pairs, [1, 2], told).to_csv(),
        "local": lambda: analysis.coefficients(model, pairs, 1, told, view="local").to_csv(),
        "logit_shift": lambda: analysis.logit_shift(model, pairs, told).to_csv(),
        "CAA": lambda: does(CAA.fit(model, both, 1)),
        "PSR": lambda: does(steerlens.PSR.fit(model, pairs, 1, schedule=once)),
        "ReFTr1": lambda: does(steerlens.ReFTr1.fit(model, pairs, 1, schedule=once)),
        "ColdKernel": lambda: does(steerlens.ColdKernel.fit(model, sides, 1)),
    }


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore::steerlens.SteeringWarning")  # three questions are few
def test_measuring_generating_and_fitting_in_four_threads(gpt2: Any) -> None:
    jobs = _jobs(gpt2)
    alone = {name: work() for name, work in jobs.items()}
    start = threading.Barrier(4)

    def work(first: int) -> dict[str, Any]:
        names = [*jobs][first:] + [*jobs][:first]
        start.wait(WAIT)
        return {name: jobs[name]() for name in names}

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, (0, 3, 5, 8), timeout=WAIT))
    for one in found:
        assert {name for name, value in one.items() if value != alone[name]} == set()


# -- Blocks, and passes of the caller's own ----------------------------------------------------


def test_a_block_steers_the_passes_of_its_own_thread(model: Any) -> None:
    plain, text = forward(model), generate(model, PROMPTS[:1], max_new_tokens=5).texts
    with STEERING.applied(model):
        inside = forward(model)
        assert torch.equal(in_a_thread(lambda: forward(model)), plain)
        # No waiting either: the block does not end before this does.
        assert in_a_thread(lambda: generate(model, PROMPTS[:1], max_new_tokens=5).texts) == text
        assert torch.equal(forward(model), inside)
    assert not torch.equal(inside, plain)
    assert torch.equal(forward(model), plain)


def test_a_block_that_others_alone_pass_through_says_so(model: Any) -> None:
    with (
        pytest.warns(steerlens.SteeringWarning, match="thread .* that opened it"),
        STEERING.applied(model),
    ):
        in_a_thread(lambda: forward(model))


def test_a_pass_of_the_callers_own_amid_a_steered_generate_is_unsteered(model: Any) -> None:
    plain, meeting = forward(model), Meeting()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: generate(model, PROMPTS[:1], at(1, meeting)))
        assert meeting.inside.wait(WAIT)
        assert torch.equal(forward(model), plain)
        # TransformerLens takes hooks off by counting blocks, and would take ours off with its own.
        with model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", lambda h, hook=None: None)]):
            assert torch.equal(forward(model), plain)
        meeting.go_on.set()
        found = running.result(WAIT).texts
    assert found == generate(model, PROMPTS[:1], STEERING).texts


def test_blocks_of_two_threads_that_overlap_take_off_their_own_hooks(model: Any) -> None:
    """Entered first, left first: neither is inside the other."""
    plain, opened, closed = forward(model), threading.Event(), threading.Event()
    other = at(1, CAA(-2 * V))
    with other.applied(model):
        wanted = forward(model)

    def second() -> Any:
        with other.applied(model):
            opened.set()
            assert closed.wait(WAIT)
            return forward(model)

    with ThreadPoolExecutor(1) as pool:
        with STEERING.applied(model):
            running = pool.submit(second)
            assert opened.wait(WAIT)
            forward(model)
        assert torch.equal(forward(model), plain)
        closed.set()
        assert torch.equal(running.result(WAIT), wanted)
    assert torch.equal(forward(model), plain)


def test_hooks_taken_off_amid_a_generation_are_an_error(model: Any) -> None:
    """And no silent rest without steering."""

    class Resets:
        def __call__(self, activation: Any, hook: Any = None) -> Any:
            in_a_thread(model.reset_hooks)
            return activation + 1

    with pytest.raises(RuntimeError, match="taken off meanwhile"):
        generate(model, PROMPTS[:1], at(1, Resets()), max_new_tokens=3)


def test_a_pass_that_cannot_wait_is_refused_while_weights_are_replaced(model: Any) -> None:
    with alone_with(model):
        forward(model)
        with pytest.raises(RuntimeError, match="in use"):
            in_a_thread(lambda: forward(model))
    in_a_thread(lambda: forward(model))


def test_a_lora_is_no_other_threads(bridge: Any) -> None:
    pytest.importorskip("peft")
    shapes = {"A": (1, bridge.blocks[1].mlp.out.original_component.in_features), "B": (D_MODEL, 1)}
    sides = [{"1.out": torch.ones(shapes[side])} for side in "AB"]
    plain = forward(bridge)
    with steerlens.LoRA(*sides, 2.0).applied(bridge):
        assert not torch.equal(forward(bridge), plain)
        for work in (lambda: forward(bridge), lambda: generate(bridge, PROMPTS[:1])):
            with pytest.raises(RuntimeError, match="in use"):
                in_a_thread(work)


def test_hooks_in_a_thread_that_takes_gradients_are_not_passed_over(gpt2: Any) -> None:
    """A checkpoint runs its function again for gradients, on accelerators in torch's thread."""
    name = "blocks.1.hook_resid_post"
    h = torch.ones(1, 2, D_MODEL, requires_grad=True)
    with hooked(gpt2, [(name, lambda h, hook=None: 2 * h)]):
        point = gpt2.hook_dict[name]
        out = torch.utils.checkpoint.checkpoint(point, h, use_reentrant=False)
        (2 * out).square().sum().backward()  # the same thread: steered again
        again = torch.utils.checkpoint.checkpoint(lambda h: point(h).exp(), h, use_reentrant=False)
        with pytest.raises(RuntimeError, match="gradient checkpointing"):
            in_a_thread(lambda: again.sum().backward())


# -- One thread --------------------------------------------------------------------------------


def test_turns_may_be_inside_each_other(gpt2: Any) -> None:
    with in_turn(gpt2), alone_with(gpt2), in_turn(gpt2):
        assert torch.equal(forward(gpt2), forward(gpt2))
        generate(gpt2, PROMPTS[:1], STEERING, max_new_tokens=2)


def test_two_streams_read_in_turns_are_each_as_alone(model: Any) -> None:
    jobs = [STEERING, None, at(2, CAA(-3 * V)).only(steerlens.generated)]
    options = {"seed": 6, "max_new_tokens": 7}
    alone = [list(stream(model, PROMPTS[0], job, **options)) for job in jobs]
    together = [stream(model, PROMPTS[0], job, **options) for job in jobs]
    assert list(zip(*together, strict=True)) == list(zip(*alone, strict=True))
    assert torch.equal(forward(model), forward(model))


def test_tasks_of_one_thread_are_as_two_threads(model: Any) -> None:
    """A `with` block that is left open over an await steers its own task alone."""
    plain, text = forward(model), generate(model, PROMPTS[:1], max_new_tokens=4).texts

    async def steers(opened: asyncio.Event, done: asyncio.Event) -> torch.Tensor:
        with STEERING.applied(model):
            opened.set()
            await done.wait()
            return forward(model)

    async def does_not(opened: asyncio.Event, done: asyncio.Event) -> tuple[Any, ...]:
        await opened.wait()
        found = forward(model), generate(model, PROMPTS[:1], max_new_tokens=4).texts
        done.set()
        return found

    async def both() -> Any:
        events = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(steers(*events), does_not(*events))

    steered, (bare, generated) = asyncio.run(both())
    assert torch.equal(bare, plain)
    assert generated == text
    assert not torch.equal(steered, plain)


def test_streams_of_two_tasks(model: Any) -> None:
    options = {"seed": 8, "max_new_tokens": 5}
    jobs = [STEERING, None]
    alone = [list(stream(model, PROMPTS[0], job, **options)) for job in jobs]

    async def read_all(job: Any) -> list[Any]:
        pieces = []
        for piece in stream(model, PROMPTS[0], job, **options):
            pieces.append(piece)
            await asyncio.sleep(0)  # the other task's turn
        return pieces

    async def both() -> Any:
        return await asyncio.gather(*map(read_all, jobs))

    assert asyncio.run(both()) == alone


def test_no_task_outside_an_event_loop() -> None:
    assert here() == (threading.get_ident(), None)


def test_every_pass_of_ours_takes_a_turn(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    class Lock:
        def __enter__(self) -> None:
            taken.append("")

        def __exit__(self, *error: object) -> None: ...

    with in_turn(gpt2):
        monkeypatch.setitem(turns._LOCKS, id(gpt2), Lock())
    tokens, window = steerlens.batch(gpt2, PROMPTS[:1])
    h = torch.zeros(1, tokens.shape[1], D_MODEL)
    passes: list[Callable[[], Any]] = [
        lambda: forward_pass.logits(gpt2, tokens, window),
        lambda: forward_pass.read(gpt2, tokens, window, {Site(1): lambda activation: None}),
        lambda: forward_pass.logits_from(gpt2, h, 1, tokens, window),
        lambda: forward_pass.blocks_only(gpt2, lambda: gpt2(tokens), 1),
        lambda: forward_pass.logits_where(gpt2, lambda: gpt2(tokens), window.mask),
    ]
    for run in passes:
        taken.clear()
        run()
        assert taken


def test_a_tokenizer_serves_one_thread_at_a_time(gpt2: Any) -> None:
    """And it waits for no pass, so that a pass of the caller's own can be made ready meanwhile."""
    pair = PromptPair("a", "b", " c")
    for write in (lambda: steerlens.encode(gpt2, "a"), lambda: steerlens.encode_pair(gpt2, pair)):
        with ThreadPoolExecutor(1) as pool:
            with turns._lock_of(gpt2.tokenizer):
                waiting = pool.submit(write)
                with pytest.raises(TimeoutError):
                    waiting.result(0.1)
            assert waiting.result(WAIT)
        with in_turn(gpt2):
            assert in_a_thread(write)
