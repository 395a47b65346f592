"""Hostile words, paths, accounts, system names and bodies; whatever would run one of them leaves a file that has a name here.

``Canary`` gives each command its own file, so that a test that finds one knows which word was run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Canary:
    """Commands that make a file, absolute or in whatever directory they run in, named ``canary-TOKEN-NUMBER``."""

    directory: Path
    token: str
    words: list[str] = field(default_factory=list)

    def touch(self, *, relative: bool = False) -> str:
        name = f"canary-{self.token}-{len(self.words)}"
        self.words.append(name)
        return f"touch {name if relative else self.directory / name}"


# What surrounds a command so that some interpreter runs it: shells, templates, SQL, XML, Python, Slurm, ssh.
WRAPPINGS = [
    "$({})",
    "`{}`",
    "; {} ;",
    "| {}",
    "|| {}",
    "& {} &",
    "&& {}",
    "\n{}\n",
    "\r\n{}\r\n",
    "x\n{}",
    "'; {}; '",
    "'\n{}\n'",
    '"; {}; "',
    '"$({})"',
    "'$({})'",
    "')$({})('",
    '\\"; {}; #',
    "\\'; {}; #",
    "a'b\"c$({})",
    "<({})",
    ">({})",
    "$(({}))",
    "${{x:=$({})}}",
    "!{}",
    "{{{{ ''.__class__.__mro__[1].__subclasses__() or '{}' }}}}",
    "${{{{{}}}}}",
    "#{{{}}}",
    "<%= `{}` %>",
    "{{% raw %}}$({}){{% endraw %}}",
    "__import__('os').system('{}')",
    "x'); __import__('os').system('{}') #",
    "'; COPY (SELECT '') TO PROGRAM '{}'; --",
    "'; ATTACH DATABASE '{}' AS x; --",
    "x\n#SBATCH --wrap='{}'",
    "x\n#!/bin/sh\n{}",
    "--wrap={}",
    "--prolog={}",
    "-oProxyCommand={}",
    "-e {}",
    "EOF\n{}\nEOF",
    "x\0; {}",
    "\u2028{}\u2028",
    "；{}；",
    "%0a{}%0a",
    "%24%28{}%29",
    "$'\\x0a{}'",
    '<!DOCTYPE x [<!ENTITY y SYSTEM "expect://{}">]><x>&y;</x>',
    "(exec {})",
    "=cmd|'/c {}'!A1",
    "() {{ :; }}; {}",
]


def commands(canary: Canary, *, relative: bool = False) -> list[str]:
    """Each way to run a command; ``relative``: without a slash, so that it can be a file's whole name."""
    return [form.format(canary.touch(relative=relative)) for form in WRAPPINGS]


# Fit for any place: wrong kinds of text, formats, other protocols, numbers that are none.
ODD_WORDS: list[str] = [
    "",
    " ",
    "\t",
    ".",
    "..",
    "-",
    "--",
    "-rf",
    "--help",
    "*",
    "?",
    "[a-z]*",
    "~",
    "~root",
    "$HOME",
    "${IFS}",
    "null",
    "None",
    "undefined",
    "true",
    "NaN",
    "Infinity",
    "0",
    "-1",
    "1e309",
    "9" * 400,
    "0x41",
    "%s%s%s%n",
    "%00",
    "%2e%2e%2f",
    "%c0%ae%c0%ae/",
    "{0.__class__}",
    "' OR '1'='1",
    "'; DROP TABLE transfers; --",
    "1; SELECT pg_sleep(20)",
    "x' UNION SELECT * FROM transfers --",
    "*)(uid=*",
    "<script>alert(1)</script>",
    "javascript:alert(1)",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
    "gopher://127.0.0.1:1/_x",
    "x\r\nSet-Cookie: a=b",
    "x\0y",
    "\x01\x02\x7f",
    "\x1b[31mred",
    "\ud800",
    "\udcff",
    "\ufeff",
    "\u202egpj.exe",
    "\u200b",
    "e\u0301",
    "日本語",
    "🦆" * 20,
    "\U000e0041",
    "İ",
    "a" * 255,
    "a" * 5000,
    "a" * 70_000,
    "../../../../etc/passwd",
    "..\\..\\etc\\passwd",
    "con",
    "__proto__",
    "root",
    "@file",
    "a b",
    "a;b",
    "a&b's",
]


def paths(home: str, outside: str) -> list[str]:
    """Ways out of ``home``; ``outside`` is a directory that everybody may write, with links to it in ``home``/links."""
    up = ["..", "../..", "./..", "x/../..", "/..", "//..", "..//", "%2e%2e", "%252e%252e", ".. ", "..\t", "..\0", "。。", "․․"]
    found = [f"{home}/{step}/{target}" for step in up for target in ("bob/evil-made", outside.strip("/"))]
    found += [f"{home}/{'../' * depth}{outside.strip('/')}/made" for depth in range(1, 9)]
    found += [f"{home}\\..\\{outside}\\made", f"{home}%2f..%2f..{outside}/made", f"{home}/..%00/x", f"{home}/.../made"]
    found += [outside, f"{outside}/", f"{outside}/made", f"{outside}/secret", f"/{outside}/secret", f"/.{outside}/secret"]
    links = ("out", "out-file", "chain", "loop", "nothing", "root", "relative-out", "home-of-bob", "null", "memory", "pipe")
    found += [f"{home}/links/{link}" for link in links]
    found += [f"{home}/links/{link}/" for link in links]
    found += [f"{home}/links/{link}/secret" for link in links]
    found += [f"{home}/links/{link}/made" for link in links]
    found += [f"{home}/links/{link}/../secret" for link in links]
    found += [f"{home}/links/root{outside}/secret", f"{home}/links/root{outside}/made", f"{home}/links/out/d/made"]
    found += [
        "/etc/passwd",
        "/etc/cron.d/evil-made",
        "/etc/shadow",
        "/proc/self/environ",
        "/proc/1/root/etc/passwd",
        "/dev/null",
    ]
    found += [
        "/",
        "//",
        "/.",
        "/..",
        "/home",
        "/home/",
        "/home/bob",
        "/home/bob/evil-made",
        "/root/evil-made",
        "/tmp/evil-made",
    ]
    found += ["relative/made", "./made", "../made", "~/made", "~root/made", "$HOME/made", "~alice/made", "file:///etc/passwd"]
    found += [
        "/home/{user}/made",
        "/home/alice2/made",
        "/home/alic",
        "/home/ALICE/made",
        "\\etc\\passwd",
        "C:\\made",
        "//host/share",
    ]
    found += [f"{home}", f"{home}/", f"{home}/.", f"{home}/" + "x" * 256, f"{home}/" + "é" * 128, f"{home}/" + "d/" * 2040 + "x"]
    found += [
        f"{home}/nul\0{outside}/made",
        f"{home}/\ud800",
        f"{home}/\udcff",
        f"{home}/" + "/" * 3000 + "x",
        f" {home}/made",
        "\n/made",
    ]
    return found


ACCOUNTS: list[Any] = [
    "-A",
    "--uid=0",
    "x --uid=0",
    "x\t--uid=0",
    "x\n#SBATCH --uid=0",
    "x\r#SBATCH --uid=0",
    "{account}",
    "{user}",
    "x,root",
    "x/y",
    "x=y",
    "x%j",
    'x"y',
    "x'y",
    "x\\",
    "x\u2028y",
    "ｘ",
    "x" * 65,
    "no-such-account-at-all",
]

SYSTEMS: list[str] = [
    "testbed/../testbed",
    "testbed/..",
    "../testbed",
    "./testbed",
    "testbed%2f..",
    "testbed%00",
    "testbed\0",
    "testbed\n",
    "testbed ",
    " testbed",
    "TESTBED",
    "testbеd",  # a Cyrillic letter
    "testbed;id",
    "testbed?x=y",
    "testbed#x",
    "test*",
    "_",
    "-testbed",
    "__class__",
    "x" * 64,
    "x" * 65,
]

# JSON values that a field of another kind should not get.
ODD_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**31,
    2**53 + 1,
    2**63,
    10**400,
    1.5,
    1e308,
    [],
    [None],
    [[]],
    {},
    {"a": {}},
    {"$ref": "#"},
    ["x"] * 1000,
]

TOKENS: list[str] = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer x",
    "Bearer a.b.c",
    "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.",
    "Bearer " + "A" * 6000,
    "Bearer ..",
    "Bearer null",
    "Basic cm9vdDpyb290",
    "Digest x",
    "Bearer $(id)",
    "Bearer '; DROP TABLE transfers; --",
]


def bodies(base: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Whole bodies with their content type: no JSON, other JSON, far too much of it, and other formats."""
    good = json.dumps(base).encode()
    as_json = [
        b"",
        b" ",
        b"{",
        b"}",
        b"null",
        b"true",
        b"0",
        b'""',
        b"[]",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"NaN",
        b'{"path": NaN}',
        b"{'path': 'x'}",
        b"\xff\xfe\x00",
        b"\xef\xbb\xbf" + good,
        good.decode().encode("utf-16"),
        good[:-1],
        good + b"x",
        good + good,
        b'{"path": "\\ud800", "fileSize": 1}',
        b'{"path": "\xc0\xae", "fileSize": 1}',
        b'{"__proto__": {"x": 1}, "constructor": {}}',
        b'{"path": "/x", "path": "/etc/passwd"}',
        b"1" * 5000,
        b'{"path": ' + b"9" * 5000 + b"}",
        b'{"x": "' + b"a" * 3_000_000 + b'"}',
    ]
    others = [
        ("text/plain", good),
        ("application/xml", b'<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>'),
        ("application/x-www-form-urlencoded", b"path=/etc/passwd&fileSize=1"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="path"\r\n\r\n/etc/passwd\r\n--x--\r\n',
        ),
        ("application/json; charset=utf-7", good),
        ("application/octet-stream", bytes(range(256))),
        ("\u00e9".encode().decode("latin-1"), good),
    ]
    return [("application/json", body) for body in as_json] + others
