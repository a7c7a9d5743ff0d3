"""The files that make Parlor a service: what they name is there, and the options they give are ours."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import app

ROOT = Path(__file__).resolve().parent.parent
SERVICE_KEYS = {"image", "build", "command", "ports", "volumes", "secrets", "restart", "stop_grace_period",
                "read_only", "tmpfs", "cap_drop", "security_opt", "profiles", "deploy"}


def instructions():
    """[(stage, instruction, the rest)] of the Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found, stage = [], ""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = rest.rpartition(" AS ")[2]
        if word:
            found.append((stage, word, rest))
    return found


def of(stage, word):
    return [rest for at, instruction, rest in instructions() if (at, instruction) == (stage, word)]


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def unit_lines():
    text = (ROOT / "deploy/parlor.service").read_text(encoding="utf-8").replace("\\\n", " ")
    return [tuple(line.split("=", 1)) for line in text.splitlines() if re.match(r"\w+=", line)]


def test_what_the_image_copies_is_there_and_is_sent_to_the_builder():
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [rest for _, word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    names = {name for rest in copied for name in rest.split()[:-1]}
    assert {"app.py", "model/", "webui/", "cpu/", "cuda/", "starter/", "requirements-web.txt"} == names
    assert sent[1] == "*"
    assert {f"!{name}" for name in names} == {line for line in sent if line.startswith("!")}
    assert all((ROOT / name).exists() for name in names)


def test_stages_are_made_of_stages_and_what_runs_has_no_compiler_and_is_nobody_special():
    stages = [stage for stage, word, _ in instructions() if word == "FROM"]
    assert stages[-1] == "run" and {"kernels-cpu", "kernels-cuda"} <= set(stages)
    for rest in (rest for _, word, rest in instructions() if word == "COPY" and rest.startswith("--from")):
        assert re.match(r"--from=(\S+)", rest)[1] in stages
    assert of("run", "FROM") == ["base AS run"]
    assert "apt-get" not in " ".join(of("run", "RUN") + of("base", "RUN"))
    user, group = re.fullmatch(r"([1-9]\d+):([1-9]\d+)", of("run", "USER")[-1]).groups()
    assert f"--gid {group} " in of("run", "RUN")[0] and f"--uid {user} " in of("run", "RUN")[0]


def test_the_kernels_of_the_image_are_compiled_by_commands_that_there_are():
    run = " ".join(of("kernels-cpu", "RUN") + of("kernels-cuda", "RUN"))
    commands = re.findall(r"python -m (\S+)((?: --\S+ \w+)?)", run)
    assert commands == [("model.kernels.build", ""), ("model.kernels.build", " --cuda all")]
    for arguments in (["--help"], ["--cuda", "ninety"]):
        said = subprocess.run([sys.executable, "-m", "model.kernels.build", *arguments], cwd=ROOT, text=True,
                              capture_output=True)
        assert "--cuda" in said.stdout + said.stderr


def test_the_image_starts_parlor_with_options_that_it_has(compose):
    command = json.loads(of("run", "ENTRYPOINT")[0])
    assert command[:2] == ["python", "app.py"]
    understood = app.parse_arguments([*command[2:], *compose["services"]["parlor-gpu"]["command"]])
    assert (understood.host, understood.port, understood.log) == ("0.0.0.0", 5000, "json")
    assert understood.no_browser and understood.config.device == "cuda"
    folders = {str(understood.models_dir), str(understood.sessions_dir)}
    assert folders == set(json.loads(of("run", "VOLUME")[0])) and of("run", "EXPOSE") == ["5000"]
    secret = Path(understood.password)
    assert secret.parent == Path("/run/secrets") and secret.name in compose["secrets"]
    assert "127.0.0.1:5000/healthz" in of("run", "HEALTHCHECK")[0]


def test_the_compose_file_says_what_docker_knows(compose):
    assert compose.keys() == {"services", "volumes", "secrets"}
    arguments = {rest.partition("=")[0] for _, word, rest in instructions() if word == "ARG"}
    for service in compose["services"].values():
        assert service.keys() <= SERVICE_KEYS
        assert service["build"]["args"].keys() <= arguments
        assert {mount.partition(":")[2] for mount in service["volumes"]} == {"/models", "/sessions"}
        assert {mount.partition(":")[0] for mount in service["volumes"]} == compose["volumes"].keys()
        assert service["ports"] == ["127.0.0.1:5000:5000"]
        assert set(service["secrets"]) <= compose["secrets"].keys()
    cpu, gpu = compose["services"]["parlor"], compose["services"]["parlor-gpu"]
    assert (cpu["build"]["args"]["VARIANT"], gpu["build"]["args"]["VARIANT"]) == ("cpu", "cuda")
    assert "profiles" not in cpu and gpu["profiles"] == ["gpu"]
    device, = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_the_unit_starts_parlor_with_options_that_it_has_and_little_that_it_may():
    unit = dict(unit_lines())
    python, program, *arguments = shlex.split(unit["ExecStart"])
    assert python == "/opt/parlor/.venv/bin/python" and program == "/opt/parlor/app.py"
    understood = app.parse_arguments(arguments)
    assert understood.no_browser and understood.log == "json"
    for folder in (understood.models_dir, understood.sessions_dir):
        assert str(folder).startswith(f"/var/lib/{unit['StateDirectory']}/")
    assert unit["ProtectSystem"] == "strict" and unit["ReadWritePaths"] == "/var/lib/parlor /var/cache/parlor"
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "DynamicUser", "RestrictSUIDSGID"):
        assert unit[name] == "yes"


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze here")
    text = (ROOT / "deploy/parlor.service").read_text(encoding="utf-8")
    text = text.replace("/opt/parlor/.venv/bin/python", sys.executable).replace("/opt/parlor", str(ROOT))
    (tmp_path / "parlor.service").write_text(text)
    said = subprocess.run(["systemd-analyze", "verify", tmp_path / "parlor.service"], text=True,
                          capture_output=True)
    assert said.returncode == 0 and "parlor.service" not in said.stderr, said.stderr
