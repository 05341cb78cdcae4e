"""Local files as a task's initial workspace."""

import base64
import os
from pathlib import Path

import pytest

from octollm.cli.failure import Exit, Failure
from octollm.cli.workspace import MAX_ENTRIES, MAX_INLINE_BYTES, read_files
from octollm.events import schema


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(*arguments: str) -> str:
    with pytest.raises(Failure) as refused:
        read_files(arguments)
    assert refused.value.exit_code == Exit.USAGE
    return refused.value.message


def test_a_file_keeps_mode_and_time(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("echo hi\n")
    script.chmod(0o750)
    os.utime(script, (1_700_000_000, 1_700_000_000.9))
    assert read_files(["run.sh"]) == [
        {"path": "run.sh", "type": "file", "mode": "0750", "mtime": 1_700_000_000, "text": "echo hi\n"}
    ]


def test_bytes_that_are_no_text_travel_as_base64(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"\xff\x00\xfe")
    [entry] = read_files(["blob"])
    assert base64.b64decode(entry["base64"]) == b"\xff\x00\xfe"
    assert "text" not in entry


def test_a_directory_brings_everything_parents_first(tmp_path: Path) -> None:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "deep" / "a.txt").write_text("a")
    (tmp_path / "src" / "link").symlink_to("deep/a.txt")
    entries = read_files(["src"])
    assert [(entry["path"], entry["type"]) for entry in entries] == [
        ("src", "dir"),
        ("src/deep", "dir"),
        ("src/deep/a.txt", "file"),
        ("src/link", "symlink"),
    ]
    assert entries[-1]["target"] == "deep/a.txt"
    schema.validate("task.submit", {"goal": "look", "files": entries})


@pytest.mark.parametrize(
    ("argument", "paths"),
    [
        ("src:.", ["a.txt"]),
        ("src:in", ["in", "in/a.txt"]),
        ("src/a.txt:b/c.txt", ["b/c.txt"]),
        ("src/a.txt:.", ["a.txt"]),
        ("./src/", ["src", "src/a.txt"]),
        ("src/../src/a.txt", ["a.txt"]),
    ],
)
def test_dest_says_where(tmp_path: Path, argument: str, paths: list[str]) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.txt").write_text("a")
    assert [entry["path"] for entry in read_files([argument])] == paths


def test_a_colon_in_a_name_that_exists_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "12:30.txt").write_text("noon")
    assert [entry["path"] for entry in read_files(["12:30.txt"])] == ["12:30.txt"]


def test_the_same_file_twice_is_one_entry(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert len(read_files(["a.txt", "a.txt"])) == 1


def test_two_files_for_one_place_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    assert "a.txt" in refusal("a.txt", "b.txt:a.txt")


@pytest.mark.parametrize("destination", ["/etc/passwd", "../a.txt", "in/../../a.txt"])
def test_nothing_leaves_the_workspace(tmp_path: Path, destination: str) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert "outside" in refusal(f"a.txt:{destination}")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd"])
def test_links_out_of_the_workspace_are_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "link").symlink_to(target)
    assert "link" in refusal("src")


def test_too_many_bytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "fits").write_bytes(b"x" * MAX_INLINE_BYTES)
    (tmp_path / "more").write_bytes(b"x")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 40)
    assert len(read_files(["fits"])) == 1
    assert str(MAX_INLINE_BYTES) in refusal("fits", "more")
    assert "huge" in refusal("huge")


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(MAX_ENTRIES):
        (tmp_path / "many" / str(number)).touch()
    assert str(MAX_ENTRIES) in refusal("many")
    assert len(read_files(["many:."])) == MAX_ENTRIES


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe" in refusal("pipe")
