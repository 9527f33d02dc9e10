"""MCP: the library as tools for an assistant, which starts the server and talks to it by pipes.

arguments.py  what may be asked, typed
tools.py      the tools, and what they answer
server.py     the protocol, by its SDK
"""

from importlib.util import find_spec

from vecsearch.errors import InvalidInput


def require_extra() -> None:
    """Check that the extra mcp is installed.

    Raises:
        InvalidInput: it is not.

    """
    # The SDK's first version did not have the second.
    if find_spec("mcp") is None or find_spec("mcp_types") is None:
        raise InvalidInput(
            "MCP needs the extra 'mcp', which is not installed. Run: pip install 'vecsearch[mcp]'"
        )
