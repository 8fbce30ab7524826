#!/usr/bin/env python3
"""Another Privicore client, which shares no code with the drive.

It knows the documented API and the wire format of a payload (IV(12), AES-256-GCM
ciphertext, tag(16)) and nothing else: if it can read what the drive wrote, so can any
client that has the key, and what it stores must appear in the drive.

    client.py --api-url URL --ws-url URL --username NAME --password-file FILE COMMAND

    register                                     make the profile and its public key
    store --key-file K --context C --name N [--stream] FILE   prints {"token": ...}
    fetch --key-file K TOKEN OUT                 one token's content
    fetch-parts --key-file K TOKEN OUT           a split file: the list, then its parts
    list                                         every token, as the service lists it
    delete TOKEN
"""

import argparse
import asyncio
import base64
import hashlib
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

# `cryptography` and `websockets` are imported where they are needed: the scripts use
# `register` alone on machines that have neither.

# Wire payloads above this go through the stream server (the service takes about 50 KB).
INLINE_LIMIT = 36_000
# How long any one answer may take.
DEADLINE = 60
KEY_VERSION = bytes.fromhex("31420500")


class Refused(Exception):
    """The service said no."""


def call(method, url, form=None, token=None, body=None):
    """One HTTP call: (status, headers, content). Does not raise for an HTTP error."""
    data = body
    headers = {}
    if form is not None:
        data = urllib.parse.urlencode(form).encode()
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    elif body is not None:
        headers["Content-Type"] = "application/octet-stream"
    if token is not None:
        headers["X-DPT-AUTHORIZATION"] = token
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def checked(reply, what):
    status, headers, content = reply
    if status >= 300:
        raise Refused(f"{what}: HTTP {status}: {content[:200]!r}")
    return headers, content


def command_id(headers, content):
    if headers.get("X-DPT-CAB-ID"):
        return headers["X-DPT-CAB-ID"]
    answer = json.loads(content)
    if isinstance(answer, dict):
        return answer.get("commandId") or answer["X-DPT-CAB-ID"]
    return answer[0] if isinstance(answer, list) else answer


def text_field(content, field):
    """`field` of a JSON object, or the whole of a JSON string."""
    answer = json.loads(content)
    return answer[field] if isinstance(answer, dict) else answer


def seal(key, plain):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    iv = os.urandom(12)
    return iv + AESGCM(key).encrypt(iv, plain, None)


def unseal(key, wire):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).decrypt(wire[:12], wire[12:], None)


def read_key(path):
    with open(path, "rb") as file:
        content = file.read()
    return content if len(content) == 32 else bytes.fromhex(content.decode().strip())


class Vault:
    def __init__(self, api_url, ws_url, username, password):
        self.api = api_url.rstrip("/")
        self.ws_url = ws_url
        self.username, self.password = username, password
        self.token = None
        self.waiting = {}

    def settled(self, headers, content, what):
        """Waits for a command by polling: needs no channel."""
        command = command_id(headers, content)
        for _ in range(DEADLINE * 10):
            status, _, answer = call("GET", f"{self.api}/request-status/{command}", token=self.token)
            if status == 200:
                return
            if status != 202:
                raise Refused(f"{what}: rejected: {answer[:200]!r}")
            time.sleep(0.1)
        raise Refused(f"{what}: not settled in {DEADLINE} s")

    def register(self):
        form = {"username": self.username, "password": self.password}
        self.settled(*checked(call("POST", f"{self.api}/profile/register-profile", form), "register"), "register")
        self.login()
        public = secrets.token_bytes(32)
        checksum = hashlib.blake2b(KEY_VERSION + public).hexdigest()
        form = {"publicKey": KEY_VERSION.hex() + public.hex() + checksum}
        reply = call("POST", f"{self.api}/public-key/register-public-key", form, self.token)
        self.settled(*checked(reply, "public key"), "public key")

    def login(self):
        form = {"username": self.username, "password": self.password}
        _, content = checked(call("POST", f"{self.api}/profile/authenticate", form), "login")
        self.token = json.loads(content)["authorizationToken"]

    async def __aenter__(self):
        import websockets

        self.login()
        self.socket = await websockets.connect(self.ws_url, max_size=None)
        correlation = str(uuid.uuid4())
        data = {"authorizationToken": self.token, "correlationId": correlation}
        await self.socket.send(
            json.dumps({"action": "joinChannel", "correlationId": correlation, "data": data})
        )
        answer = json.loads(await asyncio.wait_for(self.socket.recv(), DEADLINE))
        if answer.get("status") != 200:
            raise Refused(f"join: {answer}")
        self.reader = asyncio.create_task(self.read_channel())
        return self

    async def __aexit__(self, *_):
        self.reader.cancel()
        await self.socket.close()

    async def read_channel(self):
        async for frame in self.socket:
            data = json.loads(frame).get("data") or {}
            kind = data.get("type")
            if kind == "X-DPT-CAB-ID" and data.get("command_status") in (2, 3):
                self.message("command", data["id"], data)
            elif kind == "X-DPT-CAB-REQUEST-ID":
                self.message("request", data["id"], data)

    def message(self, kind, identifier, data):
        future = self.future(kind, identifier)
        if not future.done():
            future.set_result(data)

    def future(self, kind, identifier):
        """The same future whether the reply or the message that names it comes first."""
        return self.waiting.setdefault((kind, identifier), asyncio.get_running_loop().create_future())

    async def post(self, path, form, what):
        return checked(await asyncio.to_thread(call, "POST", self.api + path, form, self.token), what)

    async def command(self, path, form, what):
        """POST, then wait for the acknowledgement on the channel."""
        command = command_id(*await self.post(path, form, what))
        ack = await asyncio.wait_for(self.future("command", command), DEADLINE)
        if ack["command_status"] != 2:
            raise Refused(f"{what}: rejected: {ack.get('body')}")
        return command

    async def store(self, key, context, name, plain, stream):
        command = await self.command(
            "/data-token/reserve-token-space", {"context": context, "ttl": 5}, "reserve"
        )
        url = f"{self.api}/data-token/retrieve-temporary-data-token/{command}"
        _, content = checked(await asyncio.to_thread(call, "GET", url, None, self.token), "temporary token")
        space = json.loads(content)
        wire = seal(key, plain)
        if stream or len(wire) > INLINE_LIMIT:
            reply = await asyncio.to_thread(call, "POST", space["stream"], None, None, wire)
            headers, _ = checked(reply, "upload")
            if headers.get("X-DPT-CAB-ID"):
                await asyncio.wait_for(self.future("command", headers["X-DPT-CAB-ID"]), DEADLINE)
        else:
            form = {"temporaryTokenSpace": space["token"], "data": base64.b64encode(wire).decode()}
            await self.command("/data-token/exchange-data-for-token", form, "exchange")
        form = {
            "token": space["token"],
            "fileName": name,
            "extension": name.rpartition(".")[2] if "." in name else "",
            "context": context,
            "size": len(plain),
            "path": "/",
        }
        _, content = await self.post("/data-token/configure-file-meta", form, "file meta")
        return text_field(content, "token")

    async def fetch_wire(self, token):
        headers, _ = await self.post("/data-token/request-data", {"token": token}, "request data")
        data = await asyncio.wait_for(self.future("request", headers["X-DPT-CAB-REQUEST-ID"]), DEADLINE)
        if data["output_type"] == 0:
            return base64.b64decode(data["body"])
        return checked(await asyncio.to_thread(call, "GET", data["body"]), "download")[1]

    async def fetch(self, key, token):
        return unseal(key, await self.fetch_wire(token))

    async def fetch_parts(self, key, token):
        whole = json.loads(await self.fetch(key, token))
        if whole["privicorefs"] != "parts" or whole["version"] != 2:
            raise Refused(f"not a part list of version 2: {whole}")
        content = bytearray()
        for part in whole["parts"]:
            # Without a token: a part of zeros, which is not stored.
            zeros = min(whole["part_size"], whole["size"] - len(content))
            content += await self.fetch(key, part) if part else bytes(zeros)
        if len(content) != whole["size"]:
            raise Refused(f"the parts hold {len(content)} bytes, the list says {whole['size']}")
        return bytes(content)

    def list(self):
        found, page = {}, 1
        while True:
            query = urllib.parse.urlencode({"page": page, "perPage": 100})
            url = f"{self.api}/data-token/list-data-tokens?{query}"
            answer = json.loads(checked(call("GET", url, token=self.token), "list")[1])
            items = answer["items"] if isinstance(answer, dict) else answer
            fresh = [item for item in items if item["token"] not in found]
            found.update((item["token"], item) for item in fresh)
            if not fresh:
                return list(found.values())
            page += 1


def write_out(path, content):
    with open(path, "wb") as file:
        file.write(content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


async def perform(vault, options):
    if options.command == "register":
        vault.register()
        return {"username": vault.username}
    if options.command == "list":
        vault.login()
        return vault.list()
    async with vault:
        if options.command == "delete":
            await vault.command("/data-token/delete-data", {"token": options.token}, "delete")
            return {"deleted": options.token}
        key = read_key(options.key_file)
        if options.command == "store":
            with open(options.file, "rb") as file:
                plain = file.read()
            token = await vault.store(key, options.context, options.name, plain, options.stream)
            return {"token": token}
        if options.command == "fetch":
            return write_out(options.out, await vault.fetch(key, options.token))
        return write_out(options.out, await vault.fetch_parts(key, options.token))


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("--api-url", "--ws-url", "--username", "--password-file"):
        parser.add_argument(name, required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("register")
    commands.add_parser("list")
    commands.add_parser("delete").add_argument("token")
    store = commands.add_parser("store")
    store.add_argument("--key-file", required=True)
    store.add_argument("--context", required=True)
    store.add_argument("--name", required=True)
    store.add_argument("--stream", action="store_true")
    store.add_argument("file")
    for name in ("fetch", "fetch-parts"):
        fetch = commands.add_parser(name)
        fetch.add_argument("--key-file", required=True)
        fetch.add_argument("token")
        fetch.add_argument("out")
    return parser.parse_args(arguments)


def main():
    options = parse(sys.argv[1:])
    with open(options.password_file) as file:
        password = file.read().rstrip("\n")
    vault = Vault(options.api_url, options.ws_url, options.username, password)
    try:
        print(json.dumps(asyncio.run(perform(vault, options))))
    except (Refused, OSError, KeyError, ValueError, asyncio.TimeoutError) as error:
        sys.exit(f"client.py: {options.command}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
