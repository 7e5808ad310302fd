#!/usr/bin/env python3
"""Draws docs/terminal.svg: a terminal during a real import into the sandbox.

Run it in the project's folder when the progress bar or the messages have changed:

    cargo build --release && python3 docs/picture.py

It needs Python 3 alone. The import runs under a pseudo terminal; the picture is what stands there at two thirds of it.
"""

import fcntl
import html
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios

COLUMNS, LINES = 124, 24
COMMAND = ["import", "users.csv", "--sandbox"]
ROWS = 3000
# The share of the rows at which the picture is taken.
AT_PERCENT = 66
# A cell of the picture, in pixels, and the room around the text.
WIDTH, HEIGHT, MARGIN = 8.4, 20, 16
COLOURS = {"32": "#7ee787", "33": "#e3b341", "31": "#ff7b72", "36": "#76e3ea", "34": "#79c0ff", "2": "#8b949e"}
TEXT, BACK = "#e6edf3", "#0d1117"
ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Screen:
    """As much of a terminal as progress bars and log lines use."""

    def __init__(self):
        self.rows, self.row, self.column, self.colour = [[]], 0, 0, TEXT

    def feed(self, text):
        at = 0
        while at < len(text):
            found = ESCAPE.match(text, at)
            if found:
                self.escape(found.group(1), found.group(2))
                at = found.end()
            else:
                self.put(text[at])
                at += 1

    def escape(self, value, kind):
        count = int(value) if value.isdigit() else 1
        if kind == "A":
            self.row = max(0, self.row - count)
        elif kind == "B":
            self.move_down(count)
        elif kind == "K":
            del self.rows[self.row][0 if value == "2" else self.column:]
        elif kind == "m":
            self.colour = COLOURS.get(value, TEXT)

    def move_down(self, count):
        self.row += count
        while len(self.rows) <= self.row:
            self.rows.append([])

    def put(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.move_down(1)
        else:
            if self.column == COLUMNS:
                self.column = 0
                self.move_down(1)
            line = self.rows[self.row]
            line.extend([(" ", TEXT)] * (self.column + 1 - len(line)))
            line[self.column] = (char, self.colour)
            self.column += 1

    def text(self):
        return "\n".join("".join(char for char, _ in row) for row in self.rows)


def accounts():
    """The accounts of the fixture, over and over, with other UserIDs."""
    head, *rows = open("fixtures/accounts.csv", encoding="utf-8").read().splitlines()
    lines = [head]
    for at in range(ROWS):
        user, rest = rows[at % len(rows)].split(",", 1)
        lines.append(f"{user[:26]}_{at},{rest}" if at >= len(rows) else f"{user},{rest}")
    return "\n".join(lines) + "\n"


def run(binary, folder):
    """The screen when the import has come far enough."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {"TERM": "xterm-256color", "PATH": os.environ["PATH"]}
    process = subprocess.Popen([binary, *COMMAND], cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    screen, rest = Screen(), b""
    screen.feed(f"$ chatlift {' '.join(COMMAND)}\r\n")
    try:
        while True:
            rest += os.read(ours, 65536)
            # What has come may end within a character or an escape sequence.
            whole = rest.rfind(b"\x1b") if rest.rfind(b"\x1b") > len(rest) - 8 else len(rest)
            try:
                text = rest[:whole].decode()
            except UnicodeDecodeError:
                continue
            screen.feed(text)
            rest = rest[whole:]
            percent = re.search(r"\] +(\d+) %", screen.text())
            if percent and int(percent.group(1)) >= AT_PERCENT:
                return screen
    except OSError:
        sys.exit("the import ended before the picture was taken:\n" + screen.text())
    finally:
        process.kill()
        process.wait()


def without_blank_end(row):
    used = len("".join(char for char, _ in row).rstrip())
    return row[:used]


def spans(row):
    """The parts of a line that have one colour."""
    parts = []
    for char, colour in row:
        if parts and parts[-1][1] == colour:
            parts[-1][0] += char
        else:
            parts.append([char, colour])
    return parts


def svg(screen):
    rows = [without_blank_end(row) for row in screen.rows]
    while rows and not rows[-1]:
        rows.pop()
    width, height = COLUMNS * WIDTH + 2 * MARGIN, len(rows) * HEIGHT + 2 * MARGIN
    title = f"A terminal in which chatlift {' '.join(COMMAND)} runs"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">',
        f"<title>{title}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{BACK}"/>',
        '<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">',
    ]
    for at, row in enumerate(rows):
        column = 0
        for text, colour in spans(row):
            if text.strip():
                x, y = MARGIN + column * WIDTH, MARGIN + at * HEIGHT + 14
                length = f' textLength="{len(text) * WIDTH:.1f}"'
                lines.append(f'<text x="{x:.1f}" y="{y}" fill="{colour}"{length}>{html.escape(text)}</text>')
            column += len(text)
    return "\n".join([*lines, "</g>", "</svg>", ""])


def main():
    binary = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/release/chatlift")
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "users.csv"), "w", encoding="utf-8") as file:
            file.write(accounts())
        picture = svg(run(binary, folder))
    with open("docs/terminal.svg", "w", encoding="utf-8") as file:
        file.write(picture)


main()
