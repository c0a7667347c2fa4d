"""Runs PyKMIP's server. Its helper processes, which it leaves behind when it is killed, die with it.

PYKMIP_RULES names rules of the standard that PyKMIP does not keep of itself: see KmipRule in mod.rs. And
it looks at all of its objects faster, which it does to find one."""

import ctypes
import multiprocessing
import os
import signal

import sqlalchemy.orm
from kmip.core import enums, exceptions
from kmip.core.messages import payloads
from kmip.pie import objects
from kmip.services.server.engine import KmipEngine
from kmip.services.server.server import main

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)
rules = os.environ.get("PYKMIP_RULES", "")
APPLICATION = "Application Specific Information"


def rule(name, operation):
    """Has a function called before the operation: what it returns is the answer, where it is one."""
    plain = getattr(KmipEngine, operation)

    def decorate(check):
        def checked(engine, payload):
            answer = check(engine, payload)
            return plain(engine, payload) if answer is None else answer

        if name in rules:
            setattr(KmipEngine, operation, checked)

    return decorate


def is_destroyed(found):
    return getattr(found, "state", None) == enums.State.DESTROYED


def everything(engine):
    """All objects with what they are found by, in four queries and not in one for each object."""
    kind = objects.ManagedObject
    found = [kind._names, kind.app_specific_info, kind.object_groups]
    query = engine._data_session.query(kind)
    return query.options(*map(sqlalchemy.orm.selectinload, found)).all()


listed = KmipEngine._list_objects_with_access_controls


def list_objects(engine, operation):
    # Its own query hands out those that are loaded already, as long as somebody holds them.
    loaded = everything(engine)
    found = listed(engine, operation)
    del loaded
    return found


KmipEngine._list_objects_with_access_controls = list_objects


def unused(engine, attributes):
    names = {
        attribute.attribute_value.name_value.value
        for attribute in attributes
        if attribute.attribute_name.value == "Name"
    }
    for found in everything(engine):
        if names & set(found.names):
            raise exceptions.InvalidField("the name is taken")


@rule("UniqueNames", "_process_register")
def register(engine, payload):
    unused(engine, payload.template_attribute.attributes)


@rule("UniqueNames", "_process_modify_attribute")
def modify(engine, payload):
    unused(engine, [payload.attribute])


@rule("NoSearch", "_process_locate")
def locate(engine, payload):
    for attribute in payload.attributes:
        if attribute.attribute_name.value == APPLICATION:
            raise exceptions.InvalidField("nothing is found by that")


@rule("DestroyedStay", "_process_get")
def get(engine, payload):
    found = engine._get_object_with_access_controls(
        payload.unique_identifier, enums.Operation.GET
    )
    if is_destroyed(found):
        raise exceptions.IllegalOperation("it was destroyed")


@rule("DestroyedStay", "_process_destroy")
def destroy(engine, payload):
    found = engine._get_object_with_access_controls(
        payload.unique_identifier.value, enums.Operation.DESTROY
    )
    state = getattr(found, "state", None)
    if is_destroyed(found):
        raise exceptions.PermissionDenied("it was destroyed already")
    if state not in (None, enums.State.ACTIVE):
        found.state = enums.State.DESTROYED
        found.value = b""
        engine._data_session.commit()
        return payloads.DestroyResponsePayload(unique_identifier=payload.unique_identifier)


multiprocessing.set_start_method("fork")
os.register_at_fork(
    after_in_child=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
)
main()
