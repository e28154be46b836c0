"""The table of all commands: it feeds the parser, the man pages, the completions, docs/cli.md and the tests.

A command is one line here and one module beside it with `add_arguments(parser)` and `run(context) -> int`
(docs/development.md, "Adding a command"). Nothing is imported until its command is typed.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """One command: the words to type, the module under scitq.commands that does it, and one line of help."""

    path: tuple[str, ...]
    module: str
    help: str


def _command(words: str, help_text: str, module: str = "") -> Command:
    return Command(tuple(words.split()), module or words.replace(" ", "_"), help_text)


GROUPS: dict[tuple[str, ...], str] = {
    (): "Hands Unix command lines to machines: a distributed task queue.",
    ("task",): "Create tasks and follow them.",
    ("workflow",): "Steps that follow each other, from a file or by hand.",
    ("step",): "Work groups of tasks and workers within a workflow.",
    ("worker",): "The machines that carry tasks out.",
    ("flavor",): "The kinds of machines that providers offer.",
    ("provider",): "Where machines come from: this host, Slurm, clouds.",
    ("recruiter",): "What brings workers to steps, and sends them away.",
    ("job",): "Slow operations on providers.",
    ("worker", "cache"): "The shared resources that a worker keeps.",
    ("file",): "Files on the storages, without holding their secrets.",
    ("user",): "Who may log in.",
    ("user", "token"): "Tokens, for example for cron.",
    ("config",): "The server's configuration file.",
    ("db",): "The server's database.",
}
"""The words that are followed by another word, with their help."""

COMMANDS: tuple[Command, ...] = (
    # The session
    _command("login", "Log in: the token alone goes to stdout, for SCITQ_TOKEN=$(scitq login)."),
    _command("logout", "Revoke the token in use, or all of one's tokens."),
    _command("ping", "Tell whether the server answers, in which version and how fast, and who one is there."),
    _command("version", "Show the version; with --verbose, the libraries too."),
    # Tasks
    _command("task create", "Create a task, an array of tasks, or all tasks of a file."),
    _command("task list", "List tasks, newest first."),
    _command("task show", "Show all that is known of tasks."),
    _command("task output", "Print what a task wrote."),
    _command("task retry", "Hide failed tasks and create them anew."),
    _command("task cancel", "Take tasks back; those that run already are killed and end as failed.", "task_act"),
    _command("task kill", "Kill running tasks at once; their output is still uploaded.", "task_act"),
    _command("task stop", "Ask running tasks to end (SIGTERM, then SIGKILL after a grace).", "task_act"),
    _command("task suspend", "Hold tasks back; those that run are frozen.", "task_act"),
    _command("task resume", "Let suspended tasks go on.", "task_act"),
    _command("task upload", "Try the upload of failed tasks again, from the files that their workers kept.", "task_act"),
    _command("task wait", "Wait until tasks have ended; the exit status says how."),
    _command("task explain", "Say why a task is not running."),
    _command("task edit", "Change tasks that no worker has yet."),
    _command("task delete", "Remove ended tasks with their logs."),
    # Workflows and steps
    _command("workflow run", "Make a whole workflow from a file, or go on with it."),
    _command("workflow create", "Create an open workflow; its tasks wait until it is finalized."),
    _command("workflow list", "List workflows, newest first."),
    _command("workflow show", "Show a workflow and its steps."),
    _command("workflow finalize", "Let the tasks of an open workflow start.", "workflow_act"),
    _command("workflow suspend", "Hold back all tasks of a workflow; those that run are frozen.", "workflow_act"),
    _command("workflow resume", "Let a suspended workflow go on.", "workflow_act"),
    _command("workflow cancel", "Take back all tasks of a workflow; those that run are killed.", "workflow_act"),
    _command("workflow wait", "Wait until nothing of a workflow can go on; the exit status says how it went."),
    _command("workflow update", "Change a workflow's name, or how many workers it may have."),
    _command("workflow delete", "Delete a workflow that is over, with its steps, tasks and logs."),
    _command("step create", "Create a step in a workflow."),
    _command("step list", "List steps."),
    _command("step show", "Show a step."),
    _command("step stats", "Show what the tasks of steps took: time, CPU, memory, transfers."),
    _command("step retry", "Retry all failed tasks of a step.", "step_act"),
    _command("step pause", "Give no more tasks of a step to workers.", "step_act"),
    _command("step resume", "Give a paused step's tasks to workers again.", "step_act"),
    _command("step update", "Change how often a step's tasks are tried again."),
    _command("step delete", "Delete a step whose tasks have ended, with them and their logs."),
    # Workers
    _command("worker list", "List the workers."),
    _command("worker show", "Show all that is known of workers."),
    _command("worker stats", "Show the live use of CPU, memory, disk and network of workers."),
    _command("worker events", "List what happened to workers, newest first."),
    _command("worker update", "Change workers while they work."),
    _command("worker drain", "Give workers no new tasks.", "worker_act"),
    _command("worker resume", "Give drained workers tasks again.", "worker_act"),
    _command("worker delete", "Delete workers; tasks that run on them are interrupted.", "worker_act"),
    _command("worker deploy", "Have machines made by a provider."),
    _command("worker cache list", "List the shared resources that a worker keeps.", "worker_cache"),
    _command("worker cache clear", "Remove the shared resources that no task of a worker uses.", "worker_cache"),
    # Files
    _command("file copy", "Copy files between this machine and the storages, or among storages."),
    _command("file list", "List the files of a storage, with sizes and dates."),
    _command("file delete", "Delete files of a storage."),
    _command("file check", "Tell whether the server, and workers, can reach a URI."),
    # The fleet
    _command("flavor list", "List kinds of machines, the cheapest first."),
    _command("provider list", "List the providers and how their catalogues stand."),
    _command("provider check", "Ask a provider whether it answers.", "provider_act"),
    _command("provider update", "Read a provider's catalogue now.", "provider_act"),
    _command("provider flavor-disable", "Keep a flavor from use (for administrators).", "provider_flavor"),
    _command("provider flavor-enable", "Let a flavor be used again (for administrators).", "provider_flavor"),
    _command("provider quota", "Show the limits on providers, or set one (for administrators)."),
    _command("recruiter create", "Have workers come to a step when there is work."),
    _command("recruiter list", "List the recruiters."),
    _command("recruiter show", "Show recruiters by id.", "recruiter_list"),
    _command("recruiter update", "Change a recruiter."),
    _command("recruiter delete", "Remove recruiters."),
    _command("recruiter explain", "Say what a recruiter is doing, and why."),
    _command("recruiter simulate", "Tell what a workload would take and cost, in simulated time."),
    _command("job list", "List operations on providers, newest first."),
    _command("job retry", "Try operations on providers again now.", "job_act"),
    _command("job delete", "Give operations on providers up.", "job_act"),
    # Users
    _command("user create", "Create a user (for administrators)."),
    _command("user list", "List the users."),
    _command("user update", "Make a user an administrator, or an ordinary user again (for administrators)."),
    _command("user delete", "Delete a user; live tokens die at once (for administrators)."),
    _command("user change-password", "Change one's password, or as an administrator anybody's.", "user_change_password"),
    _command("user token create", "Create a further token, for example for cron."),
    _command("user token list", "List live tokens."),
    _command("user token revoke", "End a token by its id."),
    # The server and this machine
    _command("serve", "Run the server."),
    _command("agent", "Run a worker on this machine."),
    _command("status", "Show how the server is."),
    _command("stop", "End the server (for administrators)."),
    _command("top", "Watch queue, workers and running tasks in the terminal."),
    _command("doctor", "Check this machine for what servers and workers need."),
    _command("config init", "Write a commented scitq.yaml with fresh secrets."),
    _command("hashpassword", "Hash a password for scitq.yaml."),
    _command("db backup", "Copy the database while it is in use (for administrators)."),
    _command("completion", "Print the completion script for a shell."),
)


def find(path: tuple[str, ...]) -> Command | None:
    """The command with these words, None when they are none."""
    return next((command for command in COMMANDS if command.path == path), None)


def children(path: tuple[str, ...]) -> dict[str, str]:
    """The words that may follow `path`, each with its help, in the order of the table."""
    found: dict[str, str] = {}
    for command in COMMANDS:
        if command.path[: len(path)] == path and len(command.path) > len(path):
            word = command.path[len(path)]
            found.setdefault(word, GROUPS.get((*path, word), command.help))
    return found
