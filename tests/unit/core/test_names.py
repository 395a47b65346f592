"""Names outside: valid wherever they go, never shared by two users, sorted by time."""

from __future__ import annotations

import random
import re
import string

import pytest

from stagecoach.core import names

PREFIXES = ["stagecoach-", "", "a", "sc", "x" * 31, "0-"]
STRANGE_USERS = [
    "a",
    "z9",
    "alice",
    "a-b",
    "a--b",
    "-alice",
    "alice-",
    "Alice",
    "ALICE",
    "alice@EXAMPLE.ORG",
    "user@realm",
    "alice.smith",
    "alice_smith",
    "é",
    "ünïcödé",
    "用户",
    "🙂",
    "İ",
    "ß",
    "ﬁ",
    "x" * 64,
    "x" * 255,
    "X" * 64,
    "a" * 32 + "-" + "b" * 31,
    "-",
    "--",
    ".",
    "_",
    " ",
    "192.168.1.1",
    "xn--alice",
    "sthree-alice",
    "amzn-s3-demo-alice",
    "alice-s3alias",
    "alice--ol-s3",
    "alice--x-s3",
    "alice.mrap",
    "٣",
    "a\nb",
    "\ud800",
]


def require_valid_bucket(name: str) -> None:
    """Amazon S3 User Guide, "General purpose bucket naming rules", the strictest form (no dots)."""
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", name), name
    assert not name.startswith(("xn--", "sthree-", "amzn-s3-demo-")), name
    assert not name.endswith(("-s3alias", "--ol-s3", "--x-s3", "--table-s3", ".mrap")), name


def random_user(dice: random.Random) -> str:
    alphabet = dice.choice([string.ascii_lowercase + string.digits + "-", string.printable, "aA-_.@", "éÉ-aλ用", "ab-"])
    return "".join(dice.choice(alphabet) for _ in range(dice.choice([1, 2, 3, 8, 20, 33, 52, 53, 64])))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("username", STRANGE_USERS)
def test_the_bucket_of_any_user_has_a_valid_name(prefix: str, username: str) -> None:
    require_valid_bucket(names.bucket_name(prefix, username))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_two_users_never_share_a_bucket(prefix: str) -> None:
    dice = random.Random(11)
    users = {random_user(dice) for _ in range(30_000)} | set(STRANGE_USERS)
    buckets = {}
    for username in users:
        bucket = names.bucket_name(prefix, username)
        require_valid_bucket(bucket)
        assert buckets.setdefault(bucket, username) == username
    # A user may not take another's bucket by choosing its name as their own.
    for bucket, username in list(buckets.items())[:2000]:
        wanted = bucket.removeprefix(prefix)
        assert wanted == username or names.bucket_name(prefix, wanted) != bucket


def test_plain_names_stay_readable() -> None:
    assert names.bucket_name("stagecoach-", "alice") == "stagecoach-alice"
    assert names.bucket_name("stagecoach-", "a-1") == "stagecoach-a-1"
    assert re.fullmatch(r"stagecoach-user-realm--[0-9a-f]{16}", names.bucket_name("stagecoach-", "user@realm"))


def test_case_makes_a_difference() -> None:
    assert len({names.bucket_name("s-", name) for name in ("alice", "Alice", "ALICE", "alicE")}) == 4


def test_ids_sort_by_time_and_are_lower_case_letters_and_digits() -> None:
    dice = random.Random(3)
    times = sorted(dice.uniform(0, 2**47 / 1000) for _ in range(2000))
    ids = [names.new_transfer_id(time, dice.getrandbits) for time in times if time]
    assert all(re.fullmatch(r"[0-9a-hjkmnp-tv-z]{26}", transfer_id) for transfer_id in ids)
    assert ids == sorted(ids)


def test_ids_of_one_millisecond_differ() -> None:
    dice = random.Random(5)
    assert len({names.new_transfer_id(1_900_000_000.0, dice.getrandbits) for _ in range(10_000)}) == 10_000


def test_the_largest_random_number_does_not_reach_into_the_time() -> None:
    largest = names.new_transfer_id(1.0, lambda bits: 2**bits - 1)
    assert largest < names.new_transfer_id(1.5, lambda bits: 0)
    assert largest[10:] == "z" * 16


def test_all_keys_lie_below_the_id() -> None:
    keys = names.all_keys("abc")
    assert len(set(keys)) == 4
    assert all(key.startswith("abc/") for key in keys)
    assert {names.object_key("abc"), names.ticket_key("abc"), names.progress_key("abc"), names.receipt_key("abc")} == set(keys)


def test_job_and_temporary_names_are_found_from_the_id_alone() -> None:
    assert names.job_name("abc") == "stagecoach-abc"
    assert names.temporary_name("abc") == ".stagecoach-abc.part"
    assert len(names.temporary_name("0" * 26)) <= 255


TRANSFER_ID = names.new_transfer_id(1_900_000_000.25, random.Random(7).getrandbits)


def test_an_id_is_known_and_tells_its_time() -> None:
    assert names.is_transfer_id(TRANSFER_ID)
    assert names.epoch_seconds_of(TRANSFER_ID) == pytest.approx(1_900_000_000.25)
    for other in (
        "",
        "abc",
        TRANSFER_ID.upper(),
        TRANSFER_ID[:-1],
        TRANSFER_ID + "0",
        "z" + TRANSFER_ID[1:],
        TRANSFER_ID[:-1] + "i",
    ):
        assert not names.is_transfer_id(other)


def test_our_keys_are_read_back_and_no_others() -> None:
    for key in names.all_keys(TRANSFER_ID):
        assert names.id_in_key(key) == names.id_in_key(names.CHECK_PREFIX + key) == TRANSFER_ID
    for key in (
        "",
        TRANSFER_ID,
        f"{TRANSFER_ID}/",
        f"{TRANSFER_ID}/other",
        f"x/{TRANSFER_ID}/data",
        f"{TRANSFER_ID}/data/",
        "a/data",
    ):
        assert names.id_in_key(key) is None


def test_our_job_names_are_read_back_and_no_others() -> None:
    for attempt in (1, 2, 17):
        assert names.id_and_attempt_in_job_name(names.job_name(TRANSFER_ID, attempt)) == (TRANSFER_ID, attempt)
    name = names.job_name(TRANSFER_ID)
    for other in (
        TRANSFER_ID,
        f"{name}-",
        f"{name}-1",
        f"{name}-02",
        f"{name}-x",
        f"{name}-2-3",
        f"x{name}",
        f"{name} ",
        "stagecoach-x",
    ):
        assert names.id_and_attempt_in_job_name(other) is None


def test_our_directories_and_hidden_files_are_read_back_and_no_others() -> None:
    assert names.id_in_directory_name(TRANSFER_ID) == names.id_in_directory_name(f"check-{TRANSFER_ID}") == TRANSFER_ID
    assert names.id_in_temporary_name(names.temporary_name(TRANSFER_ID)) == TRANSFER_ID
    for other in ("", "notes", f"{TRANSFER_ID}.old", f"check-check-{TRANSFER_ID}"):
        assert names.id_in_directory_name(other) is None
    for other in (
        TRANSFER_ID,
        f".stagecoach-{TRANSFER_ID}",
        f"{TRANSFER_ID}.part",
        ".stagecoach-x.part",
        f".stagecoach-{TRANSFER_ID}.part.part",
    ):
        assert names.id_in_temporary_name(other) is None
