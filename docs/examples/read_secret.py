#!/usr/bin/env python3
"""Reads a secret from a key service: read_secret.py HOST:PORT CA CERTIFICATE KEY SCOPE/NAME

Written from the interface's description, /v1/openapi.json, alone. Needs: pip install cryptography pyhpke
"""
import base64, hashlib, http.client, json, os, ssl, sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyhpke import AEADId, CipherSuite, KDFId, KEMId

host, ca, certificate, key, secret = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca)
tls.load_cert_chain(certificate, key)
wire = http.client.HTTPSConnection(host, context=tls, timeout=10)

suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.EXPORT_ONLY)
pair = suite.kem.derive_key_pair(os.urandom(32))
public = base64.b64encode(pair.public_key.to_public_bytes()).decode()
nonce = base64.b64encode(os.urandom(16)).decode()
body = {"key": public, "nonce": nonce, "items": [{"secret": secret}]}
wire.request("POST", "/v1/secrets/read", json.dumps(body), {"content-type": "application/json"})
answer = json.load(wire.getresponse())
item = answer["items"][0] if "items" in answer else {"problem": answer}
if "problem" in item:
    sys.exit(f"{item['problem']['title']}: {item['problem']['detail']}")

enc, salt, value = (base64.b64decode(text) for text in (answer["enc"], answer["salt"], item["value"]))
context = suite.create_recipient_context(enc, pair.private_key, info=b"keyhaul v1")
message_key = context.export(b"keyhaul v1 read " + salt, 32)
client = hashlib.sha256(ssl.PEM_cert_to_DER_cert(open(certificate).read())).hexdigest()
bound = "\n".join(["keyhaul v1 read", client, nonce, "0", secret, "", ""])
sys.stdout.buffer.write(AESGCM(message_key).decrypt(bytes(12), value, bound.encode()))
