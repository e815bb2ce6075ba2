"""Reads what `go test -json` says: shows packages, failures and why tests were skipped; writes the count to a file."""

import json
import sys
from collections import Counter, defaultdict

count = Counter()
tests = defaultdict(list)  # what each test said
packages = defaultdict(list)  # what all tests of a package said, in the order they said it
broken = 0  # packages that fail for another reason than a failed test: a build, a panic, a time-out
failing = set()


def show(text):
    print(text, end="" if text.endswith("\n") else "\n", flush=True)


for line in sys.stdin:
    try:
        event = json.loads(line)
    except ValueError:  # what make says
        show(line)
        continue
    action, package, test = event["Action"], event.get("Package"), event.get("Test")
    if action == "build-output":
        show(event["Output"])
    elif action == "output":
        tests[package, test].append(event["Output"])
        packages[package].append(event["Output"])
    elif action in ("pass", "fail", "skip") and test:
        said = tests.pop((package, test), [])
        count[action] += 1
        if action == "fail":
            failing.add(package)
            show(f"--- FAIL {package} {test}\n" + "".join(said))
        elif action == "skip":
            show(f"--- SKIP {package} {test}: " + " ".join(l.strip() for l in said if not l.startswith(("=== ", "--- "))))
    elif action in ("pass", "fail"):
        said = packages.pop(package, [])
        if action == "fail" and package not in failing:
            # Whose words a panic's are is anybody's guess, so all of them.
            broken += 1
            show("".join(said))
        show(f"{action} {package} {event.get('Elapsed', 0):.1f}s")

failed = count["fail"] + broken
with open(sys.argv[1], "w") as f:
    print(f"{count['pass']} passed, {failed} failed, {count['skip']} skipped", file=f)
show(f"{count['skip']} tests were skipped")
sys.exit(failed > 0)
