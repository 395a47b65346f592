"""FirecREST v2's shapes for users' jobs. Every key is understood in camelCase and snake_case; an empty text is none."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from stagecoach.wire.shapes import Shape

MAX_SCRIPT_LENGTH = 512 * 1024
MAX_VARIABLES = 512
_ONE_LINE = r"^[^\x00-\x1f\x7f]*$"


def _none_when_empty(value: object) -> object:
    return None if value == "" else value


_Line = Annotated[str, Field(max_length=255, pattern=_ONE_LINE)]
Line = Annotated[_Line | None, BeforeValidator(_none_when_empty)]
_PathLine = Annotated[str, Field(max_length=4096, pattern=_ONE_LINE)]
PathLine = Annotated[_PathLine | None, BeforeValidator(_none_when_empty)]
VariableName = Annotated[str, Field(max_length=128, pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
VariableValue = Annotated[str, Field(max_length=32 * 1024, pattern=r"^[^\x00]*$")]
Variables = Annotated[dict[VariableName, VariableValue], Field(max_length=MAX_VARIABLES)]
Assignment = Annotated[str, Field(max_length=33 * 1024, pattern=r"^[A-Za-z_][A-Za-z0-9_]*=[^\x00]*$")]


class JobToSubmit(Shape):
    """A job: its ``script``, or the path of one on the system, and how it runs."""

    working_directory: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")] = Field(
        description="Where it runs; absolute, and there already."
    )
    script: Annotated[str, Field(max_length=MAX_SCRIPT_LENGTH)] | None = Field(
        None, description="The script itself; its first line names the interpreter (#!/bin/bash)."
    )
    script_path: PathLine = Field(None, description="Instead of script: absolute path of one on the system.")
    name: Line = None
    account: Line = None
    partition: Line = None
    reservation: Line = None
    constraints: Line = Field(None, description="Features that the nodes must have, as the scheduler writes them.")
    standard_input: PathLine = None
    standard_output: PathLine = Field(None, description="A path or pattern (%j), relative to workingDirectory.")
    standard_error: PathLine = None
    env: Variables | Annotated[list[Assignment], Field(max_length=MAX_VARIABLES)] | None = Field(
        None,
        description=(
            "Variables of the job, as an object or as a list of NAME=value. Not for secrets: who is on the login node at "
            "that moment may see them."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _one_script(cls, value: Any) -> Any:
        if isinstance(value, dict):
            given = [name for name in ("script", "scriptPath", "script_path") if value.get(name) not in (None, "")]
            if len(given) != 1:
                raise ValueError("give either script or scriptPath")
        return value

    @property
    def variables(self) -> dict[str, str]:
        """``env`` in one form."""
        if isinstance(self.env, list):
            return dict(line.split("=", 1) for line in self.env)
        return self.env or {}


class SubmitRequest(Shape):
    """A job to submit."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"job": {"workingDirectory": "/home/alice", "script": "#!/bin/bash\necho hello\n", "env": {"X": "1"}}},
                {"job": {"workingDirectory": "/home/alice", "scriptPath": "/home/alice/job.sh", "account": "proj"}},
            ]
        }
    )

    job: JobToSubmit


class SubmitAnswer(Shape):
    """The new job."""

    job_id: str


class AttachRequest(Shape):
    """A command to run in a job."""

    command: Annotated[str, Field(min_length=1, max_length=8192, pattern=r"^[^\x00]*$")] = Field(
        description="A shell's command line. It is waited for ten seconds; one that runs longer goes on, unwatched."
    )


class JobPapers(Shape):
    """A job's script and streams; null is what the scheduler does not keep any more."""

    job_id: str
    script: str | None = None
    standard_input: str | None = None
    standard_output: str | None = None
    standard_error: str | None = None


class PapersAnswer(Shape):
    """Of one job."""

    jobs: list[JobPapers]


class JobStatus(Shape):
    """State as FirecREST's client understands it: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED or TIMEOUT."""

    state: str
    state_reason: str | None = None
    exit_code: int | None = None
    interrupt_signal: int | None = None


class JobTime(Shape):
    """Seconds, and times in epoch seconds."""

    elapsed: int | None = None
    start: int | None = None
    end: int | None = None
    suspended: int | None = None
    limit: int | None = None


class JobTask(Shape):
    """A step of a job."""

    id: str
    name: str
    status: JobStatus
    time: JobTime


class Job(Shape):
    """A job."""

    job_id: str
    name: str
    status: JobStatus
    tasks: list[JobTask] | None = None
    time: JobTime
    account: str | None = None
    allocation_nodes: int = 1
    cluster: str
    group: str | None = None
    nodes: str
    partition: str
    kill_request_user: str | None = None
    user: str
    working_directory: str
    priority: int | None = None


class JobsAnswer(Shape):
    """Jobs."""

    jobs: list[Job]
