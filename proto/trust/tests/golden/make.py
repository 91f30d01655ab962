"""Makes trust-bundle.note independently of our code: JCS by json.dumps, Ed25519 by the `cryptography` package.

Run here: `python3 make.py > trust-bundle.note`; prints the bundle's digest to stderr.
"""
import base64, hashlib, json, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

LABEL = b"lianxin/trust-bundle/v1"
bundle = {
    "format": 1,
    "version": 7,
    "issued": 1_800_000_000_000_000,
    "expires": 1_800_604_800_000_000,
    "predecessor": "ab" * 32,
    "departments": [
        {"id": "jiwei", "name": "纪委监委", "authorities": [base64.b64encode(b"certificate one").decode()],
         "witness_keys": ["01" * 32], "issuer_keys": []},
        {"id": "shenji", "name": "审计局", "authorities": [], "witness_keys": [], "issuer_keys": ["02" * 32, "03" * 32]},
    ],
    "zones": [
        {"id": "cn-zj-1", "department": "jiwei", "endpoints": [{"host": "gw.example", "port": 7443}],
         "removal_key": "04" * 32, "promise_key": "05" * 32, "log_key": "06" * 32},
    ],
}
text = json.dumps(bundle, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
message = LABEL + b"\0" + text
note = text + b"\n"
for name, seed in ((b"root-1", 1), (b"root-2", 2)):
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    key_hash = hashlib.sha256(name + b"\n\xff" + LABEL + public).digest()[:4]
    note += "— ".encode() + name + b" " + base64.b64encode(key_hash + key.sign(message)) + b"\n"
sys.stdout.buffer.write(note)
print(hashlib.sha256(message).hexdigest(), file=sys.stderr)
