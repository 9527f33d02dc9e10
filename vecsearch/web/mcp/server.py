"""The server of MCP on standard input and output, by the protocol's own SDK."""

import base64
import json
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import anyio
from anyio import to_thread
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import TypeAdapter, ValidationError

from vecsearch import __version__
from vecsearch.errors import VecsearchError
from vecsearch.imaging import thumbnails
from vecsearch.web.mcp import tools
from vecsearch.web.mcp.tools import Reply, Served
from vecsearch.web.parameters import faulty, taken

# Calls at once; more wait.
AT_ONCE = 4
INSTRUCTIONS = (
    "A library of images in PostgreSQL. It can be searched by what images look like, and read by "
    "SQL. It cannot be changed from here; people add images with `vecsearch ingest FOLDER`."
)
_READS = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_log = logging.getLogger(__name__)


def create_server(served: Served) -> Server[Any]:
    """Return the server of the tools over an open library."""
    known = {tool.name: tool for tool in tools.TOOLS}
    answers: dict[str, TypeAdapter[Any]] = {
        tool.name: TypeAdapter(tool.answers) for tool in tools.TOOLS
    }
    declared = [_declared(tool, answers[tool.name]) for tool in tools.TOOLS]
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def list_tools(
        _: ServerRequestContext[Any], __: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=declared)

    async def call_tool(
        _: ServerRequestContext[Any], asked: CallToolRequestParams
    ) -> CallToolResult:
        if asked.name not in known:
            raise MCPError(
                INVALID_PARAMS, f"There is no tool {asked.name!r}. Use {', '.join(known)}."
            )

        def call() -> CallToolResult:
            given = asked.arguments or {}
            return _called(served, known[asked.name], answers[asked.name], given)

        return await to_thread.run_sync(call, limiter=limiter)

    return Server(
        "vecsearch",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def serve(served: Served) -> None:
    """Serve until standard input ends. Whatever else is printed meanwhile goes to stderr."""
    ended: Future[None] = Future()

    def run() -> None:
        try:
            anyio.run(_serve, create_server(served))
            ended.set_result(None)
        except BaseException as error:  # noqa: BLE001 - for the thread that waits
            ended.set_exception(error)

    # The SDK waits for stdin in a thread, which a signal does not wake, but a daemon's threads are
    # daemons, too, so the process can end.
    threading.Thread(target=run, name="mcp", daemon=True).start()
    try:
        ended.result()
    except* BrokenPipeError:
        pass  # the assistant is gone


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def _declared(tool: tools.Tool[Any], answer: TypeAdapter[Any]) -> Tool:
    return Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.arguments.model_json_schema(),
        output_schema=answer.json_schema(mode="serialization"),
        annotations=_READS,
    )


def _called(
    served: Served, tool: tools.Tool[Any], answer: TypeAdapter[Any], given: Mapping[str, Any]
) -> CallToolResult:
    """Return what a tool answers, or why it cannot."""
    try:
        return _shown(tool.call(served, tool.arguments.model_validate(given)), answer)
    except ValidationError as error:
        fields = taken(tool.arguments)
        return _failed(
            faulty(
                (item["loc"], item["type"], item["msg"], fields.get(item["loc"][:1]))
                for item in error.errors()
            )
        )
    except VecsearchError as error:
        return _failed(str(error))
    except Exception:  # noqa: BLE001 - one bad call must not end the server
        _log.exception("The tool %s failed", tool.name)
        return _failed("vecsearch failed: this is a bug. See the log of the server.")


def _shown(reply: Reply, answer: TypeAdapter[Any]) -> CallToolResult:
    """Return an answer as JSON, twice as the protocol asks for, and its pictures."""
    text = answer.dump_json(reply.answer).decode()
    content: list[ContentBlock] = [TextContent(text=text)]
    for caption, picture in reply.pictures:
        data = base64.b64encode(picture).decode()
        content.append(TextContent(text=caption))
        content.append(ImageContent(data=data, mime_type=thumbnails.media_type(picture)))
    return CallToolResult(content=content, structured_content=json.loads(text))


def _failed(sentence: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=sentence)], is_error=True)
