"""Parlor's models: tokens, tensors and text. `load_model` is the way in.

    from model import load_model
    llm = load_model("path/of/a/model")
    for text in llm.stream([{"role": "user", "content": "Hello!"}]):
        print(text, end="", flush=True)

Importing this is cheap: torch and the tokenizers come with load_model. Knows nothing of HTTP or sessions.
"""

from model.catalogue.listing import Catalogue, Entry
from model.catalogue.places import Found, found_at, known_places
from model.chat_model import ChatModel
from model.engine.request import (
    PARAMETER_SPECS,
    EngineClosed,
    PromptProgress,
    RequestStats,
    SamplingParams,
    check_parameter,
)
from model.files import ModelLoadError
from model.hub.downloads import DownloadBusy, Downloads
from model.hub.source import HubError, parse_source
from model.language_model import CONTINUE, RANK, CannotDo, LanguageModel, RunningReply
from model.loading import load_model
from model.remote.address import BadAddress, EngineAddress, parse_engine, parse_header
from model.remote.engines import Engines, EngineState, Offer, RemoteLease
from model.reply import CallDelta, Completion, Reply, ReplyDone, ReplyFailed, ScoredToken, TextDelta
from model.slot import Lease, ModelSlot
from model.slot_state import LeaseGivenUp, NoModel, SlotBusy, SlotState
from model.text.calls.toolbox import AUTO, REQUIRED, Tool, Toolbox, ToolCall
from model.text.constraint import Constraint
from model.text.context import ContextFit
from model.text.errors import PromptTooLongError, TemplateError
from model.text.messages import ChatMessage

__all__ = ["AUTO", "CONTINUE", "PARAMETER_SPECS", "RANK", "REQUIRED", "BadAddress", "CallDelta", "CannotDo",
           "Catalogue", "ChatMessage", "ChatModel", "Completion", "Constraint", "ContextFit", "DownloadBusy",
           "Downloads", "EngineAddress", "EngineClosed", "EngineState", "Engines", "Entry", "Found",
           "HubError", "LanguageModel", "Lease", "LeaseGivenUp", "ModelLoadError", "ModelSlot", "NoModel",
           "Offer", "PromptProgress", "PromptTooLongError", "RemoteLease", "Reply", "ReplyDone",
           "ReplyFailed", "RequestStats", "RunningReply", "SamplingParams", "ScoredToken", "SlotBusy",
           "SlotState", "TemplateError", "TextDelta", "Tool", "ToolCall", "Toolbox", "check_parameter",
           "found_at", "known_places", "load_model", "parse_engine", "parse_header", "parse_source"]
