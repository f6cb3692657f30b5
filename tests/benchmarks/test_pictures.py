"""The script that draws the documentation's pictures still draws them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def text_of(picture: Path) -> str:
    return re.sub(r"<[^>]*>", " ", picture.read_text()).replace("&#160;", " ")


def test_that_the_terminal_s_pictures_are_drawn_and_ask_for_nothing(tmp_path: Path) -> None:
    script = ROOT / "docs" / "pictures" / "draw.py"
    subprocess.run([sys.executable, script, "--to", tmp_path], check=True, timeout=100)
    drawn = {file.name: text_of(file) for file in tmp_path.iterdir()}
    assert set(drawn) == {"watch-digits.svg", "watch-showers.svg", "show.svg"}
    assert set(drawn) <= {file.name for file in script.parent.iterdir()}
    assert "of 200" in drawn["watch-digits.svg"] and "left" in drawn["watch-digits.svg"]
    assert "15 of 15 begun" in drawn["watch-showers.svg"]
    assert "completed, 1 failed attempt" in drawn["show.svg"]
    for file in tmp_path.iterdir():
        assert not re.search(r"(url|href)\W+https?:", file.read_text())
