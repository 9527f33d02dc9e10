"""Which files a walk finds, in which order, and what it says of the others."""

import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vecsearch.errors import InvalidInput
from vecsearch.imaging import stalls
from vecsearch.imaging.scan import GIVEN_UP, File, Unreadable, Walk
from vecsearch.imaging.skipping import JUNK_FOLDERS
from vecsearch.imaging.sources import existence


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


def found(*roots: Path) -> list[str]:
    return [file.relative for file in Walk(roots)]


@pytest.fixture
def stalling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Path], list[str]]]:
    """What makes a function of `os` stall below a folder, and returns the paths that it stalls at.

    The calls go on when the test is over.
    """
    over = threading.Event()
    monkeypatch.setattr(stalls, "STALL_S", 0.5)

    def stall(name: str, folder: Path) -> list[str]:
        called = getattr(os, name)
        met: list[str] = []

        def waiting(path: object, **options: object) -> object:
            if isinstance(path, str) and path.startswith(str(folder)):
                met.append(path)
                over.wait()
            return called(path, **options)

        monkeypatch.setattr(os, name, waiting)
        return met

    yield stall
    over.set()


def non_utf8(folder: Path, name: bytes) -> str:
    """Return a path that Linux allows and UTF-8 does not; skip the test where the disk refuses."""
    path = os.path.join(folder, os.fsdecode(name))  # noqa: PTH118 - bytes no str literal can hold
    try:
        with open(path, "x"):  # noqa: PTH123 - likewise
            pass
    except OSError:
        pytest.skip("this file system holds only names in UTF-8")
    os.unlink(path)  # noqa: PTH108 - likewise
    return path


def test_a_folder_s_files_come_by_name_before_the_folders_below_it(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.png", "b/1.png", "a/z/3.jpg", "a/y.jpg", "c.webp", "B/0.gif")
    assert found(tmp_path) == ["c.webp", "B/0.gif", "a/y.jpg", "a/z/3.jpg", "b/1.png", "b/2.png"]


def test_what_a_file_is_known_by(tmp_path: Path) -> None:
    file = touch(tmp_path, "cats/one.png") / "cats" / "one.png"
    file.write_bytes(b"12345")
    os.utime(file, ns=(0, 1_700_000_000_123_456_789))
    modified = datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    [seen] = Walk([tmp_path])
    assert seen == File(str(file), "cats/one.png", 5, modified)
    assert (seen.name, seen.label) == ("one.png", "cats")


def test_suffixes_are_read_in_any_case_and_the_others_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "A.JPG", "b.HeIc", "notes.txt", "raw.psd", "noextension", "deep/song.mp3")
    walk = Walk([tmp_path])
    assert [file.name for file in walk] == ["A.JPG", "b.HeIc"]
    assert walk.skipped.total() == 4
    assert walk.unreadable == []


def test_hidden_and_junk_are_left_out_without_a_word(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden.png", ".thumbs/1.png", "kept.png", ".DS_Store")
    touch(tmp_path, *(f"{junk}/1.png" for junk in JUNK_FOLDERS))
    walk = Walk([tmp_path])
    assert [file.relative for file in walk] == ["kept.png"]
    assert (walk.skipped.total(), walk.unreadable) == (0, [])


@pytest.mark.parametrize("name", [".private", "@eaDir"])
def test_a_hidden_or_junk_folder_that_is_named_is_walked(tmp_path: Path, name: str) -> None:
    assert found(touch(tmp_path / name, "1.png")) == ["1.png"]


def test_a_named_file_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    file = touch(tmp_path, ".scan.image") / ".scan.image"
    walk = Walk([file])
    assert [(each.path, each.relative) for each in walk] == [(str(file), ".scan.image")]
    assert walk.skipped.total() == 0


def test_a_relative_root_gives_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "photos/a.png")
    monkeypatch.chdir(tmp_path)
    [file] = Walk(["./photos/../photos/"])
    assert (file.path, file.relative) == (str(tmp_path / "photos" / "a.png"), "a.png")


def test_a_root_that_does_not_exist_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no-such does not exist\. Check"):
        Walk([tmp_path, tmp_path / "no-such"])


def test_overlapping_roots_list_a_folder_once(tmp_path: Path) -> None:
    touch(tmp_path, "cats/1.png", "2.png")
    assert found(tmp_path, tmp_path / "cats", tmp_path) == ["2.png", "cats/1.png"]
    assert found(tmp_path / "cats", tmp_path) == ["1.png", "2.png"]


def test_links_that_loop_come_to_an_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/1.png")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(".")
    assert found(tmp_path) == ["a/b/1.png"]


def test_a_linked_sibling_is_listed_once_under_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path, "real/1.png")
    (tmp_path / "alias").symlink_to("real")  # sorts first, and must come last all the same
    assert found(tmp_path) == ["real/1.png"]


def test_a_link_to_a_folder_elsewhere_is_followed_and_keeps_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.png", "photos/2.png")
    (tmp_path / "photos" / "album").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "3.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    assert found(tmp_path / "photos") == ["2.png", "3.png", "album/1.png"]


@pytest.mark.parametrize("target", ["nowhere.png", "broken.png"], ids=["dangling", "to itself"])
def test_a_broken_link_is_unreadable_and_the_rest_is_found(tmp_path: Path, target: str) -> None:
    touch(tmp_path, "fine.png")
    broken = tmp_path / "broken.png"
    broken.symlink_to(target)
    walk = Walk([tmp_path])
    assert [file.name for file in walk] == ["fine.png"]
    [left_out] = walk.unreadable
    assert left_out.path == str(broken)
    assert left_out.reason.endswith(".")


def test_a_folder_that_cannot_be_listed_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "closed/1.png", "open/2.png")
    closed = str(tmp_path / "closed")
    scandir = os.scandir

    def refuse(path: str) -> "os._ScandirIterator[str]":
        if path == closed:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # chmod does not stop root, who runs tests in CI
    walk = Walk([tmp_path])
    assert [file.relative for file in walk] == ["open/2.png"]
    assert walk.unreadable == [Unreadable(closed, "Permission denied.")]


NO_ANSWER = "It did not answer within 0 s."


@pytest.mark.parametrize("function", ["stat", "scandir"])
def test_a_folder_that_stalls_is_unreadable_and_the_rest_is_found(
    tmp_path: Path, stalling: Callable[[str, Path], list[str]], function: str
) -> None:
    touch(tmp_path, "a/1.png", "b/2.png", "b/deep/3.png", "c/4.png", "c/notes.txt")
    walk = Walk([tmp_path])
    assert not stalling(function, tmp_path / "b")
    assert [file.relative for file in walk] == ["a/1.png", "c/4.png"]
    assert walk.unreadable == [Unreadable(str(tmp_path / "b"), NO_ANSWER)]
    assert walk.skipped.total() == 1


@pytest.mark.parametrize("function", ["stat", "scandir"])
def test_folders_that_stall_are_tried_only_a_few_times(
    tmp_path: Path, stalling: Callable[[str, Path], list[str]], function: str
) -> None:
    names = [f"share {number}" for number in range(stalls.MOST_STALLS + 3)]
    touch(tmp_path, "a/1.png", *(f"{name}/1.png" for name in names))
    walk = Walk([tmp_path])
    met = stalling(function, tmp_path / "share")
    assert [file.relative for file in walk] == ["a/1.png"]
    paths = [str(tmp_path / name) for name in names]
    assert met == paths[: stalls.MOST_STALLS]
    assert walk.unreadable == [
        Unreadable(path, NO_ANSWER if path in met else GIVEN_UP) for path in paths
    ]


def test_a_listing_that_is_slow_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"{number:03}.png" for number in range(450)))
    # More than a file takes, and less than all.
    monkeypatch.setattr(stalls, "STALL_S", 1)
    examined = File.__init__

    def slowly(*arguments: object) -> None:
        threading.Event().wait(0.003)
        examined(*arguments)  # type: ignore[arg-type]  # what it was given

    monkeypatch.setattr(File, "__init__", slowly)
    walk = Walk([tmp_path])
    assert len([*walk]) == 450
    assert walk.unreadable == []


def test_what_stalls_counts_as_existing(
    tmp_path: Path, stalling: Callable[[str, Path], list[str]]
) -> None:
    lost = [str(tmp_path / f"lost {number}") for number in range(3)]
    stuck = [str(tmp_path / f"stuck {number}") for number in range(stalls.MOST_STALLS + 2)]
    met = stalling("lstat", tmp_path / "stuck")
    asked = [lost[0], stuck[0], lost[1], str(tmp_path), *stuck[1:], lost[2]]
    assert existence.missing(asked) == {*lost[:2]}
    assert met == stuck[: stalls.MOST_STALLS]


def test_a_file_is_gone_when_a_folder_is_in_its_place(tmp_path: Path) -> None:
    touch(tmp_path, "file.png", "folder.png/1.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "folder.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.png")
    names = ["file.png", "broken.png", "pipe.png", "folder.png", "link.png", "none", "file.png/x"]
    paths = {str(tmp_path / name): name for name in names}
    assert {paths[path] for path in existence.gone(paths)} == {*names[3:]}
    assert {paths[path] for path in existence.missing(paths)} == {*names[5:]}


def test_a_root_that_stalls_is_no_error(
    tmp_path: Path, stalling: Callable[[str, Path], list[str]]
) -> None:
    touch(tmp_path, "a/1.png", "share/2.png")
    stalling("stat", tmp_path / "share")
    walk = Walk([tmp_path / "share", tmp_path / "a"])
    assert [file.relative for file in walk] == ["1.png"]
    assert walk.unreadable == [Unreadable(str(tmp_path / "share"), NO_ANSWER)]


def test_a_pipe_called_png_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    expected = [Unreadable(str(pipe), "It is not a regular file.")]
    for root in (tmp_path, pipe):
        walk = Walk([root])
        assert list(walk) == []
        assert walk.unreadable == expected


def test_a_name_that_is_not_utf8_is_unreadable_and_can_be_shown(tmp_path: Path) -> None:
    path = non_utf8(tmp_path, b"caf\xe9.png")
    with open(path, "x"):  # noqa: PTH123 - bytes no str literal can hold
        pass
    walk = Walk([tmp_path])
    assert list(walk) == []
    expected = f"{tmp_path}/caf\\xe9.png"
    assert walk.unreadable == [Unreadable(expected, "Its name is not valid UTF-8; rename it.")]


@pytest.mark.parametrize("kind", ["pipe", "broken link"])
def test_nothing_unreadable_has_a_path_that_postgres_cannot_hold(tmp_path: Path, kind: str) -> None:
    path = non_utf8(tmp_path, b"caf\xe9.png")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        os.symlink("nowhere", path)  # noqa: PTH211 - bytes no str literal can hold
    walk = Walk([tmp_path])
    assert list(walk) == []
    assert [item.path.encode() for item in walk.unreadable] == [f"{tmp_path}/caf\\xe9.png".encode()]
