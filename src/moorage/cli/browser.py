"""The operator's browser."""

from __future__ import annotations

import asyncio


async def open_in_browser(url: str) -> None:
    """In a thread, for some browsers keep who opens them waiting."""
    await asyncio.to_thread(open_url, url)


def open_url(url: str) -> bool:
    """Whether there is a browser to be opened."""
    import webbrowser

    return webbrowser.open(url)
