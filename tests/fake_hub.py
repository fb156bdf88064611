"""A Hugging Face hub on this machine's own loopback: what `push` and `pull` ask, and no more.

A repository holds its commits, each the files by name. `private`, `gated` and `failing` say what
the hub answers about a repository; `asked` has the requests, with what they said of who asks.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

TOKEN = "hf_notarealtokenofanyone"  # it is that of nobody


@dataclass
class Hub:
    """What the server holds and was asked."""

    address: str = ""
    repos: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    failing: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def files(self, repo: str, revision: str | None = None) -> dict[str, bytes] | None:
        """The files of a revision, by default the newest; None if there is none."""
        commits = self.repos[repo]
        if revision in (None, "main"):
            return commits[-1]
        return next((c for n, c in enumerate(commits) if sha(repo, n) == revision), None)

    def newest(self, repo: str) -> str:
        """The name of the newest commit."""
        return sha(repo, len(self.repos[repo]) - 1)


def sha(repo: str, number: int) -> str:
    return hashlib.sha1(f"{repo} {number}".encode()).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that is there inside the block."""
    hub = Hub()
    handler = type("Handler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


REPO = r"([^/]+/[^/]+)"
RULES = (
    ("create", r"/api/repos/create"),
    ("checked", r"/api/validate-yaml"),
    ("modes", rf"/api/models/{REPO}/preupload/.+"),
    ("batch", rf"/{REPO}\.git/info/lfs/objects/batch"),
    ("store", r"/lfs/(\w+)"),
    ("commit", rf"/api/models/{REPO}/commit/.+"),
    ("about", rf"/api/models/{REPO}(?:/revision/(.+))?"),
    ("file", rf"/{REPO}/resolve/([^/]+)/(.+)"),
)


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does, as far as `huggingface_hub` looks."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def answer(self) -> None:
        path, self.body = unquote(urlparse(self.path).path), self._body()
        self.hub.asked.append((self.command, path, self.headers.get("Authorization", "")))
        for name, rule in RULES:
            found = re.fullmatch(rule, path)
            if found and not self._refused(found):
                getattr(self, name)(*found.groups())
            if found:
                return
        self.send({"error": f"not here: {path}"}, 404)

    do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815  names of the standard library

    def _refused(self, found: re.Match[str]) -> bool:
        repo = (found.groups() or ("",))[0] or ""
        if repo in self.hub.failing:
            self.send({"error": "it broke"}, self.hub.failing[repo])
        elif repo in self.hub.private and not self.headers.get("Authorization"):
            self.missing("RepoNotFound", 401)
        elif repo in self.hub.gated:
            self.missing("GatedRepo", 403)
        else:
            return False
        return True

    def create(self) -> None:
        asked = json.loads(self.body)
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if not self.headers.get("Authorization"):
            return self.send({"error": "Invalid username or password."}, 401)
        if repo in self.hub.failing:
            return self.send({"error": "it broke"}, self.hub.failing[repo])
        if repo in self.hub.repos:
            return self.send({"error": "exists", "url": f"{self.hub.address}/{repo}"}, 409)
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(repo)
        self.hub.repos[repo] = []
        return self.send({"url": f"{self.hub.address}/{repo}", "name": repo})

    def checked(self) -> None:
        self.send({"errors": [], "warnings": []})

    def modes(self, repo: str) -> None:
        big = (".safetensors", ".gguf")
        modes = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(big) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for one in json.loads(self.body)["files"]
        ]
        self.send({"files": modes})

    def batch(self, repo: str) -> None:
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}},
            }
            for one in json.loads(self.body)["objects"]
        ]
        self.send({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        self.hub.stored[oid] = self.body
        self.send()

    def commit(self, repo: str) -> None:
        commits = self.hub.repos[repo]
        files = dict(commits[-1]) if commits else {}
        for line in self.body.decode().splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif part["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        commits.append(files)
        oid = self.hub.newest(repo)
        address = f"{self.hub.address}/{repo}/commit/{oid}"
        self.send({"commitUrl": address, "commitOid": oid, "success": True, "hookOutput": ""})

    def about(self, repo: str, revision: str | None) -> None:
        if repo not in self.hub.repos:
            return self.missing("RepoNotFound")
        files = self.hub.files(repo, revision)
        if files is None:
            return self.missing("RevisionNotFound")
        known = revision if revision not in (None, "main") else self.hub.newest(repo)
        siblings = [{"rfilename": name} for name in files]
        return self.send({"id": repo, "sha": known, "siblings": siblings, "private": False})

    def file(self, repo: str, revision: str, name: str) -> None:
        if repo not in self.hub.repos:
            return self.missing("RepoNotFound")
        files = self.hub.files(repo, revision)
        content = (files or {}).get(name)
        if files is None:
            return self.missing("RevisionNotFound")
        if content is None:
            return self.missing("EntryNotFound")
        head = {
            "X-Repo-Commit": self.hub.newest(repo) if revision == "main" else revision,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        return self.send(raw=content, head=head)

    def missing(self, code: str, status: int = 404) -> None:
        self.send({"error": code}, status, head={"X-Error-Code": code})

    def send(
        self,
        content: Any = None,
        status: int = 200,
        head: dict[str, str] | None = None,
        raw: bytes | None = None,
    ) -> None:
        data = raw if raw is not None else json.dumps(content).encode() if content else b""
        self.send_response(status)
        kind = "application/octet-stream" if raw is not None else "application/json"
        for name, value in {"Content-Type": kind, **(head or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content
