#!/usr/bin/env python3
"""Makes docs/report.png: the report of a real import into a sandbox that was down for a while.

Run it in the project's folder when the page has changed:

    cargo build --release && python3 docs/report_picture.py

It needs Python 3 and Chromium. The import takes about a minute.
"""

import os
import subprocess
import sys
import tempfile

ROWS = 9000
# Every so-manyth row is one that check would refuse, so that the report has something to tell.
BAD_EVERY = 1500
SANDBOX = ["sandbox", "--rate-limit", "250", "--latency", "25ms", "--jitter", "20ms", "--fault", "http=502,period=15s..25s", "--fault", "code=70402,ids=0.1%"]
IMPORT = "import users.csv --report report.html --no-progress"
WIDTH, HEIGHT = 1180, 920


def accounts():
    """The accounts of the fixture, over and over, with other UserIDs."""
    head, *rows = open("fixtures/accounts.csv", encoding="utf-8").read().splitlines()
    lines = [head]
    for at in range(ROWS):
        user, rest = rows[at % len(rows)].split(",", 1)
        name = "mémbre" if at % BAD_EVERY == 7 else user[:24]
        lines.append(f"{name}_{at},{rest}")
    return "\n".join(lines) + "\n"


def main():
    binary = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/release/chatlift")
    picture = os.path.abspath("docs/report.png")
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "users.csv"), "w", encoding="utf-8") as file:
            file.write(accounts())
        subprocess.run([binary, *SANDBOX, "--run", f"{binary} {IMPORT}"], cwd=folder, check=False)
        page = f"file://{folder}/report.html"
        chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
        subprocess.run([*chromium, f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={picture}", page], check=True)


main()
