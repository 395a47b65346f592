"""FirecREST's clusters as our systems."""

from __future__ import annotations

import re

from stagecoach.firecrest_settings.credentials import Credentials
from stagecoach.firecrest_settings.directives import NoOption, options_of
from stagecoach.firecrest_settings.reading import Theirs, wrong
from stagecoach.firecrest_settings.writing import Ours

JWT_KEY_FILE = "/etc/stagecoach/slurm-jwt-key"

# It loads, says what it is, and is nobody's: its 32 bytes are this sentence in base64.
NO_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA" + "REPLACE/BY/WHAT/ssh/keyscan/PRINTS/CHECKED"


def convert_system(theirs: Theirs, number: int, ours: Ours, credentials: Credentials) -> bool:
    """``clusters[…]`` into ``systems[number]``. False where it cannot be one; nothing is put then."""
    scheduler = theirs.section("scheduler")
    kind = "slurm" if scheduler is None else (scheduler.text("type") or "slurm").lower()
    if kind != "slurm":
        theirs.leave_whole(f"its scheduler is {kind}; Stagecoach has Slurm only")
        return False
    path = f"systems.{number}"
    _put_name(theirs, path, ours)
    ssh = theirs.section("ssh")
    if ssh is None:
        raise wrong(theirs.at("ssh"), "is missing")
    _put_way_in(ssh, f"{path}.ssh", ours)
    credentials.put(ours, f"{path}.ssh.credentials")
    ours.put(f"{path}.scheduler.kind", kind)
    if scheduler is not None:
        _put_scheduler(scheduler, f"{path}.scheduler", ours)
    theirs.leave("service_account", "nothing is asked with a client's secret; a user can be named instead: probing.ask_as")
    _put_probing(theirs, f"{path}.probing", ours)
    theirs.leave("services_health", "is what FirecREST found, no setting")
    theirs.leave("last_health_check", "is what FirecREST found, no setting")
    _put_file_systems(theirs, path, ours)
    return True


def _put_name(theirs: Theirs, path: str, ours: Ours) -> None:
    said = theirs.text("name")
    if said is None:
        raise wrong(theirs.at("name"), "is missing")
    name = re.sub(r"[^a-z0-9_-]", "-", said.lower()).lstrip("_-")[:63]
    ours.put(f"{path}.name", name, theirs.at("name"))
    if name != said.lower():
        ours.check(f"{path}.name", "FirecREST's name cannot stand in a URL here; clients must be told the new one.")
        theirs.record.leave(theirs.at("name"), f"became {name}")


def _put_way_in(theirs: Theirs, path: str, ours: Ours) -> None:
    host, port = theirs.text("host"), theirs.number("port")
    if host is None:
        raise wrong(theirs.at("host"), "is missing")
    ours.put(f"{path}.host", host, theirs.at("host"))
    ours.put(f"{path}.port", port, theirs.at("port"))
    _put_host_keys(f"{path}.host_keys", host, port, ours)
    gateway, gateway_port = theirs.text("proxy_host"), theirs.number("proxy_port")
    if gateway is not None:
        ours.put(f"{path}.proxy_jump.host", gateway, theirs.at("proxy_host"))
        ours.put(f"{path}.proxy_jump.port", gateway_port, theirs.at("proxy_port"))
        _put_host_keys(f"{path}.proxy_jump.host_keys", gateway, gateway_port, ours)
    elif gateway_port is not None:
        theirs.record.leave(theirs.at("proxy_port"), "there is no proxy_host")
    ours.put(f"{path}.max_connections", theirs.number("max_clients"), theirs.at("max_clients"))
    timeout = theirs.section("timeout")
    if timeout is None:
        return
    waits = [timeout.number("connection"), timeout.number("login")]
    if any(seconds is not None for seconds in waits):
        # FirecREST's own 5 for the one that is not said.
        together = sum(5 if seconds is None else seconds for seconds in waits)
        ours.put(f"{path}.connect_timeout_seconds", together, timeout.at("connection"))
    command = timeout.number("command_execution")
    ours.put(f"{path}.command_timeout_seconds", command, timeout.at("command_execution"))
    if command is not None and command < 20:
        ours.remark(f"{path}.command_timeout_seconds", "As FirecREST's; 20 is Stagecoach's own, for large directories.")
    ours.put(f"{path}.idle_timeout_seconds", timeout.number("idle_timeout"), timeout.at("idle_timeout"))
    ours.put(f"{path}.keepalive_seconds", timeout.number("keep_alive"), timeout.at("keep_alive"))


def _put_host_keys(path: str, host: str, port: float | None, ours: Ours) -> None:
    ours.put(path, [NO_HOST_KEY])
    option = "" if port in (None, 22) else f"-p {port} "
    ours.check(
        path,
        f"FirecREST looks at no host key; Stagecoach goes in only where it knows one. ssh-keyscan -t ed25519 {option}{host} "
        "prints it; compare it with what the site publishes. This one is nobody's.",
    )


def _put_scheduler(theirs: Theirs, path: str, ours: Ours) -> None:
    theirs.leave("version", "Slurm is asked in a way that all its versions understand")
    mode = (theirs.text("connection_mode") or "ssh").lower()
    url, version = theirs.text("api_url"), theirs.text("api_version")
    if mode == "ssh" or url is None:
        for name in ("api_url", "api_version", "timeout"):
            theirs.leave(name, "is for slurmrestd, which FirecREST asks with connection_mode rest or hybrid only")
        return
    rest = f"{path}.rest"
    ours.put(f"{rest}.url", url, theirs.at("api_url"))
    if version is not None:
        ours.put(f"{rest}.api_version", f"v{version.removeprefix('v')}", theirs.at("api_version"))
    ours.put(f"{rest}.jwt_key_file", JWT_KEY_FILE)
    ours.check(
        f"{rest}.jwt_key_file",
        "FirecREST shows slurmrestd the user's own token; Stagecoach passes none on, and needs Slurm's jwt_key. Without it "
        "take this section out: Slurm's commands over SSH do the same.",
    )
    ours.put(f"{rest}.timeout_seconds", theirs.number("timeout"), theirs.at("timeout"))


def _put_probing(theirs: Theirs, path: str, ours: Ours) -> None:
    for name in ("probing", "probing_services"):
        probing = theirs.section(name)
        if probing is None:
            continue
        probing.leave("startup_grace_period", "looks begin with the service, and three must fail before it counts")
        for interval in ("interval_check", "interval"):
            ours.put(f"{path}.interval_seconds", probing.number(interval), probing.at(interval))
        timeouts = [(probing.number("timeout"), probing.at("timeout"))]
        if (services := probing.section("services")) is not None:
            timeouts += [(one.number("timeout"), one.at("timeout")) for _, one in services.each()]
        said = [(seconds, place) for seconds, place in timeouts if seconds is not None]
        if said:
            ours.put(f"{path}.timeout_seconds", *max(said))


def _put_file_systems(theirs: Theirs, path: str, ours: Ours) -> None:
    file_systems = theirs.sections("file_systems")
    if not file_systems:
        ours.put(f"{path}.file_systems.0.path", "/home/{user}")
        ours.check(f"{path}.file_systems", "FirecREST's file names none; nothing outside of these is ever read or written.")
        return
    ours.remark(f"{path}.file_systems", "FirecREST only watches these; here nothing outside of them is ever read or written.")
    for number, one in enumerate(file_systems):
        where = one.text("path")
        ours.put(f"{path}.file_systems.{number}.path", where, one.at("path"))
        ours.put(f"{path}.file_systems.{number}.data_type", one.text("data_type"), one.at("data_type"))
        if one.is_true("default_work_dir") and where is not None:
            ours.put(f"{path}.file_systems.{number}.default_work_directory", True, one.at("default_work_dir"))
            ours.put(f"{path}.work_directory", f"{where.rstrip('/')}/{{user}}/.stagecoach", one.at("default_work_dir"))


def convert_directives(theirs: Theirs, path: str, ours: Ours) -> None:
    """``datatransfer_jobs_directives``, of the cluster or of its ``data_operation``, into the system's directives."""
    lines = theirs.take("datatransfer_jobs_directives")
    if lines is None:
        return
    place = theirs.at("datatransfer_jobs_directives")
    if not isinstance(lines, list):
        raise wrong(place, "must be a list")
    options: list[str] = []
    for number, line in enumerate(str(one) for one in lines):
        try:
            options += options_of(line)
        except NoOption as refusal:
            theirs.record.leave(f"{place}[{number}]", str(refusal))
    if options:
        ours.put(f"{path}.directives", options, place)
