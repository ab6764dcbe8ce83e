"""Drawing a figure in a browser, in a process of its own that ends with it.

A browser that starts on a busy machine sometimes never answers, and kaleido waits for it without end.

    python -m evomerge.report.browser    # JSON of figure and options on stdin, the image on stdout
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from evomerge.errors import EvomergeError, UserError

SECONDS = 60.0
"""In which an image is drawn; 3 are usual."""
_NO_BROWSER = 3


def image(figure: Any, options: dict[str, Any]) -> bytes:  # noqa: ANN401 - as plotly takes it
    """Return a figure as an image; a browser that does not answer is started once more.

    Args:
        figure: As plotly's JSON has it.
        options: `opts` of kaleido: format, width, height, scale.

    Raises:
        UserError: There is no browser.
        EvomergeError: It fails, or never answers.
    """
    asked = json.dumps({"figure": figure, "opts": options}).encode()
    command = [sys.executable, "-m", __name__]
    for _ in range(2):
        try:
            done = subprocess.run(
                command, input=asked, capture_output=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == _NO_BROWSER:
            raise UserError(
                "images need Chromium or Chrome, and none was found; install it, or say with "
                "BROWSER_PATH where it is",
                field="--image",
            )
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise EvomergeError(f"the browser could not draw the image: {''.join(last)}")
        return done.stdout
    raise EvomergeError(f"the browser did not draw the image, twice within {SECONDS:g} seconds")


def main() -> None:
    """Draw what stdin asks for."""
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    asked = json.load(sys.stdin)
    try:
        content: bytes = kaleido.calc_fig_sync(asked["figure"], opts=asked["opts"])
    except ChromeNotFoundError:
        sys.exit(_NO_BROWSER)
    except (RuntimeError, OSError) as error:
        sys.exit(" ".join(str(error).split()))
    sys.stdout.buffer.write(content)


if __name__ == "__main__":
    main()
