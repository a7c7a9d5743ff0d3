"""Parlor's models: tokens, tensors and text. `load_model` is the way in.

    from model import load_model
    llm = load_model("path/of/a/model")
    for text in llm.stream([{"role": "user", "content": "Hello!"}]):
        print(text, end="", flush=True)

Importing this is cheap, for each process that reads a stranger's template does so: a module comes with the
first use of one of its names, torch and the tokenizers with load_model. Knows nothing of HTTP or sessions.
"""

import importlib
from typing import Any

_NAMES = {
    "model.catalogue.adapters": "FoundAdapter",
    "model.catalogue.listing": "Catalogue Entry",
    "model.catalogue.places": "Found found_at known_places",
    "model.chat_model": "ChatModel",
    "model.engine.request":
        "PARAMETER_SPECS EngineClosed PromptProgress RequestStats SamplingParams check_parameter",
    "model.files": "ModelLoadError",
    "model.hub.downloads": "DownloadBusy Downloads",
    "model.hub.source": "HubError parse_source",
    "model.language_model": "CONTINUE LOGPROBS RANK CannotDo LanguageModel RunningReply",
    "model.loading": "load_model",
    "model.remote.address": "BadAddress EngineAddress parse_engine parse_header",
    "model.remote.engines": "Engines EngineState Offer RemoteLease",
    "model.next_token": "NextToken",
    "model.reply": "CallDelta Completion Reply ReplyDone ReplyFailed ScoredToken TextDelta",
    "model.slot.model_slot": "Lease ModelSlot",
    "model.slot.state": "LeaseGivenUp NoModel SlotBusy SlotState",
    "model.text.calls.toolbox": "AUTO REQUIRED Tool Toolbox ToolCall",
    "model.text.constraint": "Constraint",
    "model.text.context": "ContextFit",
    "model.text.errors": "PromptTooLongError TemplateError",
    "model.text.messages": "ChatMessage",
    "model.text.patterns": "pattern_occurs",
    "model.text.pdf_text": "pdf_text",
    "model.text.prompt_parts": "PromptPart PromptView",
    "model.text.thinking": "thinking_variables",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return globals()[name]
