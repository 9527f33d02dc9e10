"""An assistant: the SDK's own client of `vecsearch mcp`."""

import base64
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import PIL.Image
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult, ImageContent, TextContent

COMMAND = ["-m", "vecsearch", "mcp"]


@dataclass(frozen=True)
class Assistant:
    """A client of a server that runs the library."""

    portal: BlockingPortal
    client: Client

    def result(self, tool: str, **arguments: Any) -> CallToolResult:
        found: CallToolResult = self.portal.call(self.client.call_tool, tool, arguments)
        return found

    def call(self, tool: str, **arguments: Any) -> tuple[Any, list[PIL.Image.Image]]:
        """Return a tool's answer and its pictures; the text says the same as the answer."""
        result = self.result(tool, **arguments)
        assert not result.is_error, result.content
        text, *rest = result.content
        assert isinstance(text, TextContent)
        assert json.loads(text.text) == result.structured_content
        pictures: list[PIL.Image.Image] = [
            PIL.Image.open(io.BytesIO(base64.b64decode(each.data)))
            for each in rest
            if isinstance(each, ImageContent)
        ]
        for each in pictures:
            each.load()
        assert len(rest) == 2 * len(pictures)
        return result.structured_content, pictures

    def refused(self, tool: str, **arguments: Any) -> str:
        """Return the sentence of a tool's error."""
        result = self.result(tool, **arguments)
        [text] = result.content
        assert isinstance(text, TextContent)
        assert result.is_error, text
        assert "Traceback" not in text.text
        return text.text


@contextmanager
def assistant(*options: object) -> Iterator[Assistant]:
    started = StdioServerParameters(
        command=sys.executable, args=[*COMMAND, *map(str, options)], env=dict(os.environ)
    )
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Client(stdio_client(started))) as client,
    ):
        yield Assistant(portal, client)
