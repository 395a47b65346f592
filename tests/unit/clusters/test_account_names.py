"""Names of accounts: asked once, remembered a while, never told to another user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stagecoach.clusters import account_names
from stagecoach.clusters.account_names import AccountBook
from stagecoach.clusters.ssh_pool import CommandResult
from stagecoach.core.errors import SystemUnavailable

PASSWD = "alice:x:1000:1000:Alice,,,:/home/alice:/bin/bash\nd\u00e9ja.vu@site:*:7:7::/:/bin/false\n"
GROUP = "users:x:1000:alice,bob\n"


class Login:
    """A login node that answers what it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.answers = {"passwd": CommandResult(0, PASSWD, ""), "group": CommandResult(2, GROUP, "")}

    async def run(self, username: str, argv: Sequence[str]) -> CommandResult:
        self.asked.append((username, list(argv)))
        return self.answers[argv[1]]


@pytest.fixture
def login() -> Login:
    return Login()


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def book(login: Login, clock: list[float]) -> AccountBook:
    made: Any = login
    return AccountBook(made, lambda: clock[0])


async def test_numbers_get_their_names_and_strangers_none(book: AccountBook, login: Login) -> None:
    names = await book.names("alice", [1000, 7, 9, -1, 2**32], {1000, 5})
    assert names.users == {1000: "alice", 7: "d\u00e9ja.vu@site"}
    assert names.groups == {1000: "users"}
    assert login.asked == [("alice", ["getent", "passwd", "7", "9", "1000"]), ("alice", ["getent", "group", "5", "1000"])]


async def test_nothing_is_asked_for_nothing(book: AccountBook, login: Login) -> None:
    await book.names("alice", [], [])
    await book.names("alice", [-1], [2**40])
    assert login.asked == []


async def test_what_was_told_is_remembered_for_a_while_also_that_there_is_no_name(
    book: AccountBook, login: Login, clock: list[float]
) -> None:
    for _ in range(3):
        assert (await book.names("alice", [1000, 9], [])).users == {1000: "alice"}
    assert len(login.asked) == 1
    await book.names("alice", [1000, 7], [])
    assert login.asked[-1] == ("alice", ["getent", "passwd", "7"])
    clock[0] = account_names.LIFE_SECONDS
    await book.names("alice", [1000], [])
    assert login.asked[-1] == ("alice", ["getent", "passwd", "1000"])


async def test_what_one_users_shell_said_is_not_told_to_another(book: AccountBook, login: Login) -> None:
    login.answers["passwd"] = CommandResult(0, "root:x:1000:0:::\n", "")
    assert (await book.names("mallory", [1000], [])).users == {1000: "root"}
    login.answers["passwd"] = CommandResult(0, PASSWD, "")
    assert (await book.names("alice", [1000], [])).users == {1000: "alice"}


@pytest.mark.parametrize("status", [1, 3, 127, -9])
async def test_a_system_that_cannot_tell_leaves_numbers(book: AccountBook, login: Login, status: int) -> None:
    login.answers["passwd"] = CommandResult(status, PASSWD, "no getent")
    assert (await book.names("alice", [1000], [])).users == {}


async def test_noise_is_no_account(book: AccountBook, login: Login) -> None:
    noise = "Welcome!\n::\na:b\nx:y:z\nesc\x1b:x:8:\nbad\udcff:x:8:\narabic:x:٨:\n" + "big:x:" + "9" * 30 + ":\n"
    login.answers["passwd"] = CommandResult(0, noise + PASSWD + "second:x:1000:\n", "")
    assert (await book.names("alice", [8, 1000], [])).users == {1000: "alice"}


async def test_many_are_asked_in_pieces_and_memory_is_bounded(
    book: AccountBook, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_names, "MAX_REMEMBERED", 1500)
    assert (await book.names("alice", range(1200), [])).users == {7: "d\u00e9ja.vu@site", 1000: "alice"}
    assert [len(argv) - 2 for _, argv in login.asked] == [500, 500, 200]
    assert (await book.names("alice", range(1000, 1800), [])).users == {1000: "alice"}
    assert len(book._known) <= 1500


async def test_a_users_own_numbers(login: Login, book: AccountBook) -> None:
    login.answers = {"-u": CommandResult(0, "Welcome!\n1000\n", ""), "-G": CommandResult(0, "100 27 1000\n", "")}
    numbers = await book.numbers("alice")
    assert (numbers.uid, numbers.gids) == (1000, (100, 27, 1000))


@pytest.mark.parametrize(
    "answer", [CommandResult(127, "", "not found"), CommandResult(0, "", ""), CommandResult(0, "alice\n", "")]
)
async def test_numbers_that_are_none_are_not_believed(login: Login, book: AccountBook, answer: CommandResult) -> None:
    login.answers = {"-u": CommandResult(0, "1000\n", ""), "-G": answer}
    with pytest.raises(SystemUnavailable, match="who alice is"):
        await book.numbers("alice")
