"""PyJWT, with the protocol of serve-verifier.ts. libfaketime moves the clock of this process."""

import json
import os
import sys

import jwt

ALGORITHMS = ["EdDSA", "ES256", "RS256"]


def set_clock(ahead_ms):
    with open(os.environ["FAKETIME_TIMESTAMP_FILE"], "w") as file:
        file.write(f"+{ahead_ms // 1000}s")


def reason_of(client, token, trusted):
    try:
        key = client.get_signing_key_from_jwt(token)
        jwt.decode(token, key.key, algorithms=ALGORITHMS, **trusted)
        return ""
    except jwt.PyJWTError as error:
        return f"{type(error).__name__}: {error}"


clients = {}
for line in sys.stdin:
    batch = json.loads(line)
    set_clock(batch["aheadMs"])
    issuer = batch["issuer"]
    if issuer not in clients:
        clients[issuer] = jwt.PyJWKClient(f"{issuer}/jwks.json")
    trusted = {"issuer": issuer, "audience": batch["audience"]}
    reasons = [reason_of(clients[issuer], token, trusted) for token in batch["tokens"]]
    print(json.dumps(reasons), flush=True)
