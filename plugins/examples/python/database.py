#!/usr/bin/env python3
"""A keyhaul plugin: keeps secrets in an SQLite database, whose path `args` names.

It keeps every version, labels and expiry, answers batches and lists. Nothing but Python's own library.
"""
import base64
import calendar
import json
import os
import sqlite3
import sys
import time

TABLES = """
CREATE TABLE IF NOT EXISTS versions (
    version INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, not even after a delete
    path TEXT NOT NULL, value BLOB NOT NULL, created TEXT NOT NULL,
    expires TEXT, labels TEXT NOT NULL, idempotency TEXT);
CREATE INDEX IF NOT EXISTS paths ON versions (path, version);
"""


class Refusal(Exception):
    """Carries the kind and the message of an error."""


def main():
    os.umask(0o077)
    database = sqlite3.connect(sys.argv[1], isolation_level=None)
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA secure_delete = ON")
    database.executescript(TABLES)
    sys.stdin.readline()  # keyhaul's hello: nothing in it is needed, and a version is keyhaul's to refuse
    say(keyhaul=1, name="database", version="1.0", batch=100, **{"max-value": 262144}, capabilities=[
        "read", "write", "create", "update", "delete", "list", "versions", "labels", "expiry", "idempotent"])
    for line in sys.stdin:
        request = json.loads(line)
        if "do" not in request:
            continue  # nobody waits for an answer any more, and it is given by now
        answer(Store(database), request)


def say(**words):
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def answer(store, request):
    if request["do"] == "get-many":
        for index, path in enumerate(request["paths"]):
            say(id=request["id"], index=index, **outcome(store.get, {**request, "path": path}))
        return
    operation = getattr(store, request["do"], None)
    say(id=request["id"], **outcome(operation or store.unknown, request))


def outcome(operation, request):
    try:
        return operation(request)
    except Refusal as refusal:
        kind, message = refusal.args
        return {"error": {"kind": kind, "message": message}}
    except sqlite3.Error as error:
        full = "full" in str(error)
        return {"error": {"kind": "storage-full" if full else "unavailable", "message": str(error)}}


class Store:
    def __init__(self, database):
        self.database = database

    def probe(self, request):
        self.database.execute("SELECT 1 FROM versions LIMIT 1")
        return {}

    def unknown(self, request):
        raise Refusal("unsupported", "no such request")

    def get(self, request):
        row = self.find(request)
        if row["expires"] and seconds(row["expires"]) <= time.time() and not request.get("expired"):
            raise Refusal("not-found", "the secret has expired")
        return {"base64": base64.b64encode(row["value"]).decode(), "metadata": metadata(row)}

    def stat(self, request):
        return {"metadata": metadata(self.find(request))}

    def put(self, request):
        path, mode, key = request["path"], request["mode"], request.get("idempotency")
        with Transaction(self.database):
            again = key and self.one("path = ? AND idempotency = ?", path, key)
            if again:
                return {"metadata": metadata(again)}
            current = self.one("path = ?", path)
            if mode == "create" and current:
                raise Refusal("already-exists", "there is such a secret")
            if mode == "update" and not current:
                raise Refusal("not-found", "no such secret")
            if mode == "update" and str(current["version"]) != request["version"]:
                raise Refusal("conflict", "the version given is not the current one")
            self.database.execute(
                "INSERT INTO versions (path, value, created, expires, labels, idempotency) VALUES (?, ?, ?, ?, ?, ?)",
                (path, base64.b64decode(request["base64"]), now(), request.get("expires"),
                 json.dumps(request.get("labels", {})), key))
            return {"metadata": metadata(self.one("path = ?", path))}

    def delete(self, request):
        with Transaction(self.database):
            current = self.one("path = ?", request["path"])
            if current and request.get("version") not in (None, str(current["version"])):
                raise Refusal("conflict", "the version given is not the current one")
            self.database.execute("DELETE FROM versions WHERE path = ?", (request["path"],))
        return {}

    def list(self, request):
        prefix = request["prefix"] + "/" if request["prefix"] else ""
        # Text is compared by its bytes; `0` is what follows `/`.
        rows = self.database.execute(
            "SELECT DISTINCT path FROM versions WHERE ? = '' OR (path >= ? AND path < ?)",
            (prefix, prefix, prefix[:-1] + "0"))
        entries = set()
        for (path,) in rows:
            head, slash, _ = path[len(prefix):].partition("/")
            if not request.get("shallow"):
                entries.add((path.encode(), "secret"))
            else:
                entries.add(((prefix + head).encode(), "folder" if slash else "secret"))
        last = request.get("after")
        after = cursor(last) if last else (b"", "")
        left = sorted(entry for entry in entries if entry > after)
        page, more = left[:request["limit"]], left[request["limit"]:]
        found = {kind + "s": [path.decode() for path, k in page if k == kind] for kind in ("secret", "folder")}
        if more:
            path, kind = page[-1]
            found["next"] = kind + ":" + path.decode()
        return found

    def find(self, request):
        path, version = request["path"], request.get("version")
        found = self.one("path = ? AND version = ?", path, version) if version else self.one("path = ?", path)
        if not found:
            raise Refusal("not-found", "no such secret, or not in this version")
        return found

    def one(self, condition, *values):
        """The latest version that fits, as a mapping."""
        rows = self.database.cursor()
        rows.row_factory = sqlite3.Row
        return rows.execute(
            f"SELECT * FROM versions WHERE {condition} ORDER BY version DESC LIMIT 1", values).fetchone()


class Transaction:
    """Whole or not at all, also where other processes write."""

    def __init__(self, database):
        self.database = database

    def __enter__(self):
        self.database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind, *_):
        self.database.execute("ROLLBACK" if kind else "COMMIT")


def metadata(row):
    known = {"version": str(row["version"]), "created": row["created"], "labels": json.loads(row["labels"])}
    if row["expires"]:
        known["expires"] = row["expires"]
    return known


def cursor(text):
    kind, colon, path = text.partition(":")
    if kind not in ("secret", "folder") or not colon:
        raise Refusal("invalid-reference", "the page begins after what is no cursor")
    return path.encode(), kind


def seconds(text):
    """The time of a text such as 2026-01-31T12:00:00.25Z."""
    whole, fraction = text[:19], text[19:].rstrip("Z")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0" + fraction)


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


if __name__ == "__main__":
    main()
