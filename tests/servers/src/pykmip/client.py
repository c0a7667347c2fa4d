"""PyKMIP's own client, one command a run: client.py PORT CERTIFICATE KEY AUTHORITY COMMAND ARGUMENT…"""

import sys

from kmip.core import enums
from kmip.core.attributes import Name
from kmip.core.factories.attributes import AttributeFactory
from kmip.pie import objects
from kmip.pie.client import ProxyKmipClient
from kmip.pie.exceptions import KmipOperationFailure


def located(client, name):
    name = Name.create(name, enums.NameType.UNINTERPRETED_TEXT_STRING)
    named = AttributeFactory().create_attribute(enums.AttributeType.NAME, name)
    return client.locate(attributes=[named])


def register(client, kind, name, value, policy=None):
    value = bytes.fromhex(value)
    if kind == "secret":
        made = objects.SecretData(
            value, enums.SecretDataType.PASSWORD,
            [enums.CryptographicUsageMask.VERIFY], name=name,
        )
    elif kind == "key":
        made = objects.SymmetricKey(
            enums.CryptographicAlgorithm.AES, len(value) * 8, value,
            [enums.CryptographicUsageMask.ENCRYPT], name=name,
        )
    else:
        made = objects.OpaqueObject(value, enums.OpaqueDataType.NONE, name=name)
    if policy:
        made.operation_policy_name = policy
    try:
        print(client.register(made))
    except KmipOperationFailure as refusal:
        print(refusal.reason.name)


def get(client, name):
    for uid in located(client, name):
        found = client.get(uid)
        print(type(found).__name__, found.value.hex())


def count(client, name):
    print(len(located(client, name)))


def everything(client):
    print(len(client.locate()))


def activate(client, name):
    for uid in located(client, name):
        client.activate(uid)


def destroy(client, name):
    for uid in located(client, name):
        try:
            client.destroy(uid)
            print("destroyed")
        except KmipOperationFailure as refusal:
            print(refusal.reason.name)


COMMANDS = {
    "register": register,
    "get": get,
    "count": count,
    "everything": everything,
    "activate": activate,
    "destroy": destroy,
}

port, certificate, key, authority, command, *arguments = sys.argv[1:]
with ProxyKmipClient(
    hostname="127.0.0.1", port=int(port), cert=certificate, key=key, ca=authority,
    ssl_version="PROTOCOL_TLSv1_2",
) as client:
    COMMANDS[command](client, *arguments)
