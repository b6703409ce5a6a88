"""What Schemathesis is not to ask, and what it is to be strict about."""

import os

import schemathesis

# Whose requests these are.
ROLE = os.environ["IOWARD_ROLE"]
# Partitions of the embedded machine, whose consoles are streams without end.
RUNNING = ("web", "db")


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Only answers that are documented by their status pass: `default` would allow every one."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("default", None)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Streams without end: events that are followed, and the output of a running console. All else of both routes is asked."""
    query = case.query or {}
    if str(query.get("follow", "")).lower() == "true":
        query["follow"] = False
    path = case.path_parameters or {}
    if case.operation.path.endswith("/console") and case.method.upper() == "GET" and path.get("name") in RUNNING:
        path["name"] = "nobody"


@schemathesis.check
def a_viewer_changes_nothing(context, response, case):
    """What is for others is refused to a viewer, whatever else is wrong with it, and nothing is that is for viewers."""
    if ROLE != "viewer" or case.method.upper() != case.operation.method.upper():
        return
    needed = case.operation.definition.raw["x-role"]
    if needed != "viewer":
        assert response.status_code == 403, f"a viewer asked for what is for an {needed}: {response.status_code}"
    elif response.status_code == 403:
        # Only the options that protect the host are for an administrator.
        assert "the option " in response.json()["detail"], response.text
