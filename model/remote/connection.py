"""Requests to one engine, by the openai library: its addresses, its ways to show a key, its second tries.

All of it runs in Background's thread. Nothing is taken from the environment (keys, proxies, headers),
and nothing is sent but what is needed. A redirect is not followed: key and text would go to another host.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from model.remote.address import EngineAddress
from model.remote.problems import EngineProblem, named, problem_of, said_by, tells_overflow
from model.remote.server_events import BadStream, read_events

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 20.0     # for what takes no thinking
FACT_SECONDS = 5.0
FIRST_SECONDS = 900.0     # until a reply begins: the engine may load its model, or read a long prompt
STALL_SECONDS = 120.0     # without a word in the middle of a reply
TRIES = 2                 # more of them, where nothing was written yet: busy, failed or not reached
MAX_ANSWER = 16 << 20
_SENT_HEADERS = frozenset({"host", "accept", "accept-encoding", "connection", "content-length",
                           "content-type", "user-agent", "authorization", "x-stainless-raw-response"})
NOT_INSTALLED = ("Other engines need the openai library, which is not installed. Install it with "
                 "python -m pip install -r requirements-web.txt, by the Python that runs Parlor.")


def check_installed() -> None:
    """Import the library, which takes a second: from a thread that may wait. Raises EngineProblem."""
    try:
        import openai  # noqa: F401
    except ImportError:
        raise EngineProblem(NOT_INSTALLED) from None
    for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):  # a log of headers would hold keys
        logging.getLogger(name).setLevel(logging.WARNING)


class Connection:
    """Of one engine. Each function raises EngineProblem."""

    def __init__(self, address: EngineAddress) -> None:
        self.address = address
        self._first_seconds, self._stall_seconds = FIRST_SECONDS, STALL_SECONDS
        self._known: tuple[Any, Any] | None = None

    async def models(self) -> list[dict[str, Any]]:
        """The engine's list, as it tells it."""
        client = self._client.with_options(max_retries=0)
        answer = await self._whole(client.models.with_streaming_response.list(), ANSWER_SECONDS)
        listed = answer.get("data", answer.get("models")) if isinstance(answer, dict) else answer
        if listed is None and answer == {"object": "list", "data": None}:  # Ollama's, where none was pulled
            listed = []
        if not isinstance(listed, list):
            raise self._wrong("lists no models")
        return [one for one in listed if isinstance(one, dict) and isinstance(one.get("id"), str)]

    async def complete(self, body: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """What follows one text or several, without any template."""
        create = self._client.with_options(max_retries=0).completions.with_streaming_response.create
        answer = await self._whole(create(**_arguments(body, "prompt"), stream=False), seconds)
        if not isinstance(answer, dict):
            raise self._wrong("answers with something else than was asked for")
        return answer

    async def stream_chat(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """A reply, chunk by chunk; one that comes whole is one chunk."""
        chunks = self._chunks(body)
        seconds = self._first_seconds
        try:
            while True:
                try:
                    chunk = await asyncio.wait_for(chunks.__anext__(), seconds)
                except StopAsyncIteration:
                    return
                except asyncio.TimeoutError:
                    raise self._silent(seconds) from None
                seconds = self._stall_seconds
                yield chunk
        finally:
            await chunks.aclose()

    async def fact(self, path: str) -> Any:
        """JSON of a route beside /v1; None if there is nothing of the kind."""
        headers = {"Authorization": f"Bearer {self.address.key}"} if self.address.key else {}
        headers |= self.address.headers
        _, http = self._both

        async def read() -> Any:
            async with http.stream("GET", self.address.root + path, headers=headers) as response:
                return await self._parsed(response.aiter_bytes()) if response.status_code == 200 else None

        try:
            return await asyncio.wait_for(read(), FACT_SECONDS)
        except Exception:  # whatever a stranger answers to a route that it does not know
            return None

    async def use(self, address: EngineAddress) -> None:
        """From now on this address, key and headers; what is written just now ends."""
        before, self._known, self.address = self._known, None, address
        if before is not None:
            await before[0].close()

    async def close(self) -> None:
        if self._known is not None:
            await self._known[0].close()

    @property
    def _client(self) -> Any:
        return self._both[0]

    @property
    def _both(self) -> tuple[Any, Any]:
        """The library's client, and the one below it."""
        if self._known is None:
            import openai

            address = self.address
            sent = _SENT_HEADERS | {name.lower() for name in address.headers}

            async def prune(request: Any) -> None:
                for name in [name for name in request.headers if name.lower() not in sent]:
                    del request.headers[name]

            http = openai.DefaultAsyncHttpxClient(
                follow_redirects=False, trust_env=False, event_hooks={"request": [prune]},
                timeout=openai.Timeout(None, connect=CONNECT_SECONDS))
            client = openai.AsyncOpenAI(
                api_key=address.key or "none", base_url=address.url, http_client=http, max_retries=TRIES,
                timeout=openai.Timeout(None, connect=CONNECT_SECONDS), default_headers=dict(address.headers))
            self._known = client, http
        return self._known

    async def _chunks(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        create = self._client.chat.completions.with_streaming_response.create
        async with self._opened(create(**_arguments(body, "messages"), stream=True)) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "application/json":
                yield _as_chunk(await self._parsed(response.iter_bytes()))
                return
            if kind != "text/event-stream":
                raise self._wrong(f"answers with {kind[:60] or 'a body without a type'}, not with a stream "
                                  "of events")
            try:
                async for event in read_events(response.iter_bytes()):
                    if event.get("error"):
                        said = said_by(event, self.address)
                        raise EngineProblem(f"{named(self.address)} broke off: {said}",
                                            overflow=tells_overflow(said))
                    yield event
            except BadStream as error:
                raise EngineProblem(f"{named(self.address)} cannot be understood: {error}.") from None

    async def _whole(self, request: AbstractAsyncContextManager[Any], seconds: float) -> Any:
        async def read() -> Any:
            async with self._opened(request) as response:
                return await self._parsed(response.iter_bytes())

        try:
            return await asyncio.wait_for(read(), seconds)
        except asyncio.TimeoutError:
            raise self._silent(seconds) from None

    @asynccontextmanager
    async def _opened(self, request: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
        """The response; whatever the libraries raise is a problem of this engine."""
        try:
            async with request as response:
                yield response
        except (EngineProblem, GeneratorExit, asyncio.TimeoutError):
            raise
        except Exception as error:
            raise problem_of(error, self.address) from None

    async def _parsed(self, chunks: AsyncIterator[bytes]) -> Any:
        data = bytearray()
        async for chunk in chunks:
            data += chunk
            if len(data) > MAX_ANSWER:
                raise self._wrong("sends an answer without an end")
        try:
            return json.loads(bytes(data))
        except (ValueError, RecursionError):
            raise self._wrong("answers with what is no JSON") from None

    def _silent(self, seconds: float) -> EngineProblem:
        return EngineProblem(f"{named(self.address)} has said nothing for {seconds:g} seconds.")

    def _wrong(self, what: str) -> EngineProblem:
        return EngineProblem(f"{named(self.address)} {what}. Is {self.address.url} right? Addresses usually "
                             "end in /v1.")


def _arguments(body: Mapping[str, Any], subject: str) -> dict[str, Any]:
    """As the library takes them: what it knows by name, and all else."""
    rest = {name: value for name, value in body.items() if name not in ("model", subject)}
    return {"model": body["model"], subject: body[subject], "extra_body": rest}


def _as_chunk(reply: Any) -> dict[str, Any]:
    """A whole reply in the shape of a stream's only chunk."""
    if not isinstance(reply, dict):
        return {}
    choices = [{**choice, "delta": choice.get("message")} for choice in reply.get("choices") or []
               if isinstance(choice, dict)]
    return {**reply, "choices": choices}
