"""Steerings on the Hugging Face hub: `push` and `pull`. The only parts that ask a server for one.

A steering is a model repository with `steering.safetensors` and a card, written in one commit. What
is pulled is of one commit, which is returned, and is checked to be whole; `load_steering` checks
that it is for the model at hand, by fingerprint.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steerlens.identity import Origin, origin_of
from steerlens.interchange.card import (
    FILE,
    Measured,
    Published,
    card_of,
    measured_of,
    methods_of,
    public_name,
)
from steerlens.kinds import require_kinds
from steerlens.models import hub_names
from steerlens.models.released import RELEASED
from steerlens.parsing import few, harmless, short
from steerlens.reading import load_steering, read_file, read_steering
from steerlens.saving import write_steering
from steerlens.steering import Steering
from steerlens.types import HookedModel
from steerlens.whole import require_place, write_whole

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SECRET = re.compile(r"\bhf_\w{6,}|//[^/@\s]+@")
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may"


class HubError(OSError):
    """What the hub refused or could not do; the message says what was asked, and what to do."""


@dataclass(frozen=True)
class Pushed:
    """Where a steering was published: the repository, the commit, and the address of its page."""

    repo: str
    revision: str
    url: str

    def __str__(self) -> str:
        return f"{self.url}\npulled by: steerlens pull {self.repo}@{self.revision} --out {FILE}"


@dataclass(frozen=True)
class Pulled:
    """A steering that was fetched: the file here, the repository, and the commit that it is of."""

    file: Path
    repo: str
    revision: str

    def __str__(self) -> str:
        return f"{self.file}: {self.repo}@{self.revision}"


def push(
    steering: Steering | str | Path,
    repo: str,
    *,
    model: HookedModel | None = None,
    base_model: str | None = None,
    licence: str | None = None,
    faithfulness: Measured = None,
    measured_on: str = "",
    datasets: Sequence[str] = (),
    also: Sequence[str | Path] = (),
    private: bool = False,
    token: str | None = None,
) -> Pushed:
    """Publish a steering, or the file of one, as the model repository `repo` ("owner/name").

    One commit holds the file, a card, and the files of `also` (a GGUF control vector, say). The
    card names `base_model` (by default the model it was fitted on, if that has a name on the hub),
    the method, `licence` ("mit", "apache-2.0", ...), `datasets` (names on the hub), and what was
    measured: {name: number}, or a table of `analysis.faithfulness`. `model` is needed for a
    steering that does not know what it was fitted on. A repository that is there gets a new commit.
    A path of this machine in the model's name is left out.

    HubError where the hub cannot be reached or refuses; nothing is asked with HF_HUB_OFFLINE=1.
    """
    require_kinds(push, locals())
    repo, revision = repo_of(repo)
    if revision is not None:
        raise ValueError(f"A push makes a revision, and is told none: --to {repo}.")
    others = _also(also)
    chosen, origin = _with_origin(steering, model)
    about = Published(
        repo,
        base_model or _base_model(origin.model.name),
        licence,
        measured_of(faithfulness),
        measured_on,
        tuple(datasets),
        tuple(others),
    )
    card = card_of(chosen, origin, about)
    contents = {FILE: _content(chosen, origin), "README.md": card.encode(), **others}
    _require_online(repo, "push")
    with _asking(repo, "push"):
        return _commit(repo, contents, methods_of(chosen), private, token)


def pull(
    repo: str,
    out: str | Path | None = None,
    *,
    model: HookedModel | None = None,
    file: str = FILE,
    token: str | None = None,
) -> Pulled:
    """Fetch the steering of `repo`, "owner/name" or "owner/name@revision", and check it.

    It is written to `out`, or stays in the hub's cache. Without a revision it is the newest commit;
    which one is returned, and pins it. The file is checked to be whole and ours, and, given
    `model`, to be for that model. With HF_HUB_OFFLINE=1 only what was fetched before is there.

    HubError where there is no such repository, revision or file, or it may not be read.
    """
    require_kinds(pull, locals())
    repo, revision = repo_of(repo)
    if out is not None:
        require_place(out)
    with _asking(repo, "pull", revision, file):
        cached, commit = _fetched(repo, revision, file, token)
    read_file(cached)
    if model is not None:
        load_steering(cached, model)
    kept = cached if out is None else write_whole(out, cached.read_bytes())
    return Pulled(kept, repo, commit)


def repo_of(text: str) -> tuple[str, str | None]:
    """The repository and the revision of "owner/name@revision"; ValueError if it is none."""
    repo, at, revision = text.partition("@")
    if NAME.fullmatch(repo) is None or ".." in repo or (at and not revision.strip()):
        raise ValueError(
            f"A repository of the hub is owner/name or owner/name@revision, of letters, digits, "
            f"'-', '_' and '.'; found {short(text)}."
        )
    return repo, revision or None


def _with_origin(
    steering: Steering | str | Path, model: HookedModel | None
) -> tuple[Steering, Origin]:
    """The steering, and what it was fitted on; ValueError where nothing says."""
    if not isinstance(steering, Steering):
        read = read_steering(steering) if model is None else load_steering(steering, model)
        return _with_origin(read, model)
    origin = steering.origin
    if origin is None and model is None:
        raise ValueError(
            "Nothing says which model this steering is for, and a card must. Give it: "
            "sl.push(steering, repo, model=model), or --model NAME."
        )
    if origin is None:
        assert model is not None
        return steering.on(model), origin_of(model)
    return steering, origin


def _content(steering: Steering, origin: Origin) -> bytes:
    """The file as it is published, without paths of this machine."""
    model = origin.model
    named = replace(model, name=public_name(model.name), made_of=public_name(model.made_of))
    known = replace(origin, model=named, moved_from=_without_paths(origin.moved_from))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        write_steering(replace(steering, origin=known), path)
        return path.read_bytes()


def _without_paths(text: str) -> str:
    """What a steering was moved from, "NAME (FINGERPRINT)", its name without folders."""
    name, bracket, rest = text.rpartition(" (")
    return f"{public_name(name)}{bracket}{rest}" if text else ""


def _base_model(name: str) -> str | None:
    """The name on the hub of the model that a steering was fitted on, if it has one."""
    if name in RELEASED:
        return RELEASED[name].hub
    known = hub_names().get(name, name)
    local = public_name(known) != known
    return known if NAME.fullmatch(known) is not None and not local else None


def _also(paths: Sequence[str | Path]) -> dict[str, bytes]:
    """Other files by the name that they get; ValueError where two have one."""
    found: dict[str, bytes] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path} to publish beside the steering.")
        if path.name in (*found, FILE, "README.md"):
            raise ValueError(f"Two of the files to publish are called {path.name}. Rename one.")
        found[path.name] = path.read_bytes()
    return found


def _commit(
    repo: str, contents: dict[str, bytes], methods: Sequence[str], private: bool, token: str | None
) -> Pushed:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token, library_name="steerlens")
    api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
    done = api.create_commit(
        repo,
        [CommitOperationAdd(name, content) for name, content in contents.items()],
        commit_message=f"A steering: {' + '.join(methods)}",
    )
    return Pushed(repo, str(done.oid), f"{api.endpoint.rstrip('/')}/{repo}")


def _fetched(repo: str, revision: str | None, file: str, token: str | None) -> tuple[Path, str]:
    """The file in the hub's cache, and the commit that it is of."""
    from huggingface_hub import HfApi, constants, hf_hub_download

    offline = constants.HF_HUB_OFFLINE
    if not offline:  # else huggingface_hub would take what it has where the hub is not reached
        HfApi(token=token).model_info(repo, revision=revision)
    path = Path(
        hf_hub_download(
            repo,
            file,
            revision=revision,
            token=token,
            local_files_only=offline,
            library_name="steerlens",
        )
    )
    # The cache keeps each commit in a folder of its name.
    below = path.parts[::-1].index("snapshots")
    return path, path.parts[::-1][below - 1]


def _require_online(repo: str, what: str) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise HubError(
            f"Cannot {what} {repo}: HF_HUB_OFFLINE=1 forbids to ask the hub. Unset it first."
        )


@contextmanager
def _asking(repo: str, what: str, revision: str | None = None, file: str = FILE) -> Iterator[None]:
    """What goes wrong between here and the hub as a HubError that says what to do."""
    try:
        yield
    except (HubError, KeyboardInterrupt):
        raise
    except Exception as error:
        # An upload that failed is a RuntimeError of huggingface_hub, with what it was as the cause.
        tried = (_advice(one, repo, what, revision, file) for one in _with_causes(error))
        said = next((one for one in tried if one is not None), None)
        if said is None:
            raise
        raise HubError(SECRET.sub("***", said)) from None  # its text may hold addresses and headers


def _advice(error: Exception, repo: str, what: str, revision: str | None, file: str) -> str | None:
    """What an exception of huggingface_hub means here; None for one that is not of it."""
    from huggingface_hub import errors

    may = "write there" if what == "push" else "read it"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated: ask for access on its page, then {LOG_IN} {may}."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {short(revision)}. Its page lists the commits."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"There is no repository {repo} that you may see: it is not there, or it is private. "
            f"Look at its name, or {LOG_IN} {may}."
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return _offline(repo, revision)
    if isinstance(error, errors.EntryNotFoundError):
        return (
            f"{repo} holds no {file}, so no steering of that name. pull(..., file=) takes another."
        )
    if status in (401, 403):
        return f"The hub refuses to {what} {repo} (status {status}). Perhaps {LOG_IN} {may}."
    if isinstance(error, errors.HfHubHTTPError):
        return (
            f"The hub answered {repo} with status {status}: {_first_line(error)}. Try again later."
        )
    if _is_of_the_network(error):
        return (
            f"The hub cannot be reached ({type(error).__name__}). Is there a network, or a proxy?"
        )
    return None


def _with_causes(error: BaseException) -> Iterator[Exception]:
    """An exception, and what it came of."""
    seen: BaseException | None = error
    while isinstance(seen, Exception):
        yield seen
        seen = seen.__cause__


def _offline(repo: str, revision: str | None) -> str:
    from huggingface_hub import constants

    named = f"{repo}@{revision}" if revision else repo
    if constants.HF_HUB_OFFLINE:
        return (
            f"{named} was not fetched on this machine before, and HF_HUB_OFFLINE=1 forbids to ask "
            "the hub. Unset it, or pull it once with a network."
        )
    return f"The hub cannot be reached, and {named} was not fetched on this machine before."


def _is_of_the_network(error: Exception) -> bool:
    origin = type(error).__module__.partition(".")[0]
    clients = {"httpx", "httpx2", "httpcore", "requests", "urllib3"}
    return origin in clients or isinstance(error, ConnectionError | TimeoutError)


def _first_line(error: Exception) -> str:
    return harmless(" ".join(str(error).split()))[:200].rstrip(". ")


def rows_of_report(content: bytes, methods: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of one method in what `steerlens faithfulness --json` printed."""
    try:
        rows = json.loads(content)["faithfulness"]
        there = list(dict.fromkeys(row["method"] for row in rows))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "The file of --faithfulness is not what `steerlens faithfulness --json` prints "
            f"({type(error).__name__}: {error})."
        ) from error
    named = [name for name in there if name in methods]
    if len(named) != 1:
        raise ValueError(
            f"The file of --faithfulness holds {few(there)}, and of the method that is published, "
            f"{' + '.join(methods)}, {'none' if not named else 'several'}."
        )
    return [row for row in rows if row["method"] == named[0]]
