"""The required walls hold inside a container under Docker's default confinement, for root and for another user."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import RestrictedPython

ROOT = Path(__file__).parents[2]
IMAGE = "python:3.11-slim-bookworm"
PROGRAM = """
import asyncio, json, sys
sys.path[:0] = ["/source", "/site"]
from mechanisms import gate, standard
from service_kit.parameters import Kind, Objective, Parameter, ParameterSpace
space = ParameterSpace((Parameter("DEPTH", Kind.INTEGER, 4, minimum=1, maximum=16),))
source = "class Mechanism:\\n    def prompt(self, view): return 'x'\\n"
report = asyncio.run(gate.check(source, space=space, objective=Objective("loss"), history=()))
print(json.dumps([report.accepted, report.layers]))
"""


def docker_has_the_image() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode == 0


@pytest.mark.long
@pytest.mark.skipif(not docker_has_the_image(), reason=f"needs Docker with the image {IMAGE}")
@pytest.mark.parametrize("user", ["0", "1234"])
def test_mechanisms_run_jailed_in_a_default_container(user: str, tmp_path: Path) -> None:
    site = shutil.copytree(Path(RestrictedPython.__file__).parent, tmp_path / "site" / "RestrictedPython").parent
    for path in (tmp_path, site):
        path.chmod(0o755)
    source = tmp_path / "source"
    for package in ("mechanisms", "service_kit"):
        shutil.copytree(ROOT / package, source / package)
    mounts = [option for pair in (("source", source), ("site", site)) for option in ("-v", f"{pair[1]}:/{pair[0]}:ro")]
    command = ["docker", "run", "--rm", "--network", "none", "-u", user, *mounts, IMAGE, "python3", "-c", PROGRAM]
    result = subprocess.run(command, capture_output=True, timeout=100, check=False)
    accepted, layers = json.loads(result.stdout or b"[]") or pytest.fail(result.stderr.decode())
    assert accepted
    assert {"clean_environment", "closed_descriptors", "no_new_privs", "rlimits", "seccomp"} <= set(layers)
