"""How a dialogue becomes the text that the model sees: roles, names, rooms.

The same rendering as the web page's view of a session; a test holds the two together.
"""

from dataclasses import dataclass

BOS, EOS = "<s>", "</s>"
ROLE_TOKENS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + (message['content'] | trim) + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
GO_ON = "(go on)"


@dataclass(frozen=True)
class Line:
    """One message of a session: who, and what. `by` is a name."""

    by: str
    text: str


def room_note(user: str, bots: list[str], speaker: str) -> str:
    """What a bot's system prompt says in a room of several bots."""
    people = ", ".join([user, *bots])
    return f"\nPeople in the room: {people}. You are {speaker}. Write only what {speaker} says."


def view(lines: list[Line], speaker: str, system: str, bots: list[str], user: str) -> list[tuple[str, str]]:
    """The (role, content) messages that `speaker` sees before it writes its next words."""
    room = len(bots) > 1
    messages: list[tuple[str, str]] = []
    for line in lines:
        if line.by == speaker:
            messages.append(("assistant", line.text))
            continue
        text = f"{line.by}: {line.text}" if room else line.text
        if room and messages and messages[-1][0] == "user":
            messages[-1] = ("user", f"{messages[-1][1]}\n{text}")
        else:
            messages.append(("user", text))
    system += room_note(user, bots, speaker) if room else ""
    if system:
        messages.insert(0, ("system", system.strip()))
    if lines and lines[-1].by == speaker:
        messages.append(("user", GO_ON))
    return messages


def with_reply(
    lines: list[Line], speaker: str, system: str, bots: list[str], user: str
) -> list[tuple[str, str]]:
    """What `speaker` sees before its last line, and that line: a document to learn from."""
    last = max(index for index, line in enumerate(lines) if line.by == speaker)
    return [*view(lines[:last], speaker, system, bots, user), ("assistant", lines[last].text)]


def render(messages: list[tuple[str, str]], add_generation_prompt: bool = False) -> str:
    """The template's text, special tokens written out."""
    text = BOS + "".join(f"{ROLE_TOKENS[role]}{content.strip()}{EOS}" for role, content in messages)
    return text + (ROLE_TOKENS["assistant"] if add_generation_prompt else "")


def transcript(lines: list[Line]) -> str:
    """The plain "Name: text" form, in which the next speaker is guessed."""
    return BOS + "\n".join(f"{line.by}: {line.text}" for line in lines) + EOS
