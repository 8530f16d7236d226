"""Record commands in a terminal as one animated SVG, which a browser and a README can show.

Needs `pyte`, a terminal emulator, beside what mapsto needs: ``pip install pyte``. Example, which is how docs/images/stream.svg was made::

    python scripts/record_terminal.py docs/images/stream.svg --folder demo \\
        --kill 'mapsto stream loans.csv --target decision --out runs/loans' --after 8 \\
        'mapsto stream loans.csv --target decision --out runs/loans'
"""

from __future__ import annotations

import argparse
import fcntl
import html
import os
import pty
import select
import signal
import struct
import termios
import time
from pathlib import Path

import pyte

COLUMNS, LINES = 100, 26
CHARACTER, LINE, PADDING = 8.4, 18, 14
COLOURS = {
    "default": "#d8dee9", "black": "#4c566a", "red": "#e06c75", "green": "#98c379", "brown": "#e5c07b", "yellow": "#e5c07b",
    "blue": "#61afef", "magenta": "#c678dd", "cyan": "#56b6c2", "white": "#d8dee9",
}  # fmt: skip
Frame = tuple[tuple[tuple[str, str, bool], ...], ...]
"""Lines of runs: (text, colour, whether bold)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("svg", type=Path)
    parser.add_argument("commands", nargs="+", help="run one after the other")
    parser.add_argument("--folder", type=Path, default=Path(), help="where")
    parser.add_argument("--kill", help="a command that is run first, and ended by kill -9")
    parser.add_argument("--after", type=float, default=5.0, help="seconds until then")
    parser.add_argument("--step", type=float, default=0.5, help="seconds between two frames")
    given = parser.parse_args()
    screen = pyte.Screen(COLUMNS, LINES)
    screen.set_mode(pyte.modes.LNM)
    stream = pyte.ByteStream(screen)
    frames: list[tuple[float, Frame]] = []
    for command in [*([given.kill] if given.kill else []), *given.commands]:
        is_killed = command == given.kill and not frames
        stream.feed(f"\x1b[32m$\x1b[0m {command}\n".encode())
        frames.append((1.0, frame_of(screen)))
        record(command, given.folder, stream, screen, frames, given.step, given.after if is_killed else None)
        if is_killed:
            stream.feed(b"\x1b[0m\n\x1b[31mkilled (kill -9)\x1b[0m\n")
            frames.append((1.5, frame_of(screen)))
    frames.append((4.0, frame_of(screen)))
    given.svg.write_text(animated(frames), encoding="utf-8")


def record(
    command: str,
    folder: Path,
    stream: pyte.ByteStream,
    screen: pyte.Screen,
    frames: list[tuple[float, Frame]],
    step: float,
    after: float | None,
) -> None:
    """Run a command on a terminal of its own, and take a frame each `step` seconds."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
        os.execvp("/bin/sh", ["/bin/sh", "-c", f"exec {command}"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    began = taken = time.monotonic()
    while True:
        if after is not None and time.monotonic() - began > after:
            os.kill(child, signal.SIGKILL)
            after = None
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:  # the other end is closed
                data = b""
            if not data:
                break
            stream.feed(data)
        if time.monotonic() - taken >= step:
            taken = time.monotonic()
            frames.append((step, frame_of(screen)))
    os.waitpid(child, 0)
    os.close(terminal)


def frame_of(screen: pyte.Screen) -> Frame:
    lines: list[tuple[tuple[str, str, bool], ...]] = []
    for y in range(LINES):
        runs: list[tuple[str, str, bool]] = []
        for x in range(COLUMNS):
            cell = screen.buffer[y][x]
            colour = COLOURS.get(cell.fg, f"#{cell.fg}" if len(cell.fg) == 6 else COLOURS["default"])
            if runs and runs[-1][1:] == (colour, cell.bold):
                runs[-1] = (runs[-1][0] + cell.data, colour, cell.bold)
            else:
                runs.append((cell.data, colour, cell.bold))
        if not "".join(text for text, _, _ in runs).strip():
            runs = []
        lines.append(tuple(runs))
    return tuple(lines)


def animated(frames: list[tuple[float, Frame]]) -> str:
    """The frames one after the other, equal neighbours as one, without end."""
    kept: list[tuple[float, Frame]] = []
    for seconds, frame in frames:
        if kept and kept[-1][1] == frame:
            kept[-1] = (min(kept[-1][0] + seconds, 6.0), frame)
        else:
            kept.append((seconds, frame))
    total = sum(seconds for seconds, _ in kept)
    width, height = COLUMNS * CHARACTER + 2 * PADDING, LINES * LINE + 2 * PADDING
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" font-family="ui-monospace, Menlo, Consolas, '
        f'\'DejaVu Sans Mono\', monospace" font-size="14"><rect width="100%" height="100%" rx="8" fill="#1e222a"/><style>'
        f"g{{visibility:hidden;animation-duration:{total:.2f}s;animation-iteration-count:infinite;animation-timing-function:step-end}}"
    ]
    at = 0.0
    for number, (seconds, _) in enumerate(kept):
        start, end = 100 * at / total, 100 * (at + seconds) / total
        rules = (
            f"{start:.3f}%{{visibility:visible}}{end:.3f}%{{visibility:hidden}}"
            if number < len(kept) - 1
            else (f"{start:.3f}%,100%{{visibility:visible}}")
        )
        parts.append(f"@keyframes f{number}{{0%{{visibility:hidden}}{rules}}}#f{number}{{animation-name:f{number}}}")
        at += seconds
    # without animation, as in a picture viewer or where motion is not wanted, the last frame stands
    last = len(kept) - 1
    parts.append(f"@media (prefers-reduced-motion){{g{{animation:none}}#f{last}{{visibility:visible}}}}</style>")
    for number, (_, frame) in enumerate(kept):
        parts.append(f'<g id="f{number}">')
        for y, runs in enumerate(frame):
            if runs:
                parts.append(line_of(runs, y))
        parts.append("</g>")
    return "".join(parts) + "</svg>\n"


def line_of(runs: tuple[tuple[str, str, bool], ...], y: int) -> str:
    spans = "".join(
        f'<tspan fill="{colour}"{" font-weight=" + chr(34) + "bold" + chr(34) if bold else ""}>{html.escape(text)}</tspan>'
        for text, colour, bold in runs
    )
    return f'<text x="{PADDING}" y="{PADDING + LINE * (y + 0.75):.1f}" xml:space="preserve">{spans}</text>'


if __name__ == "__main__":
    main()
