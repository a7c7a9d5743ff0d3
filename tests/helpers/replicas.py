"""Two replicas of the starter on this machine, as Ray Serve runs them, and a program that talks to them."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

from tests.helpers.api import wait_until

SECONDS = 120
MAX_SEQ_LEN = 2048
OPTIONS = {"threads": 1, "max-seq-len": MAX_SEQ_LEN}
FOR_A_BUSY_MACHINE = {"RAY_agent_register_timeout_ms": "300000", "RAY_worker_niceness": "0"}
LOAD_TOLD_SOON = {f"RAY_SERVE_{who}_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.3"
                  for who in ("REPLICA", "HANDLE")}
TRIES = 4
"""To start: Ray waits 15 seconds for its own helpers and no longer, which a busy machine does not keep."""


@dataclass(frozen=True)
class Answered:
    """A whole reply, and who wrote it."""

    text: str
    usage: dict[str, Any]
    replica: str


class Cluster:
    """`engine`: the handle of the replicas."""

    def __init__(self, port: int, engine: Any) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self._port, self._engine = port, engine

    def status(self) -> list[dict[str, Any]]:
        """Of each replica. Ray refuses to wait where the browser's tests have left a loop running."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: self._engine.broadcast("status").results(timeout_s=SECONDS)).result()

    def scale(self, at_least: int, at_most: int, queue: int) -> None:
        """Deployed again, so that Ray adds and takes away replicas, at once instead of after minutes."""
        from ray import serve
        from ray.serve.config import AutoscalingConfig

        from serve import parlor_serve

        at_once = partial(AutoscalingConfig, upscale_delay_s=0, downscale_delay_s=0, look_back_period_s=1)
        with mock.patch.object(parlor_serve, "AutoscalingConfig", at_once):
            application = parlor_serve.app(OPTIONS | {"replicas": at_least, "max-replicas": at_most,
                                                      "queue": queue})
        serve.run(application, name=parlor_serve.NAME)

    def count(self) -> int:
        """Of the replicas. Ray tells a new handle first how to route: then, for a moment, it knows none."""
        from ray.serve.exceptions import DeploymentUnavailableError

        try:
            return len(self.status())
        except DeploymentUnavailableError:
            return 0

    def ask(self, *turns: str, session: str | None = None, **fields: Any) -> Answered:
        """The whole reply to a conversation whose turns are the user's and the assistant's."""
        roles = ["user", "assistant"] * len(turns)
        messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
        headers = {} if session is None else {"x-session-id": session}
        status, answered, body = self.post({"messages": messages, **fields}, **headers)
        assert status == 200, body
        reply = json.loads(body)
        return Answered(reply["choices"][0]["message"]["content"], reply["usage"],
                        answered["x-parlor-replica"])

    def post(self, body: Any, **headers: str) -> tuple[int, Any, bytes]:
        """Status, headers and body of the answer."""
        connection, response = self.open(body, **headers)
        data = response.read()
        connection.close()
        return response.status, response.headers, data

    def get(self, path: str, **headers: str) -> tuple[int, Any, bytes]:
        """Status, headers and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, response.headers, data

    def open(self, body: Any, **headers: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """An answer that is read by the caller."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(),
                           {"Content-Type": "application/json", **headers})
        return connection, connection.getresponse()


@contextmanager
def two_replicas() -> Iterator[Cluster]:
    """Their cluster, which ends with the block."""
    os.environ |= FOR_A_BUSY_MACHINE | LOAD_TOLD_SOON
    import ray
    from ray import serve

    from serve.parlor_serve import NAME, app

    machines = _started()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    try:
        ray.init(address=machines.address, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app(OPTIONS | {"replicas": 2}), name=NAME)
        cluster = Cluster(port, serve.get_deployment_handle("engine", NAME))
        wait_until(lambda: cluster.count() == 2, SECONDS)
        yield cluster
    finally:
        if ray.is_initialized():
            serve.shutdown()
            ray.shutdown()
        machines.shutdown()


def _started() -> Any:
    """Ray's cluster of this machine alone, without what only watches it."""
    from ray.cluster_utils import Cluster as Machines

    for attempt in range(TRIES):
        try:
            return Machines(initialize_head=True, head_node_args={
                "num_cpus": 2, "object_store_memory": 80 << 20, "include_dashboard": False,
                "include_log_monitor": False, "no_monitor": True, "wait": False})
        except Exception:  # Ray raises no other; what it has started ends with this process
            if attempt == TRIES - 1:
                raise
    raise AssertionError
