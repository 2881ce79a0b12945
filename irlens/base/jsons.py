"""JSON that others wrote: read, or refused as malformed whatever is wrong with it."""

import json
import re
from typing import Any

HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # how half of a letter beyond 16 bits may be written


def loads(text: str | bytes, **more: Any) -> Any:
    """`json.loads` that raises json.JSONDecodeError for all that it cannot read: nested too deeply, a whole number of
    thousands of digits, and text with half a letter (a lone surrogate), which no file can hold. Also UnicodeDecodeError."""
    said = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        found = json.loads(said, **more)
        if HALF.search(said):
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None
    except UnicodeEncodeError:
        raise json.JSONDecodeError("text with half a letter, a lone surrogate", "", 0) from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        if "integer string" not in str(error):  # of an object hook
            raise
        raise json.JSONDecodeError("a whole number of thousands of digits", "", 0) from None
