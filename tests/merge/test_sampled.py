"""Files that differ somewhere have other hashes; large ones are not read whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import xxhash

from evomerge.merge.sampled import SAMPLE_BYTES, SAMPLES, sample


def hash_of(path: Path) -> str:
    digest = xxhash.xxh3_64()
    sample(digest, path)
    return digest.hexdigest()


@pytest.mark.parametrize("place", [0, 17, -1])
def test_one_byte_of_a_small_file_counts(tmp_path: Path, place: int) -> None:
    content = bytearray(b"x" * 100)
    (tmp_path / "one").write_bytes(content)
    content[place] ^= 1
    (tmp_path / "other").write_bytes(content)
    assert hash_of(tmp_path / "one") != hash_of(tmp_path / "other")


@pytest.mark.parametrize("size", [SAMPLES * SAMPLE_BYTES + 1, 3 * SAMPLES * SAMPLE_BYTES])
@pytest.mark.parametrize("at_end", [False, True])
def test_of_a_large_file_the_ends_count_and_its_size(
    tmp_path: Path, size: int, at_end: bool
) -> None:
    content = bytearray(size)
    (tmp_path / "one").write_bytes(content)
    (tmp_path / "longer").write_bytes(content + b"\0")
    content[-1 if at_end else 0] = 1
    (tmp_path / "other").write_bytes(content)
    assert len({hash_of(tmp_path / name) for name in ("one", "longer", "other")}) == 3


def test_what_lies_between_the_samples_is_not_read(tmp_path: Path) -> None:
    content = bytearray(3 * SAMPLES * SAMPLE_BYTES)
    (tmp_path / "one").write_bytes(content)
    content[2 * SAMPLE_BYTES] = 1  # the second sample begins later
    (tmp_path / "other").write_bytes(content)
    assert hash_of(tmp_path / "one") == hash_of(tmp_path / "other")
