"""The legacy signature as Python's own library makes it: sign SECRET, or verify SECRET SIGNATURE, of standard input."""

import hashlib
import hmac
import sys

verb, secret = sys.argv[1:3]
expected = hmac.new(secret.encode(), sys.stdin.buffer.read(), hashlib.sha256).hexdigest()
if verb == "sign":
    print(expected, end="")
elif not hmac.compare_digest(expected, sys.argv[3]):
    sys.exit(f"hmac gives {expected}, the header holds {sys.argv[3]}")
